#!/bin/bash
# Ways that are open in one direction only, as a router and a server see them: a server with two gateways, whose answers the second
# one's firewall drops, seen at the router that its clients come through; and a filter that lets SYNs pass and nothing after them.
# Real nginx and curl; about 45 s.     one-way.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need nginx curl iptables
OUT=${1:-$CAPTURES/rules}
SERVER=192.0.2.124
lab_begin
V=$LAB-v N=$LAB-n
LAB_MORE_NS="$V $N"
for ns in $V $N; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
done
ip link add eth2 netns "$P" type veth peer name eth1 netns "$V"
ip link add eth3 netns "$P" type veth peer name wan netns "$N"
ip link add lan netns "$N" type veth peer name eth0 netns "$V"
lab_address "$P" eth2 192.0.2.1/25
lab_address "$P" eth3 192.0.2.129/25
lab_address "$N" wan 192.0.2.137/25
lab_address "$N" lan 10.1.0.1/24
lab_address "$V" eth0 10.1.0.101/24
lab_address "$V" eth1 $SERVER/25
on "$P" python3 "$LAB_DIR/offload.py" eth2 eth3
on "$N" python3 "$LAB_DIR/offload.py" wan lan
on "$V" python3 "$LAB_DIR/offload.py" eth0 eth1
on "$N" sysctl -qw net.ipv4.ip_forward=1
for ns in $P $N $V; do for dev in all default eth0 eth1 eth2 eth3 wan lan; do on "$ns" sysctl -qw net.ipv4.conf.$dev.rp_filter=0 2>/dev/null; done; done
ip -n "$N" route add default via 192.0.2.129
ip -n "$V" route replace default via 192.0.2.1 dev eth1 metric 100
nginx_start "$V" "server { listen 80; }"
nginx_start "$V" "server { listen 8080; }"
wait_port "$V" 80
wait_port "$V" 8080
for a in 192.0.2.1 10.1.0.1; do echo_request "$V" $a; done
echo_request "$N" 192.0.2.129
all() { for client in 203.0.113.7 203.0.113.8 203.0.113.9; do get "$C" -m 4 --interface $client http://$SERVER/; done; }

on "$P" iptables -A FORWARD -o eth2 -p tcp --dport 80 ! --tcp-flags SYN SYN -j DROP
silent() { all; get "$C" -m 4 http://$SERVER:8080/; }
record "$V" eth1 "$OUT/return-path-lost/nothing-after-the-syn.pcap" "" silent
on "$P" iptables -F
on "$V" ss -K dst 203.0.113.0/24 >/dev/null 2>&1

ip -n "$V" route replace default via 10.1.0.1 dev eth0 metric 10
on "$N" iptables -A FORWARD -s $SERVER -p tcp -m length --length 61:65535 -j DROP
record "$P" any "$OUT/asymmetric-return-path/at-a-router-answers-dropped.pcap" "" all
on "$N" iptables -F
on "$N" iptables -A FORWARD -s $SERVER -p tcp ! --tcp-flags SYN SYN -j DROP
record "$P" any "$OUT/asymmetric-return-path/at-a-router-acknowledgments-dropped.pcap" "" all
on "$N" iptables -F
record "$P" any "$OUT/asymmetric-return-path/not-at-a-router-that-works.pcap" "" all
