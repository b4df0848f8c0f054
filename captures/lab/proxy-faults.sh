#!/bin/bash
# Families J and L: what proxies answer for each fault of their backends, both legs and the client leg alone.
# Real HAProxy, nginx and Apache as proxies; about 2 minutes.     proxy-faults.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need nginx apache2 haproxy curl iptables
OUT=${1:-$CAPTURES/rules}
R=$OUT
S=10.224.26.2
FRONT=203.0.113.1
lab_begin
certificates www.example.com
OK='send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
nginx_start "$B" "ssl_certificate $TMP/www.example.com.crt; ssl_certificate_key $TMP/www.example.com.key;
  server { listen 80; } server { listen 443 ssl; }"
serve "$B" 7301 recv sleep:20                       # never answers
serve "$B" 7302 recv sleep:0.03 close               # reads the request and closes
serve "$B" 7303 recv sleep:0.03 rst                 # reads the request and resets
serve "$B" 7304 recv "$OK" recv sleep:0.03 close    # answers once, then closes on the second request
serve "$B" 7305 recv "$OK" recv sleep:0.03 rst      # answers once, then resets
serve "$B" 7306 recv 'send:HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nsorry' close
# closes an idle connection after 2 s; what comes in that moment draws a RST
serve "$B" 7307 recv "$OK" sleep:2 close
on "$B" iptables -A INPUT -p tcp --dport 7309 -j DROP

location() { echo "location /$1 { proxy_pass $2; $3 }"; }
nginx_start "$P" "proxy_connect_timeout 2s; proxy_read_timeout 2s; proxy_http_version 1.1; proxy_set_header Connection '';
  proxy_set_header Host \$host; proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for; proxy_next_upstream off;
  upstream once { server $S:7304; keepalive 4; }
  upstream resets { server $S:7305; keepalive 4; }
  upstream race { server $S:7307; keepalive 4; }
  server { listen 80;
    $(location refused http://$S:7308)
    $(location timeout http://$S:7309)
    $(location silent http://$S:7301)
    $(location closes http://$S:7302)
    $(location resets http://$S:7303)
    $(location twice http://once)
    $(location again http://resets)
    $(location race http://race)
    $(location sorry http://$S:7306)
    $(location tls http://$S:443)
    $(location plain https://$S:80)
    $(location ok http://$S:80/index.html)
  }"
NGINX_P=$NGINX_DIR
haproxy_start "$P" "defaults
  mode http
  $HAPROXY_TIMES
  timeout server 2s
  timeout connect 2s
  retries 0
frontend refused
  bind :8001
  default_backend refused
backend refused
  server s $S:7308
frontend silent
  bind :8002
  default_backend silent
backend silent
  server s $S:7301
frontend closes
  bind :8003
  default_backend closes
backend closes
  server s $S:7302
frontend tcp
  mode tcp
  bind :8005
  default_backend tcp
backend tcp
  mode tcp
  server s $S:7302
frontend wrong
  bind :8006
  default_backend wrong
backend wrong
  server s $S:80
frontend tlsplain
  bind :8007
  default_backend tlsplain
backend tlsplain
  server s $S:80 ssl verify none
frontend sorry
  bind :8008
  default_backend sorry
backend sorry
  server s $S:7306"
MODS=/usr/lib/apache2/modules
apache_start "$P" "LoadModule proxy_module $MODS/mod_proxy.so
LoadModule proxy_http_module $MODS/mod_proxy_http.so
Listen 81
ProxyPass /refused http://$S:7308/ retry=60
ProxyPass /silent http://$S:7301/ timeout=2
ProxyPass /closes http://$S:7302/
ProxyPass /sorry http://$S:7306/
ProxyPass /ok http://$S:80/index.html"
for port in 80 81 8001 8002 8003 8005 8006 8007 8008; do wait_port "$P" $port; done

# both legs as the proxy sees them, or the client leg alone
both() { record "$P" any "$R/$1.pcap" "tcp and not port 22" "${@:2}"; }
front() { record "$P" eth0 "$R/$1.pcap" "" "${@:2}"; }
nginx() { get "$C" "http://$FRONT/$1"; }
apache() { get "$C" "http://$FRONT:81/$1"; }
ha() { get "$C" "http://$FRONT:$1/"; }

T=proxy-upstream-connect-failed
nginx_refused() { nginx ok; nginx refused; sleep 0.5; get "$C" --interface 203.0.113.8 "http://$FRONT/refused"; nginx ok; }
both $T/nginx-refused nginx_refused
nginx_timeout() { nginx timeout; }
both $T/nginx-timeout nginx_timeout
haproxy_refused() { ha 8001; sleep 0.3; ha 8001; }
record "$P" any "$R/$T/haproxy-refused.pcap" "port 8001 or (host $S and port 7308)" haproxy_refused
apache_refused() { apache refused; }
both_apache() { record "$P" any "$R/$1.pcap" "port 81 or (host $S and port $2)" "${@:3}"; }
both_apache $T/apache-refused 7308 apache_refused
fine() { nginx ok; nginx ok; }
record "$P" any "$R/$T/not-answered.pcap" "port 80" fine
sorry() { nginx sorry; }
record "$P" any "$R/$T/not-backend-says-503.pcap" "port 80 or port 7306" sorry

T=proxy-no-server-available
haproxy_start "$P" "defaults
  mode http
  $HAPROXY_TIMES
frontend checked
  bind :8004
  default_backend checked
backend checked
  server a $S:7308 check inter 500ms fall 2
  server b 10.224.26.3:7308 check inter 500ms fall 2"
CHECKED=$LAST
wait_port "$P" 8004
down() { ha 8004; sleep 0.4; get "$C" --interface 203.0.113.8 "http://$FRONT:8004/"; sleep 0.8; ha 8004; }
record "$P" any "$R/$T/haproxy-checks-failed.pcap" "port 8004 or port 7308" down
record "$P" any "$R/$T/not-one-refused-each-time.pcap" "port 80 or (host $S and port 7308)" nginx_refused

stop "$CHECKED"

T=proxy-upstream-timeout
nginx_silent() { nginx silent; }
both_n() { record "$P" any "$R/$1.pcap" "port 80 or port $2" "${@:3}"; }
both_n $T/nginx-504 7301 nginx_silent
haproxy_silent() { ha 8002; }
record "$P" any "$R/$T/haproxy-504.pcap" "port 8002 or port 7301" haproxy_silent
apache_silent() { apache silent; }
both_apache $T/apache-502 7301 apache_silent
impatient() { get "$C" -m 1 "http://$FRONT/silent"; }
both_n $T/not-client-left-first 7301 impatient

T=proxy-upstream-closed
tcp_closed() { ha 8005; sleep 0.2; ha 8005; }
record "$P" any "$R/$T/haproxy-tcp.pcap" "port 8005 or port 7302" tcp_closed
record "$P" any "$R/$T/not-answered.pcap" "port 80" fine

T=proxy-wrong-upstream
wrong() { ha 8006; sleep 0.4; ha 8006; }
record "$P" any "$R/$T/port-80-instead-of-8080.pcap" "port 8006 or (host $S and port 80) or icmp" wrong
cp "$R/$T/port-80-instead-of-8080.pcap" "$R/$T/not-asked-for.pcap"
echo 10.224.26.2:8080 >"$R/$T/port-80-instead-of-8080.upstream"
echo 10.224.26.2:80 >"$R/$T/not-asked-for.upstream"

T=proxy-protocol-mismatch-upstream
plain() { nginx plain; }
both_n $T/nginx-tls-to-http-port 80 plain
ha_plain() { ha 8007; }
record "$P" any "$R/$T/haproxy-tls-to-http-port.pcap" "port 8007 or (host $S and port 80)" ha_plain
both_n $T/not-same-protocol 80 fine

T=capture-lacks-backend-leg
front $T/nginx-502 nginx refused
front $T/haproxy-503 ha 8001
front $T/not-answered fine

T=http-gateway-error
front $T/nginx-502 nginx refused
front $T/nginx-504 nginx silent
front $T/apache-503 apache refused
front $T/haproxy-503 ha 8001
record "$P" any "$R/$T/not-backend-says-503.pcap" "port 8008 or port 7306" ha 8008
front $T/not-answered fine

T=http-upstream-closed-before-response
both_n $T/nginx-502 7302 nginx closes
record "$P" any "$R/$T/haproxy-502.pcap" "port 8003 or port 7302" ha 8003
twice() { nginx twice; sleep 0.2; nginx twice; }
both_n $T/second-request 7304 twice
both_n $T/not-answered 80 fine

T=http-upstream-reset-before-response
both_n $T/nginx-502 7303 nginx resets
again() { nginx again; sleep 0.2; nginx again; }
both_n $T/second-request 7305 again
both_n $T/not-answered 80 fine

T=http-keepalive-race
# The backend closes an idle connection after 2 s.
race_late() { nginx race; sleep 2.6; nginx race; }
both_n $T/not-after-the-close 7307 race_late
# nginx and HAProxy notice a close that they have received; a client that looks only when it writes does not.
ASK='send:GET /race HTTP/1.1\r\nHost: www.example.com\r\n\r\n'
race() { talk "$P" $S 7307 "$ASK" recv sleep:2.01 "$ASK" recv; }
record "$P" any "$R/$T/scripted-client.pcap" "port 7307" race
grep -h "upstream" "$NGINX_P/error.log" | sed 's/.*\] //' | sort | uniq -c
