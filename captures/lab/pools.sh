#!/bin/bash
# Proxies and an application whose few connections to a backend are all busy: requests wait inside them for one to be free.
# Real HAProxy, Apache, nginx and Go; both legs as the proxy sees them; about 50 s.     pools.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need haproxy apache2 nginx go curl ab
OUT=${1:-$CAPTURES/rules}
S=10.224.26.2
FRONT=203.0.113.1
lab_begin
(cd "$LAB_DIR/gopool" && GO111MODULE=off go build -p 1 -o "$TMP/gopool" main.go) || exit 1
spawn "$B" "$TMP/gopool" -serve $S:8080
wait_port "$B" 8080

haproxy_start "$P" "defaults
  mode http
  $HAPROXY_TIMES
  timeout queue 20s
frontend few
  bind :8091
  default_backend few
backend few
  server s $S:8080 maxconn 3
frontend enough
  bind :8092
  default_backend enough
backend enough
  server s $S:8080 maxconn 40"
apache_start "$P" "Listen 8093
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
ProxyPass / http://$S:8080/ max=2"
nginx_start "$P" "limit_req_zone \$binary_remote_addr zone=slow:1m rate=3r/s; proxy_http_version 1.1; proxy_set_header Connection '';
  upstream s { server $S:8080; keepalive 8; }
  server { listen 8094; location / { limit_req zone=slow burst=20; proxy_pass http://s; } }"
spawn "$P" "$TMP/gopool" -proxy $FRONT:8095 -to $S:8080 -most 3
spawn "$P" "$TMP/gopool" -page 10.224.26.1:8096 -to $S:8080 -most 3
for port in 8091 8092 8093 8094 8095 8096; do wait_port "$P" $port; done

# what the run before kept open is closed before the next begins
seen() { sleep 1; record "$P" any "$OUT/$2.pcap" "(host 203.0.113.7 and port $1) or port 8080" "${@:3}"; }
# N different paths at once, a connection each
at_once() { on "$C" curl -sZ --parallel-immediate --parallel-max 60 -m 15 -o /dev/null "http://${4:-$FRONT}:$1$3[1-$2]" >>"$TMP/curl.log" 2>&1; }
T=pool-saturated
seen 8091 $T/haproxy-maxconn at_once 8091 24 /300/
seen 8093 $T/apache-max at_once 8093 8 /600/
seen 8095 $T/go-max-conns-per-host at_once 8095 24 /300/
seen 8096 $T/an-application at_once 8096 24 /page/ 10.224.26.1
seen 8092 $T/not-all-are-with-the-backend at_once 8092 24 /1300/
seen 8094 $T/not-a-rate-limit at_once 8094 10 /200/
# as many clients as connections, each of which asks again when it has its answer
seen 8091 $T/not-as-many-clients on "$C" ab -q -c 3 -n 12 "http://$FRONT:8091/1200/x"
# what the host is asked has nothing to do with what it asks all the while
spawn "$P" "$TMP/gopool" -serve 10.224.26.1:8097
wait_port "$P" 8097
beside() {
    spawn "$P" ab -q -c 1 -n 40 "http://$S:8080/90/poll"
    at_once 8097 6 /1500/ 10.224.26.1
}
seen 8097 $T/not-what-it-was-asked-for beside
seen 8092 slow-response/all-ask-the-same-at-once at_once 8092 24 '/1300/x#'
seen 8091 $T/all-ask-the-same at_once 8091 24 '/300/x#'
