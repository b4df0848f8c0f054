#!/bin/bash
# Incident S0: a host with two default routes is asked on eth1 and answers on eth0, through a NAT box that never saw the SYN.
# About 100 s.     asymmetric.sh [OUTPUT]
#
#   client 203.0.113.7 -- internet (the proxy namespace) -- 192.0.2.1   ==  192.0.2.124 eth1 VM
#                                                        -- 192.0.2.137 NAT 10.1.0.1 == 10.1.0.101 eth0 VM
. "$(dirname "$0")/lib.sh"
lab_need nginx curl iptables
OUT=${1:-$CAPTURES/incidents/asymmetric}
mkdir -p "$OUT"
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
lab_address "$V" eth1 192.0.2.124/25
on "$P" python3 "$LAB_DIR/offload.py" eth2 eth3
on "$N" python3 "$LAB_DIR/offload.py" wan lan
on "$V" python3 "$LAB_DIR/offload.py" eth0 eth1
on "$N" sysctl -qw net.ipv4.ip_forward=1
for ns in $P $N $V; do on "$ns" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0; done
for dev in eth0 eth1; do on "$V" sysctl -qw "net.ipv4.conf.$dev.rp_filter=0"; done
for dev in lan wan; do on "$N" sysctl -qw "net.ipv4.conf.$dev.rp_filter=0"; done
ip -n "$N" route add default via 192.0.2.129
on "$N" iptables -t nat -A PREROUTING -i wan -p tcp --dport 80 -j DNAT --to-destination 10.1.0.101
on "$N" iptables -t nat -A POSTROUTING -o wan -j MASQUERADE
two_routes() { # the fault: both gateways are default, the one of eth0 wins
    ip -n "$V" route replace default via 192.0.2.1 dev eth1 metric 100
    ip -n "$V" route replace default via 10.1.0.1 dev eth0 metric 10
}
eth1_only() { ip -n "$V" route del default via 10.1.0.1 dev eth0 metric 10; }
nginx_start "$V" "server { listen 80; }"
wait_port "$V" 80
serve "$V" 81 recv sleep:20
# neighbours are known before the first capture
echo_request "$V" 192.0.2.1
echo_request "$V" 10.1.0.1
echo_request "$N" 192.0.2.129
echo_request "$C" 203.0.113.1
two_routes

forget() { on "$V" ss -K dst 203.0.113.7 >/dev/null 2>&1; on "$C" ss -K dst 192.0.2.124 >/dev/null 2>&1; sleep 0.3; } # what still hangs
ask() { # address seconds [port]
    on "$C" curl -s -m "$2" -o /dev/null -w "  $1 %{http_code} %{errormsg}\n" --interface 203.0.113.7 "http://$1:${3:-80}/" </dev/null
}
control() { ask 192.0.2.137 3; }
ping_it() { echo_request "$C" 192.0.2.124 && echo "  ping: answered" || echo "  ping: no answer"; }
touch_port() { talk "$C" 192.0.2.124 80 sleep:0.3 rst; }
story() { # controls, ping, a bare connect and five requests; the last one still hangs when the capture ends
    local i
    control; ping_it; control
    touch_port
    for i in 1 2 3 4; do
        ask 192.0.2.124 3
        control
    done
    ask 192.0.2.124 8 & local last=$!
    sleep 2.5
    capture_end "$@"
    wait "$last"
}
many() { # suffix: every point of the capture at once; $POINTS are their process ids
    POINTS=()
    capture "$V" any "$OUT/vm-any-$1.pcap"; POINTS+=("$LAST")
    capture "$V" eth0 "$OUT/vm-eth0-$1.pcap"; POINTS+=("$LAST")
    capture "$V" eth1 "$OUT/vm-eth1-$1.pcap"; POINTS+=("$LAST")
    capture "$C" eth0 "$OUT/client-$1.pcap"; POINTS+=("$LAST")
}

echo "masqueraded; the client's firewall drops strangers:"
on "$C" iptables -A INPUT -p tcp -s 192.0.2.137 --sport 80 -m conntrack --ctstate INVALID,NEW -j DROP
many hang
story "${POINTS[@]}"

forget
echo "mid-stream: the capture begins a second after the request, and ends while it hangs:"
ask 192.0.2.124 7 & LATE=$!
sleep 1
capture "$V" any "$OUT/vm-any-mid-stream.pcap"; M=$LAST
sleep 4
capture_end "$M"
wait "$LATE"
on "$C" iptables -F INPUT

forget
echo "masqueraded; the client resets strangers:"
many rst
story "${POINTS[@]}"

forget
echo "the NAT box drops what it has no connection for:"
on "$N" iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP
many drop
story "${POINTS[@]}"
on "$N" iptables -F FORWARD

forget
echo "look-alike: one way in and out, the server hangs:"
eth1_only
hangs() { ask 192.0.2.124 2; ask 192.0.2.124 2 81; ask 192.0.2.124 2 81; ask 192.0.2.124 2; }
record "$V" any "$OUT/not-server-hangs.pcap" "" hangs

forget
echo "look-alike: one way in and out, a firewall on it drops the answers:"
on "$P" iptables -A FORWARD -i eth2 -s 192.0.2.124 -p tcp --sport 80 ! --tcp-flags SYN,ACK SYN,ACK -j DROP
lost() { ping_it; ask 192.0.2.124 3; ask 192.0.2.124 3; ask 192.0.2.124 3; }
record "$V" any "$OUT/not-firewall-on-the-way-back.pcap" "" lost
on "$P" iptables -F FORWARD

forget
echo "healthy: two uplinks with a routing table for each:"
two_routes
on "$V" ip rule add from 192.0.2.124 table 55
on "$V" ip route add default via 192.0.2.1 dev eth1 table 55
cured() { control; ask 192.0.2.124 3; ping_it; ask 192.0.2.124 3; control; }
record "$V" any "$OUT/not-two-uplinks-policy-routing.pcap" "" cured
ls -l "$OUT"
