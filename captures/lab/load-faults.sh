#!/bin/bash
# Rules tls-truncated-close, connection-churn and h2-concurrency-limited: nginx, curl, ab, Node, Python. About 30 seconds.
. "$(dirname "$0")/lib.sh"
lab_need nginx curl ab node
OUT=${1:-$CAPTURES}
R=$OUT/rules
S=10.224.26.2
lab_begin
certificates shop.example
# small buffers, so that a record waits half sent and captures stay small
on "$C" sysctl -qw net.ipv4.tcp_rmem="4096 8192 8192"
on "$B" sysctl -qw net.ipv4.tcp_wmem="4096 16384 16384"

T=$R/tls-truncated-close
tls_server() { # starts nginx on 443 with a large file; $LAST is its process id
    nginx_start "$B" "server { listen 443 ssl; ssl_certificate $TMP/shop.example.pem; ssl_certificate_key $TMP/shop.example.key; }"
    head -c 400000 /dev/urandom >"$NGINX_DIR/html/large"
    wait_port "$B" 443
}
cat >"$TMP/slowly.py" <<'PY'
"""Downloads /large, 2 KB every 10 ms, for so many seconds."""
import socket, ssl, sys, time
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
end = time.time() + float(sys.argv[2])
with context.wrap_socket(socket.create_connection((sys.argv[1], 443))) as tls:
    tls.sendall(b"GET /large HTTP/1.1\r\nHost: shop.example\r\n\r\n")
    while time.time() < end and tls.recv(2048):
        time.sleep(0.01)
PY
slowly() { on "$C" python3 "$TMP/slowly.py" $S "$1" </dev/null >>"$TMP/slowly.log" 2>&1; }
killed() {
    slowly 5 &
    local client=$!
    sleep 0.4
    stop "$SERVER" KILL
    wait "$client"
    tail -n 1 "$TMP/slowly.log"
}
tls_server
SERVER=$LAST
record "$C" eth0 $T/nginx-killed-while-sending.pcap "tcp port 443" killed
tls_server
SERVER=$LAST
record "$C" eth0 $T/not-the-client-leaves.pcap "tcp port 443" slowly 0.3
stop "$SERVER"
cat >"$TMP/nogoodbye.py" <<'PY'
"""Answers twice and closes without close_notify."""
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
listener = socket.create_server(("0.0.0.0", 444))
for _ in range(2):
    tls = context.wrap_socket(listener.accept()[0], server_side=True)
    tls.recv(4096)
    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nConnection: close\r\n\r\n" + b"x" * 5000)
    socket.socket(fileno=tls.detach()).close()
PY
spawn "$B" python3 "$TMP/nogoodbye.py" "$TMP/shop.example.pem"
wait_port "$B" 444
twice() { get "$C" "https://$S:444/"; get "$C" "https://$S:444/"; }
record "$C" eth0 $T/not-without-close-notify.pcap "tcp port 444" twice

T=$R/connection-churn
nginx_start "$B" 'server { listen 80; keepalive_requests 1000; location / { return 200 "hello\n"; } }'
nginx_start "$P" "upstream shop { server $S:80; }
  upstream kept { server $S:80; keepalive 8; }
  server { listen 80; keepalive_requests 1000; location / { proxy_pass http://shop; } }
  server { listen 81; keepalive_requests 1000; location / { proxy_pass http://kept; proxy_http_version 1.1; proxy_set_header Connection \"\"; } }"
wait_port "$B" 80
wait_port "$P" 80
wait_port "$P" 81
requests() { on "$C" ab -q -k -c 2 -n 60 "http://203.0.113.1:$1/" </dev/null >>"$TMP/ab.log" 2>&1; }
record "$P" eth1 $T/nginx-without-keepalive.pcap "tcp port 80" requests 80
record "$P" eth1 $T/not-nginx-with-keepalive.pcap "tcp port 80" requests 81

T=$R/h2-concurrency-limited
cat >"$TMP/slow.py" <<'PY'
import http.server, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.3)
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")
http.server.ThreadingHTTPServer.request_queue_size = 64
http.server.ThreadingHTTPServer(("127.0.0.1", 7300), Slow).serve_forever()
PY
spawn "$B" python3 "$TMP/slow.py"
wait_port "$B" 7300
nginx_start "$B" "server { listen 91 http2; http2_max_concurrent_streams 4; location / { proxy_pass http://127.0.0.1:7300; } }
  server { listen 92 http2; location / { proxy_pass http://127.0.0.1:7300; } }"
wait_port "$B" 91
wait_port "$B" 92
cat >"$TMP/calls.js" <<'JS'
// 24 requests at once on one connection, once the server has said what it permits
const client = require("http2").connect(process.argv[2]);
let open = 24;
client.once("remoteSettings", () => {
  for (let n = 0; n < 24; n++) {
    const request = client.request({ ":path": "/price/" + n });
    request.on("end", () => --open || client.close());
    request.resume().end();
  }
});
JS
calls() { on "$C" node "$TMP/calls.js" "http://$S:$1" </dev/null >>"$TMP/node.log" 2>&1; }
record "$B" eth0 $T/nginx-four-at-once.pcap "tcp port 91" calls 91
record "$B" eth0 $T/not-24-of-128.pcap "tcp port 92" calls 92
