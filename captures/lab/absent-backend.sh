#!/bin/bash
# Proxies that try a backend nobody is at before they ask the one that answers: users wait, and no backend is slow.
# Real HAProxy and nginx; both legs as the proxy sees them; about 40 s.     absent-backend.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need nginx haproxy curl iptables
OUT=${1:-$CAPTURES/rules}
S=10.224.26.2        # answers
SILENT=10.224.26.3   # its firewall swallows what comes to port 80
NOBODY=10.224.26.77  # no host has this address
FRONT=203.0.113.1
lab_begin
nginx_start "$B" "server { listen $S:80; location / { return 200 ok; } }"
serve "$B" 7340 recv sleep:0.8 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' close
on "$B" iptables -A INPUT -d $SILENT -p tcp --dport 80 -j DROP

pair() { echo "frontend $1
  bind :$2
  default_backend $1
backend $1
  balance roundrobin
  option redispatch
  server a $S:80
  server b $3:80"; }
haproxy_start "$P" "defaults
  mode http
  $HAPROXY_TIMES
  timeout server 4s
  timeout connect 2s
  retries 1
$(pair silent 8001 $SILENT)
$(pair nobody 8002 $NOBODY)"
upstream() { echo "upstream $1 { server $S:80; server $2:80 fail_timeout=0; } server { listen $3; location / { proxy_pass http://$1; } }"; }
nginx_start "$P" "proxy_connect_timeout 2s; proxy_http_version 1.1; proxy_set_header Connection '';
  $(upstream silent $SILENT 81) $(upstream nobody $NOBODY 82)"
for port in 8001 8002 81 82; do wait_port "$P" $port; done

seen() { record "$P" any "$OUT/$2.pcap" "(host 203.0.113.7 and port $1) or net 10.224.26.0/24" "${@:3}"; }
four() { for n in 1 2 3 4; do get "$C" "http://$FRONT:$1/x$n"; sleep 0.1; done; }
T=proxy-adds-latency
seen 81 $T/nginx-waits-for-a-silent-backend four 81
seen 82 $T/nginx-waits-for-an-absent-backend four 82
seen 8002 $T/haproxy-waits-for-an-absent-backend four 8002
seen 8001 connect-timeout/a-proxy-waits-and-asks-another four 8001
# The proxy checks a backend that is not there all the while; what the requests wait for is the other one's only connection.
haproxy_start "$P" "defaults
  mode http
  $HAPROXY_TIMES
  timeout server 4s
  timeout queue 8s
frontend queue
  bind :8003
  default_backend queue
backend queue
  balance roundrobin
  server a $S:7340 maxconn 1
  server b $NOBODY:80 check inter 1s fastinter 1s downinter 1s"
wait_port "$P" 8003
sleep 4
queue() { for n in 1 2 3; do get "$C" "http://$FRONT:8003/x$n" & PIDS+=($!); sleep 0.05; done; sleep 4.5; }
seen 8003 $T/haproxy-queue-beside-an-absent-backend queue

# A backend that was there and has gone, and a client that goes while it is served.
nginx_start "$B" "server { listen 10.224.26.4:80; location / { return 200 ok; } }"
nginx_start "$P" "proxy_http_version 1.1; proxy_read_timeout 8s; proxy_connect_timeout 8s;
  server { listen 83; location / { proxy_pass http://10.224.26.4; } location /large.txt { limit_rate 4k; } }"
wait_port "$P" 83
served() { for n in 1 2; do get "$C" "http://$FRONT:83/$n"; done; }
SNAPLEN=96 record "$P" any "$OUT/http-gateway-error/not-cut-to-96-octets.pcap" "host 10.224.26.4 or port 83" served
gone() {
    get "$C" "http://$FRONT:83/1"
    get "$C" "http://$FRONT:83/2"
    ip -n "$B" addr del 10.224.26.4/24 dev eth0
    ip -n "$P" neigh flush dev eth1
    for n in 3 4 5; do get "$C" "http://$FRONT:83/$n"; done
}
record "$P" any "$OUT/neighbor-unresolved/a-backend-that-has-gone.pcap" "arp or host 10.224.26.4 or port 83" gone
cut() { for n in 6 7; do get "$C" "http://$FRONT:83/$n"; done; }
SNAPLEN=96 record "$P" any "$OUT/http-gateway-error/cut-to-96-octets.pcap" "arp or host 10.224.26.4 or port 83" cut
left() {
    get "$C" --interface 203.0.113.9 "http://$FRONT:83/large.txt" & PIDS+=($!)
    sleep 2
    ip -n "$C" addr del 203.0.113.9/24 dev eth0
    ip -n "$P" neigh flush dev eth0
    sleep 14
}
record "$P" eth0 "$OUT/neighbor-unresolved/not-a-client-that-left.pcap" "arp or port 83" left
