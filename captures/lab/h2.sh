#!/bin/bash
# Family K, HTTP/2 in the clear and gRPC: nginx, HAProxy, Apache, nghttpd, Go, Node, and a gRPC server in Python. About 2 minutes.
# h2.sh [OUTPUT [group…]]      groups: preface goaway reset grpc healthy
. "$(dirname "$0")/lib.sh"
lab_need nginx haproxy apache2 curl nghttp nghttpd node go
PY=/usr/bin/python3
$PY -c 'import grpc' 2>/dev/null || { echo "SKIPPED $0: python3-grpcio is not installed"; exit 0; }
OUT=${1:-$CAPTURES}
shift
GROUPS_WANTED=${*:-preface goaway reset grpc healthy}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
R=$OUT/rules
H=$OUT/healthy
S=10.224.26.2
lab_begin
go_build
serve "$B" 7001 recv 'send:HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n' zeros:20000 sleep:0.2 close
serve "$B" 7002 recv sleep:40
nginx_start "$B" "http2_max_concurrent_streams 2; keepalive_requests 4;
  server { listen 80; }
  server { listen 81 http2; location /cut { proxy_pass http://127.0.0.1:7001/; } location /slow { proxy_pass http://127.0.0.1:7002/; } }
  server { listen 84 http2; keepalive_requests 1000; location / { grpc_pass grpc://127.0.0.1:9; } }
  server { listen 85 http2; keepalive_requests 1000; location / { grpc_pass grpc://127.0.0.1:50051; } }"
apache_start "$B" "Listen 82"
haproxy_start "$B" "defaults
  mode http
  $HAPROXY_TIMES
frontend plain
  bind :83
  http-request return status 200 content-type text/plain string hello"
NGHTTP=$TMP/nghttp
mkdir "$NGHTTP"
echo hello >"$NGHTTP/index.html"
head -c 300000 /dev/zero >"$NGHTTP/large"
spawn "$B" nghttpd --no-tls -d "$NGHTTP" 8000
spawn "$B" "$TMP/goserver" -http :8001
spawn "$B" node -e 'require("http").createServer((q, r) => r.end("hello\n")).listen(8002)'
spawn "$B" $PY "$LAB_DIR/grpcpeer.py" serve 50051
spawn "$B" $PY "$LAB_DIR/grpcpeer.py" serve 50052 grpc.max_connection_age_ms=1500 grpc.max_connection_age_grace_ms=1000
for port in 80 81 82 83 84 85 8000 8001 8002 50051 50052; do wait_port "$B" $port; done
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
at_backend $T/not-accepted 83 prior "http://$S:83/"
http1() { get "$C" "http://$S:82/missing"; }
at_backend $T/not-http1 82 http1
fi
if wants goaway; then
T=$R/h2-goaway-error
pings() { call 50051 grpc.keepalive_time_ms=1000 grpc.http2.max_pings_without_data=0 grpc.keepalive_permit_without_calls=1 \
    grpc.http2.min_time_between_pings_ms=500 grpc.http2.min_sent_ping_interval_without_data_ms=500 Add sleep:6 Add; }
at_backend $T/too-many-pings 50051 pings
idle_data() { raw 8000 preface recv ack get:1:/large+get:3:/+frame:000001000000000009ff eof:3; }
at_backend $T/data-on-a-stream-that-is-none 8000 idle_data
bad_index() { raw 83 preface recv ack get:1:/ recv frame:0000010105000000 frame:03ff eof:3; }
at_backend $T/header-index-of-nothing 83 bad_index
four_on_one() { on "$C" h2load -n 10 -c 1 -m 1 "http://$S:81/" </dev/null >>"$TMP/nghttp.log" 2>&1; }
at_backend $T/not-graceful 81 four_on_one
fi
if wants reset; then
T=$R/h2-stream-reset
refused() { raw 81 preface+get:1:/slow+get:3:/slow+get:5:/slow+get:7:/slow recv ack sleep:0.5 rst:1:8+rst:3:8 close; }
at_backend $T/refused-above-the-limit 81 refused
at_backend $T/answer-cut-by-the-upstream 81 prior "http://$S:81/cut"
gives_up() { call 50051 Add Slow:2 Add; }
at_backend $T/call-given-up-at-its-deadline 50051 gives_up
flood() { raw 8000 preface recv ack get:1:/ flood:300 eof:1; }
at_backend $T/flood-of-resets 8000 flood
cancelled() { call 50051 Add watch:1.2 Add; }
at_backend $T/not-a-watch-that-was-cancelled 50051 cancelled
download() { raw 8000 preface recv ack get:1:/large recv rst:1:8 get:3:/ recv close; }
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
if wants healthy; then
h2c() {
    prior "http://$S:81/" "http://$S:81/large.txt" "http://$S:81/missing"
    prior "http://$S:83/"
    prior "http://$S:8000/" "http://$S:8000/large"
    on "$C" nghttp -n "http://$S:8000/" "http://$S:8000/large" </dev/null >>"$TMP/nghttp.log" 2>&1
    on "$C" h2load -n 60 -c 2 -m 4 "http://$S:8000/" </dev/null >>"$TMP/nghttp.log" 2>&1
}
record "$B" eth0 "$H/87-http2-in-the-clear.pcap" "tcp port 81 or port 83 or port 8000" h2c
upgrade() { get "$C" --http2 "http://$S:8000/" "http://$S:8000/large"; on "$C" nghttp -nu "http://$S:8000/" </dev/null >>"$TMP/nghttp.log" 2>&1; }
at_backend "$H/88-http2-upgraded" 8000 upgrade
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
