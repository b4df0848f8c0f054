#!/bin/bash
# Family B: neighbours that do not answer, two that do, takeovers, and what ICMP says. About 1 minute.    link-faults.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need nginx curl iptables arping bridge
R=${1:-$CAPTURES/rules}
lab_begin
S=10.224.26.2
nginx_start "$B" "server { listen [::]:80 ipv6only=off; }"
wait_port "$B" 80
ok() { get "$C" "http://$S/"; }
ok_p() { get "$P" "http://$S/"; }

T=icmp-admin-prohibited
on "$B" iptables -A INPUT -p tcp --dport 8092 -j REJECT --reject-with icmp-admin-prohibited
on "$P" iptables -A FORWARD -p tcp --dport 8093 -j REJECT --reject-with icmp-net-prohibited
on "$B" ip6tables -A INPUT -p tcp --dport 8092 -j REJECT --reject-with icmp6-adm-prohibited
server() { ok; get "$C" --connect-timeout 6 "http://$S:8092/"; ok; }
router() { ok; get "$C" --connect-timeout 6 "http://$S:8093/"; ok; }
six() { get "$C" -6 --connect-timeout 6 "http://[2001:db8:b::2]:8092/"; }
record "$C" eth0 "$R/$T/reject-on-the-server.pcap" "" server
record "$C" eth0 "$R/$T/reject-on-the-router.pcap" "" router
record "$C" eth0 "$R/$T/reject-ipv6.pcap" "" six
serve "$B" 8094 'recv' 'sleep:6' 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' close
established() { # the rule comes while a connection is open, for one of its packets
    talk "$C" $S 8094 'send:GET / HTTP/1.1\r\n\r\n' 'sleep:3' 'send:x' 'sleep:3' & local pid=$!
    sleep 1.5
    on "$B" iptables -I INPUT -p tcp --dport 8094 --tcp-flags PSH PSH -j REJECT --reject-with icmp-admin-prohibited
    sleep 2.5
    on "$B" iptables -D INPUT -p tcp --dport 8094 --tcp-flags PSH PSH -j REJECT --reject-with icmp-admin-prohibited
    wait $pid
}
record "$C" eth0 "$R/$T/not-established.pcap" "" established

T=icmp-port-unreachable
on "$B" iptables -A INPUT -p tcp --dport 8091 -j REJECT
reject() { ok; get "$C" --connect-timeout 6 "http://$S:8091/"; }
record "$C" eth0 "$R/$T/reject-default.pcap" "" reject
udp() { on "$C" python3 -c "
import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.connect(('$S',9999)); s.settimeout(0.5)
for _ in range(3):
    try: s.send(b'hello'); s.recv(9)
    except OSError: pass"; }
record "$C" eth0 "$R/$T/udp-no-listener.pcap" "" udp
closed() { get "$C" "http://$S:9/"; }
record "$C" eth0 "$R/$T/not-closed-port.pcap" "" closed
trace() { on "$C" python3 -c "
import socket
for port in range(33434,33440):
    s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.setsockopt(socket.IPPROTO_IP,socket.IP_TTL,1+(port-33434)//3); s.sendto(b'x'*32,('$S',port))"; sleep 0.3; }
record "$C" eth0 "$R/$T/not-traceroute.pcap" "" trace

T=icmp-destination-unreachable
host_gone() { ok; get "$C" --connect-timeout 8 "http://10.224.26.77/"; }
record "$C" eth0 "$R/$T/host-behind-the-router.pcap" "" host_gone
on "$P" ip route add unreachable 192.0.2.0/24
on "$P" ip route add prohibit 198.18.0.0/24
no_route() { get "$C" --connect-timeout 6 "http://192.0.2.9/"; }
record "$C" eth0 "$R/$T/route-unreachable.pcap" "" no_route
prohibit() { get "$C" --connect-timeout 6 "http://198.18.0.9/"; }
record "$C" eth0 "$R/$T/not-prohibited.pcap" "" prohibit

T=neighbor-unresolved
vain() { ok_p; get "$P" --connect-timeout 8 "http://10.224.26.77/"; get "$P" --connect-timeout 8 "http://10.224.26.77/"; ok_p; on "$P" arping -c 1 -I eth1 $S >/dev/null; }
record "$P" eth1 "$R/$T/no-such-host.pcap" "" vain
far() { ok; get "$C" --connect-timeout 8 "http://10.224.26.78/"; on "$P" arping -c 1 -I eth1 $S >/dev/null; ok; }
record "$P" any "$R/$T/on-the-router.pcap" "" far
sweep() { ok_p; on "$P" python3 -c "
import socket
for last in range(100,112):
    s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.setblocking(False)
    try: s.sendto(b'x',('10.224.26.%d'%last,9))
    except OSError: pass"; sleep 3.5; on "$P" arping -c 1 -I eth1 $S >/dev/null; }
record "$P" eth1 "$R/$T/not-sweep.pcap" "" sweep
late() { # the host comes up after the second question
    ok_p
    ( sleep 1.5; ip -n "$B" addr add 10.224.26.79/24 dev eth0 ) & local pid=$!
    get "$P" --connect-timeout 6 "http://10.224.26.79/"
    wait $pid
}
record "$P" eth1 "$R/$T/not-answered-late.pcap" "" late

# a bridge with three hosts: proxy's eth2, backend's eth1, and a second machine
ip netns add "$LAB-d"; LAB_MORE_NS="$LAB-d $LAB-br"
ip netns add "$LAB-br"
ip -n "$LAB-br" link add br0 type bridge stp_state 0 forward_delay 0
ip -n "$LAB-br" link set br0 up
plug() { # namespace interface address mac
    ip link add "$2" netns "$1" type veth peer name "$1" netns "$LAB-br"
    ip -n "$LAB-br" link set "$1" master br0 up
    ip -n "$1" link set "$2" address "$4"
    ip netns exec "$1" sysctl -qw "net.ipv6.conf.$2.disable_ipv6=1"
    ip -n "$1" addr add "$3" dev "$2"
    ip -n "$1" link set "$2" up
}
plug "$P" lan 172.31.5.1/24 02:00:00:00:05:01
plug "$B" lan 172.31.5.9/24 02:00:00:00:05:0a
plug "$LAB-d" lan 172.31.5.9/24 02:00:00:00:05:0b
ip -n "$LAB-d" link set lo up

T=duplicate-address
twice() {
    on "$P" arping -c 3 -I lan 172.31.5.9 >/dev/null
    get "$P" -m 2 "http://172.31.5.9/"
    ip -n "$P" neigh flush dev lan
    get "$P" -m 2 "http://172.31.5.9/"
}
record "$P" lan "$R/$T/two-answers.pcap" "" twice
turns() { # each announces the address, by turns
    local i
    for i in 1 2; do
        on "$B" arping -U -c 1 -I lan 172.31.5.9 >/dev/null
        sleep 0.8
        on "$LAB-d" arping -U -c 1 -I lan 172.31.5.9 >/dev/null
        sleep 0.8
    done
}
record "$P" lan "$R/$T/announced-by-turns.pcap" "" turns

T=gateway-moved
ip -n "$LAB-d" addr flush dev lan
ip netns exec "$B" sysctl -qw net.ipv4.ip_forward=1
ip -n "$LAB-d" addr add 172.31.5.254/24 dev lan
ip -n "$LAB-d" addr add 192.0.2.80/32 dev lo
ip -n "$B" addr add 192.0.2.80/32 dev lo
ip -n "$P" route replace 192.0.2.80/32 via 172.31.5.254
spawn "$LAB-d" python3 -m http.server 8000 --bind 192.0.2.80
sleep 0.7
takeover() {
    on "$P" arping -c 1 -I lan 172.31.5.254 >/dev/null
    talk "$P" 192.0.2.80 8000 'send:GET / HTTP/1.1\r\n' 'sleep:2' 'send:Host: x\r\n\r\n' 'sleep:3' & local pid=$!
    sleep 1
    ip -n "$LAB-d" addr del 172.31.5.254/24 dev lan
    ip -n "$LAB-d" link set lan down
    ip -n "$B" addr add 172.31.5.254/24 dev lan
    sleep 0.3
    on "$B" arping -U -c 2 -I lan 172.31.5.254 >/dev/null
    wait $pid
}
record "$P" lan "$R/$T/backup-takes-over.pcap" "" takeover
ip -n "$LAB-d" link set lan up
cp "$R/duplicate-address/announced-by-turns.pcap" "$R/gateway-moved/not-by-turns.pcap"
cp "$R/gateway-moved/backup-takes-over.pcap" "$R/duplicate-address/not-takeover.pcap"

T=link-restart-signs
restart() { # three hosts come up again and announce themselves
    ip -n "$LAB-d" addr add 172.31.5.30/24 dev lan 2>/dev/null
    ip -n "$B" link set lan down; ip -n "$LAB-d" link set lan down; ip -n "$P" link set lan down
    sleep 0.5
    ip -n "$B" link set lan up; ip -n "$LAB-d" link set lan up; ip -n "$P" link set lan up
    sleep 0.5
    on "$B" arping -U -c 1 -I lan 172.31.5.9 >/dev/null
    on "$LAB-d" arping -U -c 1 -I lan 172.31.5.30 >/dev/null
    on "$P" arping -U -c 1 -I lan 172.31.5.1 >/dev/null
}
watch_bridge() { record "$LAB-br" br0 "$@"; }
watch_bridge "$R/$T/three-hosts-come-back.pcap" "" restart
stp() { # a second bridge is plugged in: the first one's spanning tree changes
    ip -n "$LAB-br" link set br0 type bridge stp_state 1 forward_delay 400 hello_time 100
    ip -n "$LAB-br" link set "$P" down
    sleep 0.5
    ip -n "$LAB-br" link set "$P" up
    sleep 11
    on "$B" true
}
record "$B" lan "$R/$T/spanning-tree-changes.pcap" "" stp
one() { on "$B" arping -U -c 2 -I lan 172.31.5.9 >/dev/null; sleep 0.5; }
record "$P" lan "$R/$T/not-one-host.pcap" "not ether proto 0x0026 and arp" one
