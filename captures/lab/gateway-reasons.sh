#!/bin/bash
# Errors that a proxy answers although its backend did nothing wrong: a full queue, a certificate that the proxy does not accept, a name
# that it cannot resolve. Real HAProxy and nginx; both legs as the proxy sees them; about 30 s.     gateway-reasons.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need nginx haproxy curl
OUT=${1:-$CAPTURES/rules}
S=10.224.26.2
FRONT=203.0.113.1
lab_begin
CERT_DAYS=800 certificates backend.example.com
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=another CA" \
    -keyout "$TMP/another.key" -out "$TMP/another-ca.pem" 2>/dev/null
chmod 644 "$TMP/another-ca.pem"
nginx_start "$B" "ssl_certificate $TMP/backend.example.com.crt; ssl_certificate_key $TMP/backend.example.com.key;
  server { listen $S:443 ssl; listen $S:80; location / { return 200 ok; } }"
spawn "$B" python3 "$LAB_DIR/dns.py" 53 1.4 $S
serve "$B" 7340 recv sleep:2.5 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' close
haproxy_start "$P" "defaults
  mode http
  $HAPROXY_TIMES
  timeout server 4s
  timeout connect 2s
  timeout queue 1s
frontend queue
  bind :8003
  default_backend queue
backend queue
  server a $S:7340 maxconn 1"
# Sessions off for the second: nginx shares those of one address, and takes over what the first made of the certificate.
trusts() { echo "server { listen $1; location / { proxy_pass https://$S:443; proxy_ssl_verify on; proxy_ssl_trusted_certificate $2; $3 } }"; }
resolves() { echo "location /$1 { set \$name $1.example.com; proxy_pass http://\$name:80; }"; }
nginx_start "$P" "proxy_ssl_name backend.example.com; proxy_ssl_server_name on;
  resolver $S ipv6=off; resolver_timeout 2s;
  server { listen 83; $(resolves silent) $(resolves servfail) $(resolves late) }
  $(trusts 81 "$TMP/another-ca.pem") $(trusts 82 "$TMP/ca.pem" 'proxy_ssl_session_reuse off;')"
for port in 8003 81 82 83; do wait_port "$P" $port; done

seen() { record "$P" any "$OUT/$2.pcap" "(host 203.0.113.7 and portrange 81-8003) or net 10.224.26.0/24" "${@:3}"; }
T=http-gateway-error
queue() { for n in 1 2 3; do get "$C" "http://$FRONT:8003/x$n" & PIDS+=($!); sleep 0.05; done; sleep 4; }
three() { for n in 1 2 3; do get "$C" "http://$FRONT:$1/x$n"; sleep 0.1; done; }
seen 8003 $T/haproxy-queue-timeout queue
seen 81 $T/nginx-refuses-the-certificate three 81
seen 82 $T/not-a-certificate-it-accepts three 82
names() { for n in 1 2; do get "$C" "http://$FRONT:83/$1$n"; sleep 0.1; done; }
seen 83 $T/nginx-gets-no-answer-of-the-dns names silent
seen 83 dns-servfail/a-proxy-cannot-resolve names servfail
seen 83 dns-slow/a-proxy-waits-for-an-address get "$C" "http://$FRONT:83/late"
