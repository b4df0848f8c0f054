#!/bin/bash
# Family K, HTTP/2 in the clear and gRPC: nginx, HAProxy, Apache, nghttpd, Go, Node, and a gRPC server in Python. About 2 minutes.
# h2.sh [OUTPUT [group…]]      groups: preface goaway windows reset grpc legs healthy
. "$(dirname "$0")/lib.sh"
lab_need nginx haproxy apache2 curl nghttp nghttpd node go
PY=/usr/bin/python3
$PY -c 'import grpc' 2>/dev/null || { echo "SKIPPED $0: python3-grpcio is not installed"; exit 0; }
OUT=${1:-$CAPTURES}
shift
GROUPS_WANTED=${*:-preface goaway windows reset grpc legs healthy}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
R=$OUT/rules
H=$OUT/healthy
S=10.224.26.2
lab_begin
go_build
NGHTTP=$TMP/nghttp
mkdir "$NGHTTP"
echo hello >"$NGHTTP/index.html"
head -c 300000 /dev/zero >"$NGHTTP/large"
serve "$B" 7001 recv 'send:HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n' zeros:20000 sleep:0.2 close
serve "$B" 7002 recv sleep:40
nginx_start "$B" "http2_max_concurrent_streams 2; keepalive_requests 4;
  server { listen 80; }
  server { listen 81 http2; location /cut { proxy_pass http://127.0.0.1:7001/; } location /slow { proxy_pass http://127.0.0.1:7002/; } }
  server { listen 86 http2; location / { proxy_pass http://127.0.0.1:8003; } }
  server { listen 87 http2; http2_max_concurrent_streams 128; }
  server { listen 84 http2; keepalive_requests 1000; location / { grpc_pass grpc://127.0.0.1:9; } }
  server { listen 85 http2; keepalive_requests 1000; location / { grpc_pass grpc://127.0.0.1:50051; } }"
apache_start "$B" "Listen 82
Listen 88
LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so
<VirtualHost *:88>
Protocols h2c http/1.1
DocumentRoot $TMP/nghttp
</VirtualHost>"
haproxy_start "$B" "defaults
  mode http
  $HAPROXY_TIMES
frontend plain
  bind :83
  http-request return status 200 content-type text/plain string hello"
spawn "$B" nghttpd --no-tls -d "$NGHTTP" 8000
spawn "$B" "$TMP/goserver" -http :8001
spawn "$B" node -e 'require("http").createServer((q, r) => r.end("hello\n")).listen(8002)'
spawn "$B" python3 "$LAB_DIR/faultyapp.py" 8003
spawn "$B" $PY "$LAB_DIR/grpcpeer.py" serve 50051
spawn "$B" $PY "$LAB_DIR/grpcpeer.py" serve 50052 grpc.max_connection_age_ms=1500 grpc.max_connection_age_grace_ms=1000
for port in 80 81 82 83 84 85 86 87 88 8000 8003 8001 8002 50051 50052; do wait_port "$B" $port; done
at_backend() { record "$B" eth0 "$1.pcap" "tcp port $2" "${@:3}"; }
prior() { get "$C" --http2-prior-knowledge "$@"; }
raw() { on "$C" python3 "$LAB_DIR/h2talk.py" $S "$@" </dev/null >>"$TMP/h2talk.log" 2>&1; }
call() { on "$C" $PY "$LAB_DIR/grpcpeer.py" call "$S:$1" "${@:2}" </dev/null >>"$TMP/grpc.log" 2>&1; }
twice() { "$@"; sleep 0.1; "$@"; }

if wants preface; then
T=$R/h2-preface-failed
at_backend $T/nginx-400 80 twice prior "http://$S:80/"
at_backend $T/apache-400 82 prior "http://$S:82/"
at_backend $T/go-400 8001 prior "http://$S:8001/"
at_backend $T/node-400 8002 prior "http://$S:8002/"
grpc_to_http1() { call 8001 Add:3; }
at_backend $T/grpc-to-go-http1 8001 grpc_to_http1
silent() { prior -m 12 "http://$S:7002/"; }
at_backend $T/silence 7002 silent
no_settings() { raw 8000 "magic+frame:0000080600000000000102030405060708" eof:3; }
at_backend $T/goaway-at-the-preface 8000 no_settings
no_ack() { raw 8000 preface recv eof:14; }
at_backend $T/settings-never-confirmed 8000 no_ack
at_backend $T/http1-to-nghttpd 8000 get "$C" --http1.1 "http://$S:8000/"
at_backend $T/not-accepted 83 prior "http://$S:83/"
http1() { get "$C" "http://$S:82/missing"; }
at_backend $T/not-http1 82 http1
fi
if wants goaway; then
T=$R/h2-goaway-error
PING=frame:0000080600000000000102030405060708
pings() { raw 50051 preface recv ack $PING sleep:0.3 $PING sleep:0.3 $PING sleep:0.3 $PING sleep:0.3 $PING eof:3; }
at_backend $T/too-many-pings 50051 pings
idle_data() { raw 8000 preface recv ack get:1:/large+get:3:/+frame:000001000000000009ff eof:3; }
at_backend $T/data-on-a-stream-that-is-none 8000 idle_data
bad_index() { raw 83 preface recv ack get:1:/ recv frame:0000010105000000 frame:03ff eof:3; }
at_backend $T/header-index-of-nothing 83 bad_index
four_on_one() { on "$C" h2load -n 10 -c 1 -m 1 "http://$S:81/" </dev/null >>"$TMP/nghttp.log" 2>&1; }
at_backend $T/not-graceful 81 four_on_one
T=$R/h2-goaway-race
race() { on "$C" h2load -n 20 -c 1 -m 8 "http://$S:87/" </dev/null >>"$TMP/nghttp.log" 2>&1; }
at_backend $T/nginx-after-four-requests 87 race
one_by_one() { on "$C" h2load -n 10 -c 1 -m 1 "http://$S:87/" </dev/null >>"$TMP/nghttp.log" 2>&1; }
at_backend $T/not-one-by-one 87 one_by_one
leaves() { call 50052 Add sleep:1 Add sleep:1 Add sleep:1 Add; }
at_backend $T/not-announced-in-two-steps 50052 leaves
fi
if wants windows; then
T=$R/h2-flow-control-stalled
unread() { raw 8000 preface recv ack get:1:/large sleep:12 close; }
at_backend $T/client-does-not-read 8000 unread
# 65,535 octets more for the connection and the stream after 4 s, and again
MORE=frame:0000040800000000000000ffff+frame:0000040800000000010000ffff
slowly() { raw 8000 preface recv ack get:1:/large sleep:4 $MORE sleep:4 $MORE sleep:1 $MORE sleep:0.5 $MORE+$MORE eof:2; }
at_backend $T/not-a-slow-reader 8000 slowly
fi
if wants reset; then
T=$R/h2-stream-reset
refused() { raw 81 preface+get:1:/slow+get:3:/slow+get:5:/slow+get:7:/slow recv ack sleep:0.5 rst:1:8+rst:3:8 close; }
at_backend $T/refused-above-the-limit 81 refused
at_backend $T/answer-cut-by-the-upstream 81 prior "http://$S:81/cut"
# SETTINGS and a confirmation, then silence: a server of gRPC would keep to the deadline itself
serve "$B" 7003 'send:\x00\x00\x00\x04\x00\x00\x00\x00\x00' recv 'send:\x00\x00\x00\x04\x01\x00\x00\x00\x00' recv sleep:6
gives_up() { call 7003 Add:2 Add:2; }
at_backend $T/call-given-up-at-its-deadline 7003 gives_up
flood() { raw 8000 preface recv ack get:1:/ recv sleep:0.2 flood:300 sleep:0.3 eof:1; }
at_backend $T/flood-of-resets 8000 flood
cancelled() { call 50051 Add watch:1.2 Add; }
at_backend $T/not-a-watch-that-was-cancelled 50051 cancelled
download() { raw 8000 preface recv ack get:1:/large recv rst:1:8 get:3:/ recv recv sleep:0.3 close; }
at_backend $T/not-a-download-that-was-cancelled 8000 download
fi
if wants grpc; then
T=$R/grpc-error-status
at_backend $T/unavailable 50051 call 50051 Add Down Add
at_backend $T/six-of-ten 50051 call 50051 Add Down Down Add Down Down Add Down Down Add
at_backend $T/resource-exhausted-and-crash 50051 call 50051 Add Busy Crash Add
at_backend $T/no-such-method 50051 call 50051 Add Subtract
at_backend $T/nginx-502-to-a-call 84 call 84 Add Add
at_backend $T/through-nginx 85 call 85 Add Down Add
at_backend $T/not-the-applications-own 50051 call 50051 Add NotFound Add Deny Add
at_backend $T/not-a-health-check-nobody-implements 50051 call 50051 /grpc.health.v1.Health/Check Add
fi
if wants legs; then # the client's leg in HTTP/2, the backend's in HTTP/1
both() { record "$B" any "$R/$1.pcap" "$2" "${@:3}"; }
crash() { prior "http://$S:86/crash"; prior "http://$S:86/ok"; }
both http-server-error/http2-behind-nginx "port 86 or port 8003" crash
hangs() { prior -m 13 "http://$S:81/slow"; }
both upstream-hang/http2-behind-nginx "port 81 or port 7002" hangs
fi
if wants healthy; then
h2c() {
    prior "http://$S:81/" "http://$S:81/large.txt" "http://$S:81/missing"
    prior "http://$S:83/"
    prior "http://$S:8000/" "http://$S:8000/large"
    on "$C" nghttp -n "http://$S:8000/" "http://$S:8000/large" </dev/null >>"$TMP/nghttp.log" 2>&1
    on "$C" h2load -n 60 -c 2 -m 4 "http://$S:8000/" </dev/null >>"$TMP/nghttp.log" 2>&1
}
record "$B" eth0 "$H/87-http2-in-the-clear.pcap" "tcp port 81 or port 83 or port 8000" h2c
upgrade() { get "$C" --http2 "http://$S:88/"; on "$C" nghttp -nu "http://$S:88/large" </dev/null >>"$TMP/nghttp.log" 2>&1; }
at_backend "$H/88-http2-upgraded" 88 upgrade
grpc_calls() {
    call 50051 Add Add watch:1.2 Add sleep:0.3 Add
    call 50051 grpc.keepalive_time_ms=2000 watch:3
    call 85 Add Add
    call 50052 Add sleep:1 Add sleep:1 Add sleep:1 Add
}
record "$B" eth0 "$H/89-grpc.pcap" "tcp port 50051 or port 50052 or port 85" grpc_calls
middle() { # the capture begins behind the first calls
    call 50051 Add NotFound sleep:2 NotFound Add watch:0.8 Add &
    sleep 1.4
    at_backend "$H/90-http2-starts-mid-stream" 50051 sleep 2.5
    wait $!
}
middle
fi
