#!/bin/bash
# Family D: connections that are refused, dropped, slow to open, or wait in a full queue. About 1.5 minutes.    connect.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need nginx apache2 curl iptables
OUT=${1:-$CAPTURES/rules}
R=$OUT
S=10.224.26.2
lab_begin
nginx_start "$B" "server { listen [::]:80 ipv6only=off; } server { listen 10.224.26.2:8088; }"
nginx_start "$P" "proxy_connect_timeout 9s;
  server { listen 203.0.113.1:80; location / { proxy_pass http://$S:9; } } server { listen 203.0.113.1:8081; location / { proxy_pass http://$S:7001; } }"
wait_port "$B" 80
wait_port "$P" 80
ok() { get "$C" --interface "${1:-203.0.113.7}" "http://$S/"; }
job() { LAB_DELAY=2 "$@" & JOBS+=($!); } # all captures run before the first case begins
JOBS=()
join() { wait "${JOBS[@]}"; JOBS=(); }
drop() { on "$B" iptables -A INPUT -p tcp --dport "$1" -j DROP; }

T=connect-refused
refused() { ok; get "$C" "http://$S:9/"; get "$C" --interface 203.0.113.8 "http://$S:9/"; ok 203.0.113.8; }
record "$C" eth0 "$R/$T/closed-port.pcap" "" refused
six() { get "$C" -6 "http://[2001:db8:b::2]:9/"; }
record "$C" eth0 "$R/$T/closed-port-ipv6.pcap" "" six
proxied() { get "$C" "http://203.0.113.1/"; get "$C" --interface 203.0.113.8 "http://203.0.113.1/"; }
record "$P" any "$R/$T/nginx-upstream.pcap" "" proxied
on "$B" iptables -A INPUT -p tcp --dport 8089 -j REJECT --reject-with tcp-reset
rejected() { get "$C" "http://$S:8089/"; }
record "$C" eth0 "$R/$T/firewall-tcp-reset.pcap" "" rejected
restart() {
    serve "$B" 8090 'recv' 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' close
    local first=$LAST
    get "$C" "http://$S:8090/"; sleep 0.4
    stop "$first"
    get "$C" "http://$S:8090/"
    sleep 1.5
    serve "$B" 8090 'recv' 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' close
    get "$C" "http://$S:8090/"; get "$C" "http://$S:8090/"; sleep 1
    get "$C" --interface 203.0.113.8 "http://$S:8090/"
}
record "$C" eth0 "$R/$T/not-restart-window.pcap" "" restart
eyeballs() { get "$C" --resolve "www.example.com:8088:[2001:db8:b::2],$S" "http://www.example.com:8088/"; }
record "$C" eth0 "$R/$T/not-happy-eyeballs.pcap" "" eyeballs
on "$B" iptables -A INPUT -p tcp --dport 8091 -j REJECT
icmp() { get "$C" "http://$S:8091/"; }
record "$C" eth0 "$R/$T/not-icmp-port-unreachable.pcap" "" icmp
record "$C" eth0 "$R/$T/not-answered.pcap" "" ok

T=connect-timeout
for port in 7001 7002 7003 7004 7005; do drop $port; done
ip -n "$P" neigh add 10.224.26.99 lladdr 02:00:00:00:00:99 dev eth1 nud permanent
dropped() { ok; get "$C" --connect-timeout 9.5 "http://$S:7002/"; ok; }
near_server() { ok; get "$C" --connect-timeout 9.5 "http://$S:7003/"; ok; }
long() { ok; get "$C" -m 40 --connect-timeout 38 "http://$S:7005/"; }
dead() { ok; get "$C" --connect-timeout 9 "http://10.224.26.99:8099/"; }
still() { ok; (get "$C" --connect-timeout 20 "http://$S:7004/" &) ; sleep 8.3; }
ok6() { get "$C" -6 "http://[2001:db8:b::2]/"; }
dead6() { ok6; on "$B" ip6tables -A INPUT -p tcp --dport 7006 -j DROP; get "$C" -6 --connect-timeout 9 "http://[2001:db8:b::2]:7006/"; ok6; }
via_nginx() { get "$C" -m 12 "http://203.0.113.1:8081/"; }
one_second() { (get "$C" --connect-timeout 4 "http://$S:7002/" --interface 203.0.113.9 &) ; sleep 1.0; }
job record "$C" eth0 "$R/$T/firewall-drop-near-client.pcap" "host 10.224.26.2 and tcp port 80 or tcp port 7002 and not host 203.0.113.9 or icmp or arp" dropped
job record "$B" eth0 "$R/$T/firewall-drop-near-server.pcap" "host 10.224.26.2 and tcp port 80 or tcp port 7003 or icmp or arp" near_server
job record "$C" eth0 "$R/$T/linux-schedule-38s.pcap" "host 10.224.26.2 and tcp port 80 or tcp port 7005 or icmp or arp" long
job record "$C" eth0 "$R/$T/dead-address.pcap" "tcp port 80 and host 10.224.26.2 or host 10.224.26.99 or icmp or arp" dead
job record "$C" eth0 "$R/$T/still-waiting-at-the-end.pcap" "host 10.224.26.2 and tcp port 80 or tcp port 7004 or icmp or arp" still
job record "$C" eth0 "$R/$T/firewall-drop-ipv6.pcap" "tcp port 7006 or (ip6 and tcp port 80) or icmp6" dead6
job record "$P" any "$R/$T/nginx-upstream.pcap" "tcp port 8081 or tcp port 7001 or icmp or arp" via_nginx
job record "$C" eth0 "$R/$T/not-capture-ended-early.pcap" "host 203.0.113.9" one_second
join
several() { ok; ok 203.0.113.8; ok 203.0.113.9; }
record "$C" eth0 "$R/$T/not-one-sided.pcap" "src net 203.0.113.0/24" several
record "$C" eth0 "$R/$T/not-refused.pcap" "" refused
on "$B" iptables -A INPUT -p tcp --dport 8092 -j REJECT --reject-with icmp-admin-prohibited
admin() { get "$C" --connect-timeout 6 "http://$S:8092/"; }
record "$C" eth0 "$R/$T/not-icmp-admin-prohibited.pcap" "" admin

T=connect-slow
slow() { # the first SYN of each connection is lost
    on "$B" iptables -I INPUT -p tcp --dport 80 --syn -j DROP
    (sleep 0.5; on "$B" iptables -D INPUT -p tcp --dport 80 --syn -j DROP) &
    local off=$!
    ok "$1"
    wait $off
}
slow_thrice() { ok; slow 203.0.113.7; sleep 0.3; slow 203.0.113.8; sleep 0.3; slow 203.0.113.9; ok; }
record "$C" eth0 "$R/$T/first-syn-lost.pcap" "" slow_thrice
slow_two() {
    on "$B" iptables -I INPUT -p tcp --dport 80 --syn -j DROP
    (sleep 1.5; on "$B" iptables -D INPUT -p tcp --dport 80 --syn -j DROP) &
    local off=$!
    ok
    wait $off
    ok
}
record "$C" eth0 "$R/$T/two-syns-lost.pcap" "" slow_two
slow_answer() { # the first SYN-ACK is lost on the way back, seen near the server
    on "$P" iptables -I FORWARD -p tcp --sport 80 --tcp-flags SYN,ACK SYN,ACK -j DROP
    (sleep 0.5; on "$P" iptables -D FORWARD -p tcp --sport 80 --tcp-flags SYN,ACK SYN,ACK -j DROP) &
    local off=$!
    ok
    wait $off
    ok
}
record "$B" eth0 "$R/$T/syn-ack-lost.pcap" "" slow_answer
record "$C" eth0 "$R/$T/not-fast.pcap" "" ok
python3 "$LAB_DIR/generate/connect.py" "$R"

T=accept-queue-overflow
queue() { # port
    serve "$B" "$1" backlog:1 no-accept
    local i jobs=()
    for i in 1 2 3 4 5 6; do
        (timeout 7.5 ip netns exec "$C" python3 "$LAB_DIR/talk.py" $S "$1" 'send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n' sleep:30 >/dev/null 2>&1) &
        jobs+=($!)
        sleep 0.05
    done
    wait "${jobs[@]}"
}
queue_a() { queue 7101; }
queue_b() { queue 7102; }
job record "$C" eth0 "$R/$T/backlog-1-near-client.pcap" "tcp port 7101 or icmp or arp" queue_a
job record "$B" eth0 "$R/$T/backlog-1-on-the-server.pcap" "tcp port 7102 or icmp or arp" queue_b
stands_still() { # the application stops; its kernel goes on accepting for a while, until the queue is full
    serve "$B" 7104 backlog:2 no-accept
    local i jobs=()
    for i in 1 2 3 4 5 6 7; do
        (timeout 6 ip netns exec "$C" python3 "$LAB_DIR/talk.py" $S 7104 'send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n' sleep:30 >/dev/null 2>&1) &
        jobs+=($!)
        sleep 0.7
    done
    wait "${jobs[@]}"
}
job record "$C" eth0 "$R/$T/application-stands-still.pcap" "tcp port 7104 or icmp or arp" stands_still
dead_port() {
    local i jobs=()
    for i in 7 8 9; do
        (get "$C" --interface 203.0.113.$i --connect-timeout 6 "http://$S:7002/") &
        jobs+=($!)
    done
    ok; ok; ok
    wait "${jobs[@]}"
}
job record "$C" eth0 "$R/$T/not-one-dead-port.pcap" "tcp port 7002 or tcp port 80 or icmp or arp" dead_port
busy() { local i jobs=(); for i in 1 2 3 4 5 6 7 8; do (ok) & jobs+=($!); done; wait "${jobs[@]}"; }
join
record "$C" eth0 "$R/$T/not-busy-but-fine.pcap" "" busy
SHARED=${TCPWHY_REAL_CAPTURES:-}
[ -n "$SHARED" ] && cp "$SHARED/accept-queue-overflow.pcap" "$R/$T/backlog-1-first-lab.pcap"
true
