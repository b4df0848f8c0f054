#!/bin/bash
# What nginx ends by a limit of its own: uploads beyond client_max_body_size, clients without a certificate, idle WebSockets. And a narrow
# link behind which the server's large segments vanish, seen at the client. About 1 minute.
#                                                        nginx-limits.sh [OUTPUT [group…]]      groups: uploads certificates sockets narrow
. "$(dirname "$0")/lib.sh"
lab_need nginx curl
R=${1:-$CAPTURES/rules}
shift $(( $# > 0 ))
GROUPS_WANTED=${*:-uploads certificates sockets narrow}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
S=10.224.26.2
FRONT=203.0.113.1
lab_begin

if wants uploads; then
# --- a limit of 16 kB in front of an application that takes everything ---------------------------------------------------
nginx_start "$B" "server { listen 7360; client_max_body_size 0; location / { return 201 kept; } location /csv { return 415; } }"
wait_port "$B" 7360
nginx_start "$P" "client_max_body_size 16k; server { listen 80; location / { proxy_pass http://$S:7360; } }"
FRONT_PID=$LAST
wait_port "$P" 80
head -c 1000 /dev/zero | tr '\0' x >"$TMP/small"
head -c 20000 /dev/zero | tr '\0' x >"$TMP/large"
sent() { get "$C" -X POST -H Expect: --data-binary "@$TMP/$1" "http://$FRONT/${2:-files}"; }
uploads() { sent small; sent large; sent large; sent small; sent large; }
record "$C" eth0 "$R/http-upload-refused/nginx-client-max-body-size.pcap" "port 80" uploads
one() { sent small; sent large; }
record "$C" eth0 "$R/http-upload-refused/a-single-one.pcap" "port 80" one
taken() { sent small; sent small; sent small csv; get "$C" "http://$FRONT/files"; }
record "$C" eth0 "$R/http-upload-refused/not-below-the-limit.pcap" "port 80" taken
stop "$FRONT_PID"
fi

if wants certificates; then
# --- nginx answers 400 inside TLS; TLS 1.2, where the empty Certificate message can be read -------------------------------
certificates www.example.com client
T=tls-client-cert-required
with() { # on|optional
    nginx_start "$B" "ssl_protocols TLSv1.2; ssl_certificate $TMP/www.example.com.crt; ssl_certificate_key $TMP/www.example.com.key;
      ssl_client_certificate $TMP/ca.pem; ssl_verify_client $1; server { listen 443 ssl; }"
    SERVER_PID=$LAST
    wait_port "$B" 443
}
page() { get "$C" --tls-max 1.2 --connect-to "::$S:443" "$@" https://www.example.com/ https://www.example.com/; }
known() { page --cert "$TMP/client.crt" --key "$TMP/client.key"; }
strangers() { known; page; sleep 0.3; page; }
with on
record "$C" eth0 "$R/$T/at-nginx-tls12.pcap" "port 443" strangers
stop "$SERVER_PID"
with optional
record "$C" eth0 "$R/$T/not-optional-at-nginx-tls12.pcap" "port 443" strangers
stop "$SERVER_PID"
fi

if wants sockets; then
# --- proxy_read_timeout ends WebSockets that nobody speaks on ----------------------------------------------------------
T=idle-timeout-close
cat >"$TMP/chat.py" <<'X'
"""WebSocket server: greets and then keeps still; after SECONDS, where given, it says goodbye with a Close frame."""
import base64, hashlib, socket, sys, threading, time

def serve(conn, seconds):
    head = conn.recv(4096).decode()
    key = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    conn.sendall(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    conn.sendall(b"\x81\x05hello")
    if seconds:
        time.sleep(seconds)
        conn.sendall(b"\x88\x02\x03\xe8")
        return conn.close()
    conn.recv(4096)
    conn.close()

listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    threading.Thread(target=serve, args=(conn, float(sys.argv[2])), daemon=True).start()
X
spawn "$B" python3 "$TMP/chat.py" 7361 0
wait_port "$B" 7361
spawn "$B" python3 "$TMP/chat.py" 7362 4
wait_port "$B" 7362
nginx_start "$P" "proxy_http_version 1.1; proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection upgrade; proxy_read_timeout 5s;
  server { listen 80; location / { proxy_pass http://$S:7361; } location /bye { proxy_pass http://$S:7362; } }"
wait_port "$P" 80
ws() { get "$C" -m "${2:-9}" --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "http://$FRONT/$1"; }
three() {
    local pids=() n
    for n in 1 2 3; do ws "$1" "${2:-9}" & pids+=($!); sleep 0.4; done
    wait "${pids[@]}"
}
record "$P" any "$R/$T/nginx-websockets-5s.pcap" "port 80 or port 7361" three chat
record "$C" eth0 "$R/$T/not-websockets-that-say-goodbye.pcap" "port 80" three bye
record "$C" eth0 "$R/$T/not-websockets-the-client-leaves.pcap" "port 80" three chat 3
fi

if wants narrow; then
# --- the way to the client is narrower than the backend knows, and no ICMP says so --------------------------------------
# a chain of two RSA certificates does not fit one segment
openssl req -x509 -newkey rsa:4096 -nodes -days 20 -subj "/CN=www.example.com" -keyout "$TMP/wide.key" -out "$TMP/wide.crt" 2>/dev/null
cat "$TMP/wide.crt" "$TMP/wide.crt" >"$TMP/wide.pem"
nginx_start "$B" "ssl_certificate $TMP/wide.pem; ssl_certificate_key $TMP/wide.key; server { listen 443 ssl; } server { listen 80; }"
head -c 6942 /dev/zero | tr '\0' 'x' >"$NGINX_DIR/html/large-to-the-last.txt"
head -c 6000 /dev/zero | tr '\0' 'x' >"$NGINX_DIR/html/index-with-a-small-end.txt"
wait_port "$B" 443
on "$P" ip link set eth0 mtu 1280
# what the router would say of it finds no route
on "$P" ip rule add iif lo ipproto icmp blackhole
hello() { get "$C" -m 12 --connect-to "::$S:443" https://www.example.com/; sleep 4; }
record "$C" eth0 "$R/pmtu-blackhole/tls-at-the-client.pcap" "tcp port 443" hello
# all that goes out is large: no rest behind it is reported
answers() {
    get "$C" "http://$S/"
    get "$C" -m 10 "http://$S/large-to-the-last.txt" & local first=$!
    sleep 1
    get "$C" -m 9 "http://$S/large.txt"
    wait $first
    sleep 2
}
record "$B" eth0 "$R/pmtu-blackhole/nothing-but-full-segments.pcap" "tcp port 80" answers
# on a connection that has been used a while the acknowledgment of a request comes with the answer, and gets lost with it
kept() {
    get "$C" -m 10 "http://$S/" "http://$S/" "http://$S/" "http://$S/" "http://$S/" "http://$S/large-to-the-last.txt" & local first=$!
    sleep 1
    get "$C" -m 9 "http://$S/index-with-a-small-end.txt"
    wait $first
    sleep 2
}
record "$B" eth0 "$R/pmtu-blackhole/acknowledgments-with-it.pcap" "tcp port 80" kept
fi
