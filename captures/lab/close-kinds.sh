#!/bin/bash
# Family F: every way a connection ends. About 1.7 minutes (the long cases run side by side).
# close-kinds.sh [OUTPUT [group…]]         groups: short long
. "$(dirname "$0")/lib.sh"
lab_need nginx apache2 haproxy curl nc redis-server iptables node
OUT=${1:-$CAPTURES/rules}
shift
GROUPS_WANTED=${*:-long short}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
R=$OUT
S=10.224.26.2
lab_begin
certificates www.example.com
PEM=$TMP/www.example.com
HEAD='send:HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n'
OK='send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
ASK='send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n'
nginx_start "$B" "keepalive_timeout 75s;
  server { listen [::]:80 ipv6only=off; }
  server { listen 8414; client_max_body_size 1k; keepalive_timeout 0; }"
apache_start "$B" "Listen 81
KeepAlive On
KeepAliveTimeout 5"
spawn "$B" node -e "require('http').createServer((q,s)=>s.end('hello from node\n')).listen(84,'0.0.0.0')"
spawn "$B" redis-server --port 6379 --save '' --appendonly no --protected-mode no --dir "$TMP" --bind 0.0.0.0
mkdir "$TMP/html"
spawn "$B" python3 -m http.server -d "$TMP/html" 83
haproxy_start "$B" "defaults
  mode tcp
  $HAPROXY_TIMES
frontend deny
  bind :8501
  tcp-request connection reject
  default_backend web
frontend dead
  bind :8502
  default_backend dead
frontend too_large
  mode http
  bind :8503
  http-request deny deny_status 413
backend web
  server s $S:80
backend dead
  retries 0
  server s $S:9"
for port in 80 81 83 84 6379 8414 8501 8502 8503; do wait_port "$B" $port; done
at_client() { record "$C" eth0 "$R/$1.pcap" "" "${@:2}"; }
at_server() { record "$B" eth0 "$R/$1.pcap" "" "${@:2}"; }
JOBS=()
job() { LAB_DELAY=2 "$@" & JOBS+=($!); } # all captures run before the first case begins
ok() { get "$C" "http://$S/"; }

if wants long; then
    # half-closed-stuck
    serve "$B" 7201 recv "$OK" sleep:200
    others() { local i; for i in 1 2 3 4 5 6 7 8; do get "$C" --interface 203.0.113.9 "http://10.224.26.3/"; sleep 9; done; } # they date the silence
    others_too() { LAB_DELAY=2; sleep 2; others; }
    leak() { talk "$C" $S 7201 "$ASK" recv sleep:0.3 fin sleep:66; }
    job record "$C" eth0 "$R/half-closed-stuck/server-never-closes.pcap" "tcp port 7201 or (tcp port 80 and host 203.0.113.9)" leak
    serve "$B" 7202 recv "$OK" sleep:200
    leak_all() { talk "$C" $S 7202 "$ASK" recv sleep:0.3 close; sleep 66; }
    job record "$B" eth0 "$R/half-closed-stuck/client-gone.pcap" "tcp port 7202 or (tcp port 80 and host 203.0.113.9)" leak_all
    serve "$B" 7203 recv 'send:HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n' 'again:13:send:one more line\n' close
    sending() { talk "$C" $S 7203 "$ASK" fin eof:20; }
    job record "$C" eth0 "$R/half-closed-stuck/not-still-sending.pcap" "tcp port 7203" sending
    others_too & JOBS+=($!)
    # idle-timeout-close
    idle() { talk "$C" "${2:-$S}" "$1" "$ASK" recv eof:90; }
    job record "$C" eth0 "$R/idle-timeout-close/nginx-75s.pcap" "tcp port 80 and host 203.0.113.7" idle 80
    job record "$C" eth0 "$R/idle-timeout-close/apache-5s.pcap" "tcp port 81" idle 81
    job record "$C" eth0 "$R/idle-timeout-close/node-5s.pcap" "tcp port 84" idle 84
    serve "$B" 7204 recv sleep:5 close
    hang() { talk "$C" $S 7204 "$ASK" eof:20; }
    job record "$C" eth0 "$R/idle-timeout-close/not-request-outstanding.pcap" "tcp port 7204" hang
    job record "$C" eth0 "$R/closed-without-answer/not-idle-keepalive-close.pcap" "tcp port 81" idle 81
    # health checks
    haproxy_start "$P" "defaults
  mode tcp
  $HAPROXY_TIMES
frontend unused
  bind 203.0.113.1:8000
  default_backend tcp_check
backend tcp_check
  server s1 10.224.26.3:80 check inter 2s
  server s2 10.224.26.4:80 check inter 2s
backend http_check
  option httpchk GET /healthz
  server s1 10.224.26.3:81 check inter 2s"
    BALANCER=$LAST
    checks() { sleep 13; }
    job record "$B" eth0 "$R/lb-health-check-noise/haproxy-tcp-check-2s.pcap" "tcp port 80 and (host 10.224.26.3 or host 10.224.26.4)" checks
    job record "$P" any "$R/lb-health-check-noise/haproxy-tcp-check-2s-on-the-balancer.pcap" "tcp port 80 and host 10.224.26.3" checks
    job record "$B" eth0 "$R/lb-health-check-noise/haproxy-http-check-404.pcap" "tcp port 81 and host 10.224.26.3" checks
    users() {
        local pause
        for pause in 0.3 2.1 0.7 3.4 1.3; do
            get "$C" --interface 203.0.113.8 "http://$S/"
            sleep $pause
        done
    }
    job record "$B" eth0 "$R/lb-health-check-noise/not-users-at-irregular-times.pcap" "tcp port 80 and host 203.0.113.8" users
    # client-abandoned
    serve "$B" 7205 recv sleep:6 "$OK" close
    abandon() { get "$C" -m 2 "http://$S:7205/"; get "$C" -m 2 --interface 203.0.113.8 "http://$S:7205/"; sleep 2.5; }
    job record "$B" eth0 "$R/client-abandoned/curl-gives-up-after-2s.pcap" "tcp port 7205" abandon
    serve "$B" 7206 recv sleep:4 "$OK" close
    abandon_rst() { talk "$C" $S 7206 "$ASK" sleep:3 rst; }
    job record "$B" eth0 "$R/client-abandoned/reset-after-3s.pcap" "tcp port 7206" abandon_rst
    serve "$B" 7207 recv "$HEAD" zeros:3000 sleep:6 close
    abandon_mid() { get "$C" -m 5 "http://$S:7207/"; }
    job record "$B" eth0 "$R/client-abandoned/mid-response-after-5s.pcap" "tcp port 7207" abandon_mid
    serve "$B" 7208 recv sleep:1.5 'send:HTTP/1.0 200 OK\r\n\r\nhello\n' close
    half() { printf 'GET / HTTP/1.0\r\n\r\n' | on "$C" nc -N $S 7208 >/dev/null; }
    job record "$B" eth0 "$R/client-abandoned/not-half-close-nc.pcap" "tcp port 7208" half
    serve "$B" 7209 recv sleep:2.5 "$OK" close
    job record "$B" eth0 "$R/client-abandoned/not-slow-but-answered.pcap" "tcp port 7209" get "$C" "http://$S:7209/"
    wait "${JOBS[@]}"
    stop "$BALANCER"
fi

if wants short; then
    T=server-reset-mid-response
    serve "$B" 7301 recv "$HEAD" zeros:20000 sleep:0.1 rst
    mid() { get "$C" "http://$S:7301/"; get "$C" --interface 203.0.113.8 "http://$S:7301/"; }
    at_client $T/linger-0 mid
    six() { get "$C" -6 "http://[2001:db8:b::2]:7301/"; }
    at_client $T/linger-0-ipv6 six
    serve "$B" 7302 recv sleep:0.2 rst
    nothing() { get "$C" "http://$S:7302/"; }
    at_server $T/before-the-first-octet nothing
    nginx_start "$P" "server { listen 203.0.113.1:80; location / { proxy_pass http://$S:7301; } }"
    wait_port "$P" 80
    proxied() { get "$C" "http://203.0.113.1/"; }
    record "$P" any "$R/$T/behind-nginx.pcap" "" proxied
    serve "$B" 7303 recv "$OK" close
    after_fin() { talk "$C" $S 7303 "$ASK" recv sleep:0.1 'send:late' sleep:0.1 close; }
    at_client $T/not-rst-after-fin after_fin
    cancel() { talk "$C" $S 80 rcvbuf:8000 'send:GET /large.txt HTTP/1.1\r\nHost: www.example.com\r\n\r\n' recv sleep:0.05 close; }
    at_client $T/not-client-cancelled cancel

    T=reset-unread-data
    # the body goes on after the answer; HAProxy does not read it
    upload() { talk "$C" $S "$1" 'send:POST /upload HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 12000\r\n\r\n' zeros:2000 sleep:0.1 zeros:5000 sleep:0.05 zeros:5000 sleep:0.1 recv eof:3 close; }
    at_client $T/haproxy-413-body-unread upload 8503
    serve "$B" 7304 recv 'send:HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' close
    split() { talk "$C" $S 7304 'send:POST / HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 9000\r\n\r\n' zeros:4000 sleep:0.05 zeros:5000 eof:2; }
    at_server $T/answer-then-more-body split
    at_client $T/not-nginx-lingering-close upload 8414
    at_client $T/not-plain-close ok

    T=stray-reset
    serve "$B" 7305 recv "$OK" sleep:0.3 vanish
    forgotten() { talk "$C" $S 7305 "$ASK" recv sleep:1 "$ASK" sleep:0.2 close; }
    at_client $T/server-forgot-the-connection forgotten
    serve "$B" 7306 recv sleep:0.3 vanish
    upload_cut() { talk "$C" $S 7306 'send:POST / HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 9000\r\n\r\n' sleep:0.8 zeros:3000 sleep:0.2 close; }
    at_server $T/mid-request upload_cut
    serve "$B" 7307 recv "$OK" sleep:30
    restarted() { # the host restarts: its FIN and RST never leave, then it knows nothing
        (talk "$C" $S 7307 "$ASK" recv sleep:2 "$ASK" sleep:0.2 close) &
        local client=$!
        sleep 0.7
        on "$B" iptables -A OUTPUT -p tcp --sport 7307 -j DROP
        stop "$LAST_7307" KILL
        on "$B" ss -K sport = :7307 >/dev/null 2>&1
        sleep 0.4
        on "$B" iptables -D OUTPUT -p tcp --sport 7307 -j DROP
        wait $client
    }
    LAST_7307=$LAST
    record "$C" eth0 "$R/$T/server-killed-unheard.pcap" "" restarted
    at_client $T/not-answer-to-data-after-fin after_fin
    at_client $T/not-refused get "$C" "http://$S:9/"

    T=closed-without-answer
    serve "$B" 7308 recv sleep:0.05 close
    silent() { get "$C" "http://$S:7308/"; get "$C" --interface 203.0.113.8 "http://$S:7308/"; }
    at_client $T/http-request silent
    silent6() { get "$C" -6 "http://[2001:db8:b::2]:7308/"; }
    at_client $T/http-request-ipv6 silent6
    redis_guard() { get "$C" "http://$S:6379/"; }
    at_client $T/redis-host-guard redis_guard
    second() { talk "$C" $S 7309 "$ASK" recv sleep:0.2 "$ASK" eof:2; }
    serve "$B" 7309 recv "$OK" recv sleep:0.05 close
    unknown() { talk "$C" $S 7308 'send:\x01\x02\x03\x04 a protocol nobody knows' eof:2; }
    at_client $T/unknown-protocol unknown
    at_client $T/not-second-request-unanswered second
    at_client $T/not-answered ok
    first() { talk "$C" $S 7205 "$ASK" sleep:0.3 close; }
    serve "$B" 7205 recv sleep:1 close 2>/dev/null
    at_client $T/not-client-closed-first first

    T=closed-before-request
    serve "$B" 7310 close
    accept_close() { talk "$C" $S 7310 eof:2; talk "$C" --from 203.0.113.8 $S 7310 eof:2; }
    at_client $T/accept-then-close accept_close
    denied() { talk "$C" $S 8501 eof:2; get "$C" "http://$S:8501/"; }
    at_client $T/haproxy-connection-reject denied
    no_backend() { talk "$C" $S 8502 eof:2; }
    at_client $T/haproxy-backend-dead no_backend
    accept_close6() { talk "$C" 2001:db8:b::2 7310 eof:2; }
    at_client $T/accept-then-close-ipv6 accept_close6
    serve "$B" 7311 sleep:0.2 rst
    accept_rst() { talk "$C" $S 7311 eof:2; }
    at_client $T/accept-then-reset accept_rst
    client_check() { for i in 1 2 3; do talk "$C" $S 80 close; sleep 1; done; }
    at_server $T/not-client-check-closes-first client_check
    at_client $T/not-answered ok
fi
true
