#!/bin/bash
# Patterns that look odd and are benign (catalogue section 6): every capture here must stay without a finding above notice.
# About 2.5 minutes.     healthy.sh [OUTPUT [group…]]     groups: short long offload
. "$(dirname "$0")/lib.sh"
lab_need nginx apache2 haproxy go curl nc redis-server redis-cli sshd ssh-keygen gnutls-serv gnutls-cli iptables
OUT=${1:-$CAPTURES/healthy}
shift
GROUPS_WANTED=${*:-offload long short}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
R=$OUT
S=10.224.26.2
NAME=www.example.com
mkdir -p "$R"

if wants offload && [ -z "${LAB_KEEP_OFFLOAD:-}" ]; then
    LAB_KEEP_OFFLOAD=1 "$0" "$OUT" offload
    [ "$GROUPS_WANTED" = offload ] && exit 0
fi
lab_begin
certificates $NAME
PEM=$TMP/$NAME
nginx_start "$B" "keepalive_timeout 75s; ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key;
  server { listen [::]:80 ipv6only=off; }
  server { listen [::]:443 ssl ipv6only=off; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:1m; }
  server { listen 8080 proxy_protocol; }
  server { listen 8443 ssl proxy_protocol; }
  server { listen 8086; location / { auth_basic private; auth_basic_user_file $TMP/htpasswd; } }"
echo "ann:$(openssl passwd -apr1 secret)" >"$TMP/htpasswd"
chmod 644 "$TMP/htpasswd"
wait_port "$B" 80
at_client() { record "$C" eth0 "$R/$1.pcap" "${FILTER:-}" "${@:2}"; }
at_server() { record "$B" eth0 "$R/$1.pcap" "${FILTER:-}" "${@:2}"; }
ok() { get "$C" --interface "${1:-203.0.113.7}" "http://$S/"; }
https() { get "$C" --interface "${1:-203.0.113.7}" --resolve "$NAME:443:$S" "${@:2}" "https://$NAME/"; }

if [ -n "${LAB_KEEP_OFFLOAD:-}" ]; then
    big() { get "$C" "http://$S/large.txt"; get "$C" --data-binary "@$NGINX_DIR/html/large.txt" "http://$S/"; https; }
    record "$B" eth0 "$R/10-tso-super-segments-unfinished-checksums.pcap" "" big
    exit 0
fi

ASK='send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n'
OK='send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
M=/usr/lib/apache2/modules
apache_start "$B" "Listen 81
Listen 3128
KeepAliveTimeout 5
LoadModule proxy_module $M/mod_proxy.so
LoadModule proxy_connect_module $M/mod_proxy_connect.so
<VirtualHost *:3128>
ProxyRequests On
AllowCONNECT 443
</VirtualHost>"
go_build
spawn "$B" "$TMP/goserver" -cert "$PEM.crt" -key "$PEM.key" -https :1443 -http :1080
spawn "$B" openssl s_server -www -quiet -accept 4433 -cert "$PEM.crt" -key "$PEM.key"
spawn "$B" openssl s_server -www -quiet -accept 4434 -cert "$PEM.crt" -key "$PEM.key" -groups P-384
spawn "$B" gnutls-serv --quiet --http -p 5556 --x509certfile "$PEM.crt" --x509keyfile "$PEM.key" --sni-hostname other.example.com
spawn "$B" redis-server --port 6379 --save '' --appendonly no --protected-mode no --dir "$TMP" --bind 0.0.0.0
spawn "$B" python3 "$LAB_DIR/web.py" 8000
mkdir "$TMP/html"
spawn "$B" python3 -m http.server -d "$TMP/html" 83
ssh-keygen -q -t ed25519 -N '' -f "$TMP/hostkey" </dev/null
printf 'Port 22\nHostKey %s\nUsePAM no\nPidFile none\nUseDNS no\n' "$TMP/hostkey" >"$TMP/sshd_config"
spawn "$B" sh -c "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f $TMP/sshd_config"
haproxy_start "$B" "defaults
  mode http
  timeout connect 3s
  timeout client 30s
  timeout server 30s
  timeout http-request 4s
frontend slow_client
  bind :8408
  http-request return status 200 content-type text/plain string hello"
spawn "$B" python3 "$LAB_DIR/dns.py" 53 0.2 $S
spawn "$B" python3 "$LAB_DIR/dns.py" 53 0 10.224.26.3
for port in 81 3128 1443 4433 4434 5556 6379 8000 83 22 8408; do wait_port "$B" $port; done
JOBS=()
job() { LAB_DELAY=2 "$@" & JOBS+=($!); } # all captures run before the first case begins

if wants long; then
    preconnect() { # two connections, one used; the other is closed by nginx after client_header_timeout
        (talk "$C" --from 203.0.113.9 $S 80 eof:70) &
        local other=$!
        (talk "$C" --from 203.0.113.9 $S 443 sleep:9 close) &
        get "$C" --interface 203.0.113.9 "http://$S/"
        wait $other
    }
    job record "$C" eth0 "$R/03-browser-preconnect.pcap" "host 203.0.113.9 and not port 8000" preconnect
    haproxy_start "$P" "defaults
  mode tcp
  $HAPROXY_TIMES
frontend unused
  bind 203.0.113.1:8000
  default_backend tcp_check
backend tcp_check
  server s1 10.224.26.3:80 check inter 2s
  server s2 10.224.26.4:80 check inter 3s
backend proxy_check
  server s1 10.224.26.3:8080 send-proxy-v2 check inter 2s
  server s2 10.224.26.3:8443 send-proxy-v2 check check-send-proxy inter 2s
backend http_check
  option httpchk GET /healthz
  server s1 10.224.26.3:81 check inter 2s"
    BALANCER=$LAST
    pause() { sleep "$1"; }
    job record "$B" eth0 "$R/04-lb-tcp-check.pcap" "tcp port 80 and (host 10.224.26.3 or host 10.224.26.4)" pause 13
    job record "$B" eth0 "$R/05-proxy-local-check.pcap" "host 10.224.26.3 and (port 8080 or port 8443)" pause 11
    job record "$B" eth0 "$R/06-http-check-404.pcap" "host 10.224.26.3 and port 81" pause 13
    serve "$B" 7401 recv "$OK" eof:60
    alive() { talk "$C" $S 7401 keepalive:1 "$ASK" recv sleep:5 close; }
    job record "$C" eth0 "$R/07-keepalive-probes.pcap" "tcp port 7401" alive
    poll() { get "$C" -m 30 "http://$S:8000/poll" "http://$S:8000/poll"; }
    poll2() { on "$C" curl -s -m 50 -o /dev/null "http://$S:8000/poll" -o /dev/null "http://$S:8000/poll" </dev/null; }
    job record "$C" eth0 "$R/16-long-poll.pcap" "host 203.0.113.7 and tcp port 8000 and not host 203.0.113.8" poll2
    events() { get "$C" -m 60 --interface 203.0.113.8 -H 'Accept: text/event-stream' "http://$S:8000/events"; }
    job record "$C" eth0 "$R/17-server-sent-events.pcap" "host 203.0.113.8 and tcp port 8000" events
    socket() { talk "$C" --from 203.0.113.9 $S 8000 'send:GET /ws HTTP/1.1\r\nHost: www.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n' recv sleep:20.5 'send:\x8a\x80\x00\x00\x00\x00' sleep:20 'send:\x8a\x80\x00\x00\x00\x00' sleep:0.3 'send:\x88\x82\x00\x00\x00\x00\x03\xe8' eof:3; }
    job record "$C" eth0 "$R/18-websocket-idle.pcap" "host 203.0.113.9 and tcp port 8000" socket
    idle() { talk "$C" $S 81 "$ASK" recv eof:20; get "$C" "http://$S:81/"; }
    job record "$C" eth0 "$R/19-server-closes-idle-keepalive.pcap" "host 203.0.113.7 and tcp port 81" idle
    late() { talk "$C" $S 8408 eof:10; get "$C" "http://$S:8408/"; }
    job record "$C" eth0 "$R/38-408-on-idle-connection.pcap" "tcp port 8408" late
    subscribe() { (timeout 25 ip netns exec "$C" redis-cli -h $S SUBSCRIBE news </dev/null >/dev/null 2>&1) & sleep 22; on "$C" redis-cli -h $S PUBLISH news hello >/dev/null; sleep 1; wait $!; }
    job record "$C" eth0 "$R/40-redis-subscribe-idle.pcap" "tcp port 6379" subscribe
    wait "${JOBS[@]}"
    stop "$BALANCER"
fi

if wants short; then
    serve "$B" 7402 recv "$OK" close
    rst_after() { talk "$C" $S 7402 "$ASK" recv sleep:0.1 'send:late' sleep:0.05 close; talk "$C" $S 7402 "$ASK" recv sleep:0.05 rst; }
    at_client 01-rst-after-fin rst_after
    post501() { get "$C" -d "@$NGINX_DIR/html/large.txt" "http://$S:83/"; }
    at_client 01b-rst-after-own-fin-unread-body post501
    curls() { https; get "$C" "https://$S:1443/"; get "$C" "https://$S:4433/"; https 203.0.113.8; }
    at_client 02-curl-end-of-tls curls
    serve "$B" 7403 recv "zeros:100000" close
    window() { talk "$C" $S 7403 rcvbuf:20000 "$ASK" sleep:0.17 eof:5; }
    at_client 08-zero-window-short window
    serve "$B" 7404 recv 'send:HTTP/1.1 200 OK\r\nContent-Length: 6000\r\n\r\n' zeros:5990 'send:lastlast12' eof:5
    tail_loss() {
        on "$P" iptables -I FORWARD -p tcp --sport 7404 -m string --string lastlast12 --algo bm -m statistic --mode nth --every 1000 --packet 0 -j DROP
        talk "$C" $S 7404 "$ASK" recv:lastlast12 close
        on "$P" iptables -F FORWARD
    }
    at_server 09-tail-loss-probe tail_loss
    serve "$B" 7405 recv 'send:HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n' zeros:1000 sleep:1 zeros:1000 sleep:1 zeros:1000 recv "$OK" close
    (talk "$C" $S 7405 "$ASK" sleep:2.5 recv "$ASK" sleep:0.2 eof:3) &
    sleep 0.3
    middle() { sleep 3; }
    FILTER="tcp port 7405" at_client 12-starts-mid-stream middle
    tls_half() { printf 'GET / HTTP/1.0\r\n\r\n' | on "$C" openssl s_client -quiet -connect $S:4433 >/dev/null 2>&1; }
    at_client 14-tls-close-one-side-first tls_half
    serve "$B" 7407 eof:5 sleep:0.5 'send:the answer comes after your FIN\n' close
    half() { printf 'a question\n' | on "$C" nc -N $S 7407 >/dev/null; }
    at_client 15-half-close-nc half
    bodies() {
        get "$C" -I "http://$S:8000/" ; get "$C" "http://$S:8000/nocontent"; get "$C" -H 'If-None-Match: "1"' "http://$S:8000/cached"
    }
    at_client 20-head-204-304 bodies
    at_client 21-chunked get "$C" "http://$S:8000/chunked"
    at_client 22-length-by-close get "$C" --http1.0 "http://$S:8000/close"
    at_client 23-connect-tunnel get "$C" -p -x "http://$S:3128" --resolve "$NAME:443:$S" "https://$S/"
    head -c 250000 /dev/zero | tr '\0' 'v' >"$NGINX_DIR/html/video"
    cancelled() {
        talk "$C" $S 80 rcvbuf:8000 'send:GET /video HTTP/1.1\r\nHost: www.example.com\r\n\r\n' recv sleep:0.02 close
        get "$C" -r 200000-201000 "http://$S/video"; get "$C" -r 240000-241000 "http://$S/video"
    }
    at_client 24-cancelled-download-then-ranges cancelled
    nginx_start "$B" "server { listen 10.224.26.2:8088; }"
    wait_port "$B" 8088
    eyes() { get "$C" --resolve "$NAME:8088:[2001:db8:b::2],$S" "http://$NAME:8088/"; get "$C" --resolve "$NAME:8088:[2001:db8:b::2],$S" "http://$NAME:8088/"; }
    at_client 25-happy-eyeballs-loser-answered eyes
    at_client 26-401-then-credentials get "$C" --anyauth -u ann:secret "http://$S:8086/"
    expect() { get "$C" -H 'Expect: 100-continue' -d "@$TMP/htpasswd" "http://$S:1080/"; get "$C" -H 'Expect: 100-continue' -d "@$NGINX_DIR/nginx.conf" "http://$S:81/index.html"; }
    at_client 27-100-continue expect
    hrr() { get "$C" --curves X25519:P-384 "https://$S:4434/"; }
    at_client 28-tls13-hello-retry-request hrr
    many() {
        https; https 203.0.113.8 --tls-max 1.2; get "$C" "https://$S:1443/"; get "$C" --tls-max 1.2 --interface 203.0.113.9 "https://$S:1443/"
        on "$C" gnutls-cli --insecure -p 443 $S </dev/null >/dev/null 2>&1
        on "$C" python3 -c "
import ssl,socket
c=ssl.create_default_context();c.check_hostname=False;c.verify_mode=0
s=c.wrap_socket(socket.create_connection(('$S',443)),server_hostname='$NAME');s.sendall(b'GET / HTTP/1.0\r\n\r\n')
while s.recv(4096): pass
s.close()"
        on "$C" openssl s_client -connect $S:443 -servername $NAME </dev/null >/dev/null 2>&1
    }
    at_client 29-tls-many-clients many
    resume() {
        on "$C" openssl s_client -tls1_2 -connect $S:443 -servername $NAME -sess_out "$TMP/session12" </dev/null >/dev/null 2>&1
        on "$C" openssl s_client -tls1_2 -connect $S:443 -servername $NAME -sess_in "$TMP/session12" </dev/null >/dev/null 2>&1
        printf 'GET / HTTP/1.0\r\n\r\n' | on "$C" openssl s_client -quiet -connect $S:4433 -servername $NAME -sess_out "$TMP/session13" >/dev/null 2>&1
        printf 'GET / HTTP/1.0\r\n\r\n' | on "$C" openssl s_client -quiet -connect $S:4433 -servername $NAME -sess_in "$TMP/session13" >/dev/null 2>&1
    }
    at_client 30-tls-session-resumption resume
    late_dns() { # two resolvers are asked, the first answer wins, the second finds the port closed
        on "$C" python3 -c "
import socket
name=b''.join(bytes([len(l)])+l for l in b'late.example.com'.split(b'.'))+b'\0\0\1\0\1'
one,two=(socket.socket(socket.AF_INET,socket.SOCK_DGRAM) for _ in 'ab')
for sock,address,ident in (one,'$S',b'\x4d\x11'),(two,'10.224.26.3',b'\x9a\x52'):
    sock.connect((address,53)); sock.send(ident+b'\1\0\0\1\0\0\0\0\0\0'+name)
two.recv(512); one.close(); two.close()"
        sleep 0.6
    }
    at_client 31-icmp-for-late-dns-answer late_dns
    arp() {
        ip -n "$B" link set eth0 down; ip netns exec "$B" sysctl -qw net.ipv4.conf.eth0.arp_notify=1; ip -n "$B" link set eth0 up
        ip -n "$B" route replace default via 10.224.26.1; lab_address "$B" eth0 2001:db8:b::2/64 2001:db8:b::3/64 2>/dev/null
        ip -n "$B" -6 route replace default via 2001:db8:b::1
        sleep 1.2; ok; ok 203.0.113.8
    }
    record "$P" eth1 "$R/32-gratuitous-arp.pcap" "" arp
    loop() { get "$B" "http://127.0.0.1/"; get "$B" -k "https://127.0.0.1/"; get "$B" "http://[::1]/"; get "$B" "http://127.0.0.1/video"; }
    record "$B" lo "$R/33-loopback.pcap" "" loop
    fast() {
        on "$C" sysctl -qw net.ipv4.tcp_fastopen=3
        on "$B" sysctl -qw net.ipv4.tcp_fastopen=3
        spawn "$B" python3 -c "
import socket
l=socket.socket();l.setsockopt(1,2,1);l.setsockopt(6,23,8);l.bind(('0.0.0.0',7408));l.listen(8)
while True:
    c,_=l.accept();c.recv(4096);c.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok');c.close()"
        wait_port "$B" 7408
        local i
        for i in 1 2 3; do get "$C" --tcp-fastopen "http://$S:7408/"; sleep 0.1; done
    }
    at_client 34-tcp-fast-open fast
    accepted() {
        local h
        for h in v1-ok v2-ok v2-many-tlvs; do talk "$P" $S 8080 "send:@$TMP/h/$h" 'send:GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n' eof:2; done
        get "$P" --haproxy-protocol --resolve "$NAME:8443:$S" "https://$NAME:8443/"
    }
    mkdir "$TMP/h"
    python3 "$LAB_DIR/proxyheader.py" "$TMP/h"
    at_server 35-proxy-header-accepted accepted
    ecn() { on "$C" sysctl -qw net.ipv4.tcp_ecn=1; ok; https; on "$C" sysctl -qw net.ipv4.tcp_ecn=2; }
    at_client 36-ecn ecn
    six() {
        get "$C" -6 "http://[2001:db8:b::2]/"; get "$C" -6 "https://[2001:db8:b::2]/"; get "$C" -6 --tls-max 1.2 "https://[2001:db8:b::2]/"
        talk "$C" 2001:db8:b::2 7402 "$ASK" recv sleep:0.1 'send:late' sleep:0.05 close
        talk "$C" 2001:db8:b::2 80 close; talk "$C" 2001:db8:b::2 7407 'send:a question\n' fin eof:3
    }
    at_client 37-ipv6 six
    ssh() { on "$C" timeout 5 ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile="$TMP/known" nobody@$S true </dev/null >/dev/null 2>&1; }
    at_client 39-ssh-login-refused ssh
    redis() { on "$C" redis-cli -h $S SET a 1 >/dev/null; on "$C" redis-cli -h $S GET a >/dev/null; }
    at_client 41-redis redis
    one_retry() {
        local i
        for i in $(seq 12); do ok; done
        on "$B" iptables -I INPUT -p tcp --dport 80 --syn -m statistic --mode nth --every 1000 --packet 0 -j DROP
        ok
        on "$B" iptables -F INPUT
        for i in $(seq 12); do ok 203.0.113.8; done
    }
    at_client 42-one-syn-retry-of-25 one_retry
    warned() { on "$C" gnutls-cli --insecure --priority NORMAL:-VERS-TLS1.3 --sni-hostname $NAME -p 5556 $S </dev/null >/dev/null 2>&1; }
    at_client 43-tls-warning-unrecognized-name warned
    resolver() { on "$C" sh -c "printf 'nameserver $S\nsearch corp.test\noptions ndots:3\n' >$TMP/resolv.conf; mount --bind $TMP/resolv.conf /etc/resolv.conf; curl -s -m 5 -o /dev/null http://www.example.com/; curl -s -m 5 -o /dev/null http://www.example.com/"; }
    at_client 44-dns-aaaa-nodata-and-search-list resolver
    h2() { get "$C" --http2 --resolve "$NAME:1443:$S" "https://$NAME:1443/" ; }
    at_client 45-http2-over-tls h2
    routed() { ok; ok 203.0.113.8; https; }
    record "$P" any "$R/46-router-sees-both-sides.pcap" "" routed
    bridge() { # two hosts behind a bridge, -i any on the bridge
        LAB_MORE_NS="$LAB-x $LAB-y $LAB-z"
        local ns
        for ns in $LAB_MORE_NS; do ip netns add "$ns"; ip -n "$ns" link set lo up; done
        ip link add eth0 netns "$LAB-y" type veth peer name port1 netns "$LAB-x"
        ip link add eth0 netns "$LAB-z" type veth peer name port2 netns "$LAB-x"
        ip -n "$LAB-x" link add br0 type bridge
        for ns in port1 port2; do ip -n "$LAB-x" link set $ns master br0; ip -n "$LAB-x" link set $ns up; done
        lab_address "$LAB-x" br0 192.0.2.1/24
        lab_address "$LAB-y" eth0 192.0.2.7/24
        lab_address "$LAB-z" eth0 192.0.2.2/24
        ip netns exec "$LAB-y" python3 "$LAB_DIR/offload.py" eth0
        ip netns exec "$LAB-z" python3 "$LAB_DIR/offload.py" eth0
        serve "$LAB-z" 8000 recv 'send:HTTP/1.1 200 OK\r\nContent-Length: 8000\r\n\r\n' zeros:8000 close
    }
    bridge
    across() { get "$LAB-y" "http://192.0.2.2:8000/"; get "$LAB-y" "http://192.0.2.2:8000/"; }
    record "$LAB-x" any "$R/11-bridge-duplicates.pcap" "" across
    serve "$B" 7406 recv sleep:6 "$OK" close
    cut() { ok; (get "$C" "http://$S:7406/") & sleep 0.5; }
    FILTER="tcp" at_client 13-ends-mid-request cut
fi
[ -n "${TCPWHY_REAL_CAPTURES:-}" ] && cp "$TCPWHY_REAL_CAPTURES/tls13-hrr.pcap" "$R/28b-tls13-hrr-first-lab.pcap"
true
