#!/bin/bash
# Families J and L, second part: requests that never end, lengths that contradict each other, answers that are no HTTP, proxies that keep a request,
# limits, WebSocket, 100 Continue. nginx, Apache, HAProxy, Node, Python and scripted servers. About 3 minutes.
#     http-more.sh [OUTPUT [group…]]      groups: incomplete framing invalid latency limits upgrade expect loops retries names
. "$(dirname "$0")/lib.sh"
lab_need nginx apache2 haproxy curl node
OUT=${1:-$CAPTURES/rules}
shift
GROUPS_WANTED=${*:-incomplete framing invalid latency limits upgrade expect loops retries names}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
R=$OUT
S=10.224.26.2
FRONT=203.0.113.1
lab_begin
at_backend() { record "$B" eth0 "$R/$1.pcap" "port $2" "${@:3}"; }
both() { record "$P" any "$R/$1.pcap" "$2" "${@:3}"; }
say() { talk "$C" $S "$1" "${@:2}"; }
nginx_start "$B" "client_header_timeout 3s; client_body_timeout 3s; limit_req_zone \$binary_remote_addr zone=strict:1m rate=2r/s;
  server { listen 80; client_max_body_size 1m;
    location /api { limit_req zone=strict burst=1 nodelay; limit_req_status 429; error_page 429 = @slow; }
    location @slow { add_header Retry-After 30 always; default_type application/json; return 429 '{\"error\":\"slow down\"}'; }
    location /page { limit_req zone=strict burst=1 nodelay; }
    location /closed { add_header Retry-After 600 always; return 503 'maintenance'; }
    location /taken { return 200 'taken'; }
    location /login { return 401; }
  }"
printf 'the page\n' >"$NGINX_DIR/html/page"
printf '{}\n' >"$NGINX_DIR/html/api"
apache_start "$B" "Listen 81
RequestReadTimeout header=3 body=3"
haproxy_start "$B" "defaults
  mode http
  $HAPROXY_TIMES
  timeout http-request 3s
frontend plain
  bind :82
  http-request return status 200 content-type text/plain string hello"
for port in 80 81 82; do wait_port "$B" $port; done
HEAD='GET /index.html HTTP/1.1\r\nHost: www.example.com\r\n'

if wants incomplete; then
T=http-request-incomplete
for server in nginx:80 apache:81 haproxy:82; do
    at_backend $T/${server%:*}-half-a-head ${server#*:} say ${server#*:} "send:$HEAD" eof:9
done
BODY='send:POST /taken HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 5000\r\n\r\nfirst and last octets'
serve "$B" 7331 'recv:\r\n\r\n' sleep:30 close
unmoved() { say 7331 "$BODY" sleep:12 vanish & local one=$!; sleep 11; say 7331 "send:$HEAD\r\n" close; wait $one; }
at_backend $T/half-a-body-and-nobody-moves 7331 unmoved
at_backend $T/haproxy-half-a-head-on-the-second 82 say 82 "send:$HEAD\r\n" recv "send:GET /second HTTP/1.1\r\nHos" eof:9
crowd() { local n; for n in $(seq 25); do say 80 "send:$HEAD" eof:9 & done; wait $(jobs -p | tail -25); }
at_backend $T/slowloris 80 crowd
pieces() { say 80 'send:GET /index.html HT' sleep:0.9 'send:TP/1.1\r\nHost: www.exa' sleep:0.9 'send:mple.com\r\nConnection: close\r\n\r\n' eof:3; }
at_backend $T/not-slow-but-whole 80 pieces
at_backend $T/not-the-client-left 80 say 80 "send:$HEAD" sleep:1.5 close
at_backend $T/not-an-idle-connection 82 say 82 eof:9
head -c 3000000 /dev/zero >"$TMP/large"
refused() { get "$C" -T "$TMP/large" -m 5 -H 'Expect:' "http://$S/large"; }
at_backend $T/not-refused-before-its-end 80 refused
fi

if wants framing; then
T=http-framing-conflict
TWICE='send:GET /index.html HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n'
at_backend $T/apache-takes-both-lengths 81 say 81 "$TWICE" eof:3
at_backend $T/haproxy-takes-both-lengths 82 say 82 "$TWICE" eof:3
at_backend $T/not-nginx-refuses-both-lengths 80 say 80 "$TWICE" eof:3
ANSWER='send:HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'
serve "$B" 7332 'recv:\r\n\r\n' "$ANSWER" close
serve "$B" 7333 'recv:\r\n\r\n' 'send:HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, this is longer than it says' sleep:0.2 close
serve "$B" 7334 'recv:\r\n\r\n' 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' sleep:0.2 'send:HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond' sleep:0.2 close
nginx_start "$P" "proxy_http_version 1.1; server { listen 80; location / { proxy_pass http://$S:7332; } }"
FRONT_PID=$LAST
wait_port "$P" 80
both $T/answer-behind-nginx "port 80 or port 7332" get "$C" "http://$FRONT/both"
at_backend $T/longer-than-its-length 7333 say 7333 "send:$HEAD\r\n" eof:3
at_backend $T/an-answer-nobody-asked-for 7334 say 7334 "send:$HEAD\r\n" eof:3
at_backend $T/not-pipelined 80 say 80 "send:$HEAD\r\n$HEAD\r\n" recv sleep:0.3 close
stop "$FRONT_PID"
fi

if wants invalid; then
T=http-invalid-response
serve "$B" 7335 'recv:\r\n\r\n' 'send:+READY 1.0 queue\r\n' sleep:0.2 close
serve "$B" 7336 'recv:\r\n\r\n' 'send:HTTP/1.1 200 OK\r\nX-\x00\x01: \x00\r\n\r\n' sleep:0.2 close
serve "$B" 7337 'recv:\r\n\r\n' 'send:HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n' sleep:0.1 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' close
cat >"$TMP/h2c.js" <<'X'
require('http2').createServer((request, response) => response.end('ok')).listen(7338, '0.0.0.0');
X
spawn "$B" node "$TMP/h2c.js"
wait_port "$B" 7338
nginx_start "$P" "proxy_http_version 1.1; server { listen 80; location / { proxy_pass http://$S:7335; } location /grpc { proxy_pass http://$S:7338; } }"
FRONT_PID=$LAST
haproxy_start "$P" "defaults
  mode http
  $HAPROXY_TIMES
frontend f
  bind :8090
  default_backend b
backend b
  server s $S:7335"
wait_port "$P" 80
wait_port "$P" 8090
at_backend $T/another-service 7335 get "$C" "http://$S:7335/orders"
both $T/behind-nginx "port 80 or port 7335" get "$C" "http://$FRONT/orders"
both $T/behind-haproxy "port 8090 or port 7335" get "$C" "http://$FRONT:8090/orders"
both $T/node-http2-behind-nginx "port 80 or port 7338" get "$C" "http://$FRONT/grpc"
at_backend $T/a-head-that-breaks 7336 get "$C" "http://$S:7336/orders"
at_backend $T/not-early-hints 7337 get "$C" "http://$S:7337/orders"
stop "$FRONT_PID"
fi

if wants latency; then
T=proxy-adds-latency
cat >"$TMP/slow.js" <<'X'
// answers after as many milliseconds as the path says; /body sends its head at once and its body over 2 s
require('http').createServer((request, response) => {
  request.resume().on('end', () => {
    if (request.url === '/body') {
      response.writeHead(200, {'Content-Length': 20});
      response.write('0123456789');
      return setTimeout(() => response.end('9876543210'), 2000);
    }
    setTimeout(() => response.end('ok\n'), parseInt(request.url.slice(1)) || 0);
  });
}).listen(7339, '0.0.0.0');
X
spawn "$B" node "$TMP/slow.js"
serve "$P" 7340 'recv:\r\n\r\n' sleep:1.6 'send:HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n' close
wait_port "$B" 7339
cat >"$TMP/delay.lua" <<'X'
core.register_action("delay", { "http-res" }, function(txn) core.msleep(1500) end)
X
haproxy_start "$P" "global
  lua-load $TMP/delay.lua
defaults
  mode http
  $HAPROXY_TIMES
  timeout queue 20s
frontend queue
  bind :8091
  default_backend one
backend one
  server s $S:7339 maxconn 1
frontend scripted
  bind :8092
  http-response lua.delay
  default_backend free
backend free
  server s $S:7339"
nginx_start "$P" "proxy_http_version 1.1; client_body_buffer_size 64k;
  server { listen 80; location / { proxy_pass http://$S:7339; }
    location /0 { auth_request /auth; proxy_pass http://$S:7339; }
    location = /auth { internal; proxy_pass http://127.0.0.1:7340; proxy_pass_request_body off; proxy_set_header Content-Length ''; } }"
FRONT_PID=$LAST
for port in 80 8091 8092; do wait_port "$P" $port; done
LEGS="tcp and not port 7340 and not host 127.0.0.1"
queue() { local n; for n in 1 2 3 4; do get "$C" "http://$FRONT:8091/80$n" & sleep 0.05; done; wait $(jobs -p | tail -4); }
both $T/haproxy-queue "$LEGS" queue
both $T/nginx-asks-for-leave-first "tcp and port not 22" get "$C" "http://$FRONT/0"
both $T/haproxy-script-keeps-the-answer "$LEGS" get "$C" "http://$FRONT:8092/5"
both $T/not-the-backend-is-slow "$LEGS" get "$C" "http://$FRONT/2100"
head -c 40000 /dev/zero >"$TMP/upload"
upload() { get "$C" -T "$TMP/upload" -m 9 --limit-rate 16k -H 'Expect:' "http://$FRONT/7"; }
both $T/not-a-slow-upload "$LEGS" upload
both $T/not-a-slow-body "$LEGS" get "$C" "http://$FRONT/body"
stop "$FRONT_PID"
fi

if wants limits; then
T=http-rate-limited
burst() { local n; for n in $(seq "$2"); do get "$C" "http://$S/$1"; sleep 0.08; done; }
at_backend $T/nginx-429-and-nobody-waits 80 burst api 8
sleep 2
at_backend $T/nginx-503-by-default 80 burst page 10
sleep 2
at_backend $T/once 80 burst api 3
at_backend $T/not-maintenance 80 burst closed 4
at_backend $T/not-a-login 80 burst login 4
fi

if wants upgrade; then
T=websocket-upgrade-failed
cat >"$TMP/ws.js" <<'X'
const crypto = require('crypto');
require('http').createServer((request, response) => { response.writeHead(400); response.end('WebSocket wanted\n'); })
  .on('upgrade', (request, socket) => {
    const key = crypto.createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${key}\r\n\r\n`);
    setTimeout(() => socket.end(Buffer.from([0x88, 0x02, 0x03, 0xe8])), 300);
  }).listen(7341, '0.0.0.0');
X
spawn "$B" node "$TMP/ws.js"
wait_port "$B" 7341
nginx_start "$P" "proxy_http_version 1.1;
  server { listen 80;
    location /chat { proxy_pass http://$S:7341; }
    location /live { proxy_pass http://$S:7341; proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection upgrade; }
    location /login { return 401; } }"
FRONT_PID=$LAST
wait_port "$P" 80
ws() { get "$C" -m 2 --http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' "$1"; }
both $T/nginx-drops-upgrade "port 80 or port 7341" ws "http://$FRONT/chat"
record "$C" eth0 "$R/$T/client-leg-alone.pcap" "port 80" ws "http://$FRONT/chat"
record "$C" eth0 "$R/$T/no-such-path.pcap" "port 80" ws "http://$FRONT/nowhere"
both $T/not-passed-on "port 80 or port 7341" ws "http://$FRONT/live"
record "$C" eth0 "$R/$T/not-a-login.pcap" "port 80" ws "http://$FRONT/login"
stop "$FRONT_PID"
fi

if wants expect; then
T=http-expect-100-stall
cat >"$TMP/old.py" <<'X'
"""HTTP/1.0 server: it knows no 100 Continue."""
import http.server


class Old(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok\n")


http.server.ThreadingHTTPServer(("", 7342), Old).serve_forever()
X
spawn "$B" python3 "$TMP/old.py"
spawn "$B" python3 "$LAB_DIR/faultyapp.py" 8000
serve "$B" 7343 'recv:\r\n\r\n' 'send:HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' sleep:0.1 close
wait_port "$B" 7342
wait_port "$B" 8000
post() { get "$C" -H 'Expect: 100-continue' -d "$(head -c 2000 /dev/zero | tr '\0' d)" "http://$S:$1/up"; }
at_backend $T/python-http-1.0 7342 post 7342
at_backend $T/refused-with-417 7343 post 7343
at_backend $T/not-given-leave 8000 post 8000
at_backend $T/not-answered-at-once 80 get "$C" -H 'Expect: 100-continue' -d abc "http://$S/missing"
fi

if wants loops; then
T=http-redirect-loop
certificates www.example.com
cat >"$TMP/app.js" <<'X'
// /…/old goes to /…/new and back; /same to itself; anything else wants https unless the proxy says that it is
require('http').createServer((request, response) => {
  const host = request.headers.host, to = (where) => { response.writeHead(302, {Location: where}); response.end(); };
  request.resume();
  if (request.url === '/same') return to('/same');
  if (request.url === '/old') return to(`http://${host}/new`);
  if (request.url === '/new') return to('/old');
  if (request.url === '/ways') return to('/ways/1');
  if (request.url === '/ways/1') return to('/ways/2');
  if (request.headers['x-forwarded-proto'] !== 'https' && !request.url.startsWith('/ways')) return to(`https://${host}${request.url}`);
  response.end('the shop\n');
}).listen(7351, '0.0.0.0');
X
spawn "$B" node "$TMP/app.js"
wait_port "$B" 7351
nginx_start "$P" "proxy_http_version 1.1; proxy_set_header Host \$host; proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
  ssl_certificate $TMP/www.example.com.crt; ssl_certificate_key $TMP/www.example.com.key;
  server { listen 443 ssl; location / { proxy_pass http://$S:7351; } location /told { proxy_set_header Host \$host; proxy_set_header X-Forwarded-Proto https; proxy_pass http://$S:7351; } }
  server { listen 80; location / { return 301 https://\$host\$request_uri; } }"
FRONT_PID=$LAST
wait_port "$P" 443
follow() { get "$C" -L --max-redirs "${2:-12}" --resolve "www.example.com:443:$FRONT" --resolve "www.example.com:80:$FRONT" "$1"; }
both $T/https-told-to-who-has-it "port 443 or port 7351" follow https://www.example.com/shop
record "$B" eth0 "$R/$T/backend-leg-alone.pcap" "port 7351" follow https://www.example.com/shop
at_backend $T/to-itself 7351 get "$C" -L --max-redirs 9 "http://$S:7351/same"
at_backend $T/there-and-back 7351 get "$C" -L --max-redirs 9 "http://$S:7351/old"
both $T/not-https-and-then-an-answer "port 80 or port 443 or port 7351" follow http://www.example.com/told
at_backend $T/not-a-way-with-three-turns 7351 get "$C" -L "http://$S:7351/ways"
checks() { local n; for n in 1 2 3 4 5 6; do get "$C" -A checker "http://$S:7351/same"; sleep 0.8; done; }
at_backend $T/not-a-check-that-does-not-follow 7351 checks
stop "$FRONT_PID"
fi

if wants retries; then
T=proxy-retries-hide-failure
ip -n "$B" addr add 10.224.26.9/24 dev eth0
serve "$B" 7353 'recv:\r\n\r\n' sleep:0.05 close
cat >"$TMP/shop.js" <<'X'
require('http').createServer((request, response) => request.resume().on('end', () => response.end('ok\n'))).listen(7352, '0.0.0.0');
X
spawn "$B" node "$TMP/shop.js"
wait_port "$B" 7352
on "$B" iptables -A INPUT -p tcp -d 10.224.26.9 --dport 7352 -j DROP
nginx_start "$P" "proxy_http_version 1.1; proxy_connect_timeout 1s; proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
  upstream refused { server $S:7359 max_fails=0; server $S:7352 backup; }
  upstream silent { server 10.224.26.9:7352 max_fails=0; server $S:7352 backup; }
  upstream closes { server $S:7353 max_fails=0; server $S:7352 backup; }
  server { listen 80; location /refused { proxy_pass http://refused; } location /silent { proxy_pass http://silent; }
    location /closes { proxy_pass http://closes; proxy_next_upstream error timeout non_idempotent; }
    location /given-up { proxy_pass http://closes; proxy_next_upstream off; } location / { proxy_pass http://$S:7352; } }"
FRONT_PID=$LAST
wait_port "$P" 80
LEGS="port 80 or port 7352 or port 7353 or port 7359"
both $T/refused "$LEGS" get "$C" "http://$FRONT/refused"
both $T/never-answered "$LEGS" get "$C" "http://$FRONT/silent"
both $T/a-post-sent-twice "$LEGS" get "$C" -d order=1 "http://$FRONT/closes"
both $T/not-hidden "$LEGS" get "$C" "http://$FRONT/given-up"
both $T/not-needed "$LEGS" get "$C" "http://$FRONT/fine"
stop "$FRONT_PID"
fi

if wants names; then
T=http-wrong-vhost
nginx_start "$B" "server { listen 10.224.26.3:7361 default_server; return 421; } server { listen 10.224.26.3:7361; server_name www.example.com; }
  server { listen 10.224.26.4:7361 default_server; return 404; } server { listen 10.224.26.4:7361; server_name other.example.com; }"
wait_port "$B" 7361
ask() { get "$C" --resolve "$1:7361:$2" "http://$1:7361/$3"; }
right() { ask www.example.com 10.224.26.3 index.html; ask www.example.com 10.224.26.3 large.txt; }
wrong() { ask www.example.com 10.224.26.4 index.html; ask www.example.com 10.224.26.4 large.txt; right; }
at_backend $T/421 7361 ask shop.example.com 10.224.26.3 index.html
at_backend $T/an-address-that-has-other-sites 7361 wrong
missing() { ask other.example.com 10.224.26.4 index.html; ask other.example.com 10.224.26.4 missing; ask www.example.com 10.224.26.3 missing; right; }
at_backend $T/not-a-page-that-is-missing 7361 missing
fi
