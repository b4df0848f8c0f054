#!/bin/bash
# Families B to E: circles of routes, MTUs that are learnt, ports used again, handshakes that the client refuses, windows, queues and small
# writes. About 2 minutes.
# holdups.sh [OUTPUT [group…]]         groups: route port pace redirect few needless tickets pooled
. "$(dirname "$0")/lib.sh"
lab_need nginx curl haproxy iptables tc
R=${1:-$CAPTURES/rules}
shift
GROUPS_WANTED=${*:-route port pace redirect few needless tickets pooled}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
S=10.224.26.2 S6=2001:db8:b::2
lab_begin
nginx_start "$B" "client_max_body_size 10m; server { listen [::]:80 ipv6only=off; location /upload { return 200 ok; } }"
head -c 3000000 /dev/zero | tr '\0' 'x' >"$NGINX_DIR/html/file.bin"
head -c 60000 /dev/zero | tr '\0' 'x' >"$TMP/upload.bin"
wait_port "$B" 80
ok() { get "$C" "http://$S/"; }
longer() { # milliseconds [period]: what goes to the client waits so long on the router; with a period in every second one only
    spawn "$P" python3 "$LAB_DIR/delay.py" late0 "$@"
    LONGER=$LAST
    local try
    for try in $(seq 60); do ip -n "$P" link show late0 >/dev/null 2>&1 && break; sleep 0.05; done
    ip -n "$P" link set late0 up
    on "$P" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.late0.rp_filter=0
    local version net
    for version in -4 -6; do
        net=203.0.113.0/24
        [ $version = -6 ] && net=2001:db8:c::/64
        ip -n "$P" $version rule add iif eth1 to $net lookup 100
        ip -n "$P" $version route add $net dev late0 table 100
    done
}
shorter() {
    stop "$LONGER"
    ip -n "$P" -4 rule del iif eth1 to 203.0.113.0/24 lookup 100
    ip -n "$P" -6 rule del iif eth1 to 2001:db8:c::/64 lookup 100
}

if wants route; then
    T=routing-loop
    # the backend is no router for this network and sends it back to where it came from
    for ns in "$P" "$B"; do
        on "$ns" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0
        for dev in eth0 eth1; do on "$ns" sysctl -qw "net.ipv4.conf.$dev.send_redirects=0" 2>/dev/null; done
    done
    ip -n "$P" route add 192.0.2.0/24 via $S
    ip -n "$P" -6 route add 2001:db8:ffff::/48 via $S6
    # Linux gives up at the first error: each attempt is one SYN
    circle() { local i; ok; for i in 1 2 3 4; do get "$C" --connect-timeout 5.5 "http://192.0.2.9/"; sleep 0.3; done; ok; }
    circle6() { local i; for i in 1 2 3; do get "$C" -6 --connect-timeout 5.5 "http://[2001:db8:ffff::9]/"; sleep 1.1; done; }
    twice() { get "$C" --connect-timeout 5.5 "http://192.0.2.9/"; sleep 0.3; get "$C" --connect-timeout 5.5 "http://192.0.2.9/"; ok; }
    record "$C" eth0 "$R/$T/errors-at-the-client.pcap" "" circle
    record "$P" eth1 "$R/$T/seen-on-the-circle.pcap" "tcp or icmp" circle
    record "$P" any "$R/$T/seen-on-a-router-any.pcap" "tcp or icmp" circle
    record "$C" eth0 "$R/$T/errors-ipv6.pcap" "tcp or icmp6" circle6
    record "$P" any "$R/$T/not-through-a-router.pcap" "tcp or icmp" ok
    record "$C" eth0 "$R/$T/not-two-errors.pcap" "" twice
    trace() { on "$C" python3 -c "
import socket
for ttl in (1, 1, 1, 2, 2, 2):
    s = socket.socket(); s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl); s.settimeout(0.4)
    try: s.connect(('192.0.2.9', 80))
    except OSError: pass
    s.close()
for port in range(33434, 33440):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1 + (port - 33434) // 3)
    s.sendto(b'x' * 32, ('192.0.2.9', port))"; sleep 1; }
    record "$C" eth0 "$R/$T/not-traceroute.pcap" "" trace
    ip -n "$P" route del 192.0.2.0/24
    ip -n "$P" -6 route del 2001:db8:ffff::/48

    T=pmtu-discovered
    upload() { get "$C" --data-binary "@$TMP/upload.bin" "http://$S/upload"; }
    upload6() { get "$C" -6 --data-binary "@$TMP/upload.bin" "http://[$S6]/upload"; }
    ip -n "$P" link set eth1 mtu 1380
    record "$C" eth0 "$R/$T/upload.pcap" "" upload
    record "$C" eth0 "$R/$T/upload-ipv6.pcap" "tcp or icmp6" upload6
    on "$C" ip route flush cache
    on "$C" ip -6 route flush cache
    on "$P" iptables -A OUTPUT -p icmp -j DROP
    hole() { get "$C" -m 4 --data-binary "@$TMP/upload.bin" "http://$S/upload"; }
    record "$C" eth0 "$R/$T/not-a-black-hole.pcap" "" hole
    on "$P" iptables -F OUTPUT
    ip -n "$P" link set eth1 mtu 1500
    record "$C" eth0 "$R/$T/not-a-wide-way.pcap" "" upload
fi

if wants redirect; then
    T=icmp-redirect
    # a second router on the link of the clients; the first one knows that it is the way to this network, the clients do not
    ip netns add "$LAB-r"; LAB_MORE_NS="$LAB-r"
    ip -n "$C" link add second link eth0 type macvlan mode bridge
    ip -n "$C" link set second netns "$LAB-r" name eth0
    ip -n "$LAB-r" link set lo up
    lab_address "$LAB-r" eth0 203.0.113.200/32 192.0.2.9/32
    ip -n "$LAB-r" route add 203.0.113.1 dev eth0
    ip -n "$LAB-r" route add default via 203.0.113.1 onlink dev eth0
    nginx_start "$LAB-r" "server { listen 80; }"
    wait_port "$LAB-r" 80
    on "$C" sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.eth0.accept_redirects=0
    on "$P" sysctl -qw net.ipv4.conf.all.send_redirects=1 net.ipv4.conf.eth0.send_redirects=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0
    ip -n "$P" route add 192.0.2.0/24 via 203.0.113.200 dev eth0
    beyond() { get "$C" --interface 203.0.113.7 -m 5 http://192.0.2.9/; }
    record "$C" eth0 "$R/$T/second-router-on-the-link.pcap" "host 192.0.2.9 or icmp" beyond
    closed_by_icmp() { on "$B" iptables -A INPUT -p tcp --dport 8091 -j REJECT; get "$C" --connect-timeout 4 "http://$S:8091/"; }
    record "$C" eth0 "$R/$T/not-port-unreachable.pcap" "tcp port 8091 or icmp" closed_by_icmp
fi

if wants few; then
    T=ephemeral-ports-exhausted
    serve "$B" 7704 recv 'send:HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok' close
    many() { local i; for i in $(seq 40); do get "$C" -0 --interface 203.0.113.9 "http://$S:7704/"; done; }
    record "$C" eth0 "$R/$T/not-with-many-ports.pcap" "tcp port 7704" many
    fixed() { local i; for i in $(seq 20); do get "$C" -0 --interface 203.0.113.9 --local-port 41000 "http://$S:7704/"; sleep 0.05; done; }
    record "$C" eth0 "$R/$T/not-one-port-on-purpose.pcap" "tcp port 7704" fixed
    on "$C" sysctl -qw net.ipv4.ip_local_port_range="40000 40009"
    record "$C" eth0 "$R/$T/ten-ports.pcap" "tcp port 7704" many
    on "$C" sysctl -qw net.ipv4.ip_local_port_range="40000 60999"
fi

if wants needless; then
    T=spurious-retransmission
    spawn "$B" python3 -c "
import socket, time
listener = socket.socket(); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('', 7705)); listener.listen(8)
while True:
    connection, _ = listener.accept()
    for _ in range(700):
        connection.sendall(b'x' * 2896); time.sleep(0.02)
    connection.close()"
    wait_port "$B" 7705
    trickle() { on "$C" python3 -c "
import socket
s = socket.create_connection(('$S', 7705), 5)
while s.recv(65536): pass"; }
    longer 450 700
    SNAPLEN=96
    record "$B" eth0 "$R/$T/round-trip-jumps.pcap" "tcp port 7705" trickle
    sleep 2
    shorter
    on "$P" iptables -A FORWARD -p tcp --sport 7705 -m statistic --mode random --probability 0.04 -j DROP
    record "$B" eth0 "$R/$T/not-real-loss.pcap" "tcp port 7705" trickle
    on "$P" iptables -F FORWARD
    unset SNAPLEN
fi

if wants port; then
    T=port-reuse-collision
    OK='send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
    ASK='send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n'
    serve "$B" 7701 recv "$OK" recv "$OK" sleep:30
    serve "$B" 7702 recv "$OK" fin eof close
    once() { talk "$C" --from "203.0.113.7#$2" $S "$1" "$ASK" recv "${@:3}"; }
    forgotten() { once 7701 45001 vanish; sleep 0.5; once 7701 45001 close; }
    record "$C" eth0 "$R/$T/forgotten-connection.pcap" "tcp port 7701" forgotten
    seen_later() { # the capture begins after the older connection
        once 7701 45002 vanish
        record "$B" eth0 "$R/$T/older-one-not-in-the-capture.pcap" "tcp port 7701" once 7701 45002 close
    }
    seen_later
    # a firewall before the client lets no RST pass: nothing clears the older connection away
    once 7701 45004 vanish
    on "$P" iptables -A FORWARD -s 203.0.113.7 -p tcp --tcp-flags RST RST -j DROP
    refused() { timeout 6 ip netns exec "$C" python3 "$LAB_DIR/talk.py" --from 203.0.113.7#45004 $S 7701 "$ASK" recv >/dev/null 2>&1; }
    record "$C" eth0 "$R/$T/refusal-dropped-by-a-firewall.pcap" "tcp port 7701" refused
    on "$P" iptables -F FORWARD
    again() { once 7702 45003 eof close; sleep 0.5; once 7702 45003 eof close; }
    record "$C" eth0 "$R/$T/not-closed-before.pcap" "tcp port 7702" again

    T=handshake-reset-by-client
    gives_up() { # after so many seconds, having asked for a connection
        on "$C" python3 -c "
import socket, time
s = socket.socket(); s.setblocking(False)
try: s.connect(('$S', 80))
except BlockingIOError: pass
time.sleep($1)
s.close()"
        sleep 1
    }
    longer 700
    impatient() { ok; gives_up 0.3; gives_up 0.3; gives_up 0.3; }
    impatient_once() { ok; gives_up 0.3; }
    record "$C" eth0 "$R/$T/client-gives-up.pcap" "tcp port 80" impatient
    record "$C" eth0 "$R/$T/not-one-of-two.pcap" "tcp port 80" impatient_once
    eyeballs() { get "$C" --resolve "www.example.com:80:[$S6],203.0.113.1" "http://www.example.com/"; sleep 1; }
    nginx_start "$P" "server { listen 203.0.113.1:80; }"
    wait_port "$P" 80
    record "$C" eth0 "$R/$T/not-happy-eyeballs.pcap" "tcp port 80" eyeballs
    shorter
    longer 1300
    record "$C" eth0 "$R/$T/answer-after-the-timeout.pcap" "tcp port 80" gives_up 1.1
    shorter
    scan() { on "$C" python3 "$LAB_DIR/halfopen.py" 203.0.113.9 $S 80 80 80; sleep 0.5; }
    record "$C" eth0 "$R/$T/half-open-scan.pcap" "tcp port 80 and host 203.0.113.9" scan
    check() {
        haproxy_start "$P" "defaults
  mode tcp
  $HAPROXY_TIMES
listen web
  bind 203.0.113.1:8080
  server one $S:80 check inter 500"
        local pid=$LAST
        sleep 3
        stop "$pid"
    }
    record "$P" eth1 "$R/$T/not-haproxy-check.pcap" "tcp port 80" check
fi

if wants pace; then
    download() { # receive buffer (0: as the kernel likes)
        on "$C" python3 -c "
import socket
s = socket.socket()
if $1: s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, $1)
s.connect(('$S', 80))
s.sendall(b'GET /file.bin HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n')
while s.recv(262144): pass"
    }
    T=window-limited
    SNAPLEN=96
    record "$B" eth0 "$R/$T/not-a-short-way.pcap" "tcp port 80" download 65536
    longer 25
    record "$B" eth0 "$R/$T/small-receive-buffer.pcap" "tcp port 80" download 65536
    record "$B" eth0 "$R/$T/not-a-buffer-that-grows.pcap" "tcp port 80" download 0
    on "$C" sysctl -qw net.ipv4.tcp_window_scaling=0
    record "$B" eth0 "$R/$T/no-window-scale.pcap" "tcp port 80" download 0
    on "$C" sysctl -qw net.ipv4.tcp_window_scaling=1
    shorter

    T=rtt-high-or-rising
    longer 120
    record "$B" eth0 "$R/$T/not-a-long-way.pcap" "tcp port 80" download 0
    shorter
    on "$P" tc qdisc add dev eth0 root tbf rate 12mbit burst 16kb latency 400ms
    record "$B" eth0 "$R/$T/queue-before-a-narrow-line.pcap" "tcp port 80" download 0
    on "$P" tc qdisc replace dev eth0 root tbf rate 12mbit burst 16kb latency 12ms
    record "$B" eth0 "$R/$T/not-a-short-queue.pcap" "tcp port 80" download 0
    on "$P" tc qdisc del dev eth0 root
    unset SNAPLEN

    T=delayed-ack-nagle-stall
    spawn "$B" python3 "$LAB_DIR/smallwrites.py" serve 7703
    wait_port "$B" 7703
    ask() { on "$C" python3 "$LAB_DIR/smallwrites.py" ask $S 7703 "$1" 12; }
    record "$C" eth0 "$R/$T/two-writes.pcap" "tcp port 7703" ask nagle
    record "$B" eth0 "$R/$T/two-writes-seen-at-the-server.pcap" "tcp port 7703" ask nagle
    record "$C" eth0 "$R/$T/not-with-nodelay.pcap" "tcp port 7703" ask nodelay
    record "$C" eth0 "$R/$T/not-one-write.pcap" "tcp port 7703" ask whole
fi

if wants tickets; then
    T=upstream-hang
    # tickets of TLS 1.3 cross the request on the way: they come behind it and answer nothing
    certificates www.example.com
    serve "$B" 7603 recv sleep:90
    serve "$B" 7604 recv sleep:7 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' sleep:9 close
    haproxy_start "$B" "defaults
  mode http
  timeout connect 3s
  timeout client 60s
  timeout server 60s
frontend hangs
  bind $S:443 ssl crt $TMP/www.example.com.pem
  default_backend hangs
backend hangs
  server s $S:7603
frontend answers
  bind $S:8443 ssl crt $TMP/www.example.com.pem
  default_backend answers
backend answers
  server s $S:7604"
    wait_port "$B" 443
    longer 20
    hangs() { get "$C" -k -m 13 https://$S/ & get "$C" -k -m 14 https://$S/ & get "$C" https://$S:8443/ -k -m 15; wait $!; sleep 2; }
    record "$C" eth0 "$R/$T/tickets-cross-the-request.pcap" "tcp port 443" hangs &
    record "$C" eth0 "$R/$T/not-with-an-answer-behind-tickets.pcap" "tcp port 8443" sleep 17
    shorter
fi

if wants pooled; then
    T=rto-unrecovered
    # a proxy sends the next request on a connection that a firewall on the way has forgotten meanwhile
    certificates www.example.com
    nginx_start "$P" "upstream app { server $S:80; keepalive 4; }
      server { listen 203.0.113.1:443 ssl; ssl_certificate $TMP/www.example.com.crt; ssl_certificate_key $TMP/www.example.com.key;
        location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_read_timeout 30s; } }"
    wait_port "$P" 443
    pooled() {
        get "$C" -k https://203.0.113.1/
        on "$B" iptables -A INPUT -p tcp --dport 80 ! --syn -j DROP
        sleep 2
        get "$C" -k -m 9 https://203.0.113.1/
        on "$B" iptables -F INPUT
        sleep 0.5
    }
    record "$P" any "$R/$T/pooled-connection-behind-a-proxy.pcap" "tcp" pooled
fi
