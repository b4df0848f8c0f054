#!/bin/bash
# PROXY headers in the wrong place, as one meets them later than the first time: one of three backends behind HAProxy, seen by its
# clients only; two hops that each add a header; Redis, which waits for the end of a line behind a version 2 header.
# Real HAProxy, nginx and Redis; about 30 s.     header-more.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need haproxy nginx redis-server redis-cli curl
OUT=${1:-$CAPTURES/rules}
NAME=www.example.com
PUBLIC=35.229.69.78
lab_begin
CERT_DAYS=4000 certificates $NAME
TLS="ssl_certificate $TMP/$NAME.crt; ssl_certificate_key $TMP/$NAME.key;"
nginx_start "$B" "$TLS
  server { listen 80; }
  server { listen 443 ssl; }
  server { listen 8080 proxy_protocol; }
  server { listen 8443 ssl proxy_protocol; }"
spawn "$B" redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save "" --dir "$TMP"
for port in 80 443 8080 8443 6379; do wait_port "$B" $port; done
haproxy_start "$P" "defaults
  mode tcp
  $HAPROXY_TIMES
  timeout check 1s
frontend several
  bind $PUBLIC:443
  default_backend several
backend several
  balance roundrobin
  server s1 10.224.26.2:8443 send-proxy-v2 check port 80 inter 500
  server s2 10.224.26.3:443 send-proxy-v2 check port 80 inter 500
  server s3 10.224.26.4:8443 send-proxy-v2 check port 80 inter 500
listen redis
  bind $PUBLIC:6379
  server s1 10.224.26.2:6379 send-proxy-v2
listen plain
  bind $PUBLIC:6380
  server s1 10.224.26.2:6379
listen twice
  bind $PUBLIC:80
  server s1 10.224.26.1:9000 send-proxy-v2
listen between
  bind 10.224.26.1:9000
  server s2 10.224.26.2:8080 send-proxy-v2"
wait_port "$P" 443
sleep 1
tls() { for n in 7 8 9 7 8 9 7 8 9; do get "$C" -m 4 --interface 203.0.113.$n --resolve "$NAME:443:$PUBLIC" "https://$NAME/"; done; }
asks() { for n in 1 2 3; do on "$C" timeout 3 redis-cli -h $PUBLIC -p "$@" </dev/null >>"$TMP/redis.log" 2>&1; done; }
web() { for n in 7 8 9; do get "$C" -m 4 --interface 203.0.113.$n "http://$PUBLIC/"; done; }
record "$P" eth0 "$OUT/tls-to-http-port/one-of-three-backends.pcap" "" tls
T=proxy-header-to-other-service
record "$P" any "$OUT/$T/redis-waits-for-a-line.pcap" "port 6379" asks 6379 GET a
record "$P" any "$OUT/$T/not-redis-waits-for-an-entry.pcap" "port 6379 or port 6380" asks 6380 BLPOP a 0
record "$P" any "$OUT/proxy-header-duplicated/two-hops-add-one-each.pcap" "port 80 or port 9000 or port 8080" web
