#!/bin/bash
# Family C: the way packets take. About 1 minute (two pauses of 33 s, side by side).
# path.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need nginx curl iptables
R=${1:-$CAPTURES/rules}
S=10.224.26.2
lab_begin
nginx_start "$B" "keepalive_timeout 75s; server { listen 80; listen 8080; }"
wait_port "$B" 80
ASK='send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n'
serve "$B" 7301 recv sleep:20
wait_port "$B" 7301
forward() { on "$P" iptables -A FORWARD "$@"; }
open_again() { on "$P" iptables -F FORWARD; }
get_any() { on "$C" curl -s -o /dev/null -m "${1:-5}" "http://${2:-$S}/${3:-}"; return 0; }

# asymmetric-return-path: a router seen with -i any hears and answers each end by one interface
record "$P" any "$R/asymmetric-return-path/not-a-router.pcap" "tcp port 80" get_any

# reply-from-other-address: destination NAT as it should be, seen on the NAT box
on "$P" iptables -t nat -A PREROUTING -p tcp -d 35.229.69.78 --dport 80 -j DNAT --to-destination $S:80
record "$P" any "$R/reply-from-other-address/not-destination-nat.pcap" "tcp port 80" get_any 5 35.229.69.78
on "$P" iptables -t nat -F

# stateful-drop-after-handshake: the firewall lets pure ACKs pass and drops what has payload
forward -s 203.0.113.7 -p tcp --dport 80 -m length --length 60:65535 ! --syn -j DROP
record "$C" eth0 "$R/stateful-drop-after-handshake/firewall-drops-data.pcap" "tcp port 80" get_any 5
open_again
hang() { on "$C" timeout 5 python3 "$LAB_DIR/talk.py" $S 7301 "$ASK" sleep:4; return 0; }
record "$C" eth0 "$R/stateful-drop-after-handshake/not-a-server-that-thinks.pcap" "tcp port 7301" hang

# return-path-lost: after the handshake nothing of the server passes; seen at the server
forward -s $S -p tcp --sport 80 ! --tcp-flags SYN SYN -j DROP
record "$B" eth0 "$R/return-path-lost/answers-dropped-at-the-server.pcap" "tcp port 80" get_any 5
open_again
# the SYN+ACKs are lost
forward -s $S -p tcp --sport 80 --tcp-flags SYN SYN -j DROP
record "$B" eth0 "$R/return-path-lost/syn-acks-dropped-at-the-server.pcap" "tcp port 80" get_any 8
open_again
# look-alike: one answer lost, then it recovers
forward -s $S -p tcp --sport 80 -m length --length 200:65535 -m connbytes --connbytes 0:3 --connbytes-dir reply --connbytes-mode packets -j DROP
record "$B" eth0 "$R/return-path-lost/not-one-answer-lost.pcap" "tcp port 80" get_any 5
open_again

# middlebox-reset: a content filter on the router answers in the name of the server, which is 14 hops farther away by its TTL
on "$B" sysctl -qw net.ipv4.ip_default_ttl=50
forward -s 203.0.113.7 -p tcp --dport 80 -m string --algo bm --string forbidden -j REJECT --reject-with tcp-reset
twice() { on "$C" timeout 5 python3 "$LAB_DIR/talk.py" $S 80 "$ASK" recv sleep:0.1 "${ASK/www/forbidden.www}" recv; return 0; }
record "$C" eth0 "$R/middlebox-reset/content-filter.pcap" "tcp port 80 and host 203.0.113.7" twice
open_again
on "$B" sysctl -qw net.ipv4.ip_default_ttl=64
serve "$B" 7302 recv rst
wait_port "$B" 7302
abort() { on "$C" timeout 5 python3 "$LAB_DIR/talk.py" $S 7302 "$ASK" recv; }
record "$C" eth0 "$R/middlebox-reset/not-a-server-that-resets.pcap" "tcp port 7302" abort

# idle-flow-expired: the router remembers an idle connection for 10 s only and takes no connection up in the middle
on "$P" sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_established=10 net.netfilter.nf_conntrack_tcp_loose=0
forward -p tcp --dport 80 -m conntrack --ctstate INVALID -j REJECT --reject-with tcp-reset
forward -p tcp --dport 8080 -m conntrack --ctstate INVALID -j DROP
idle() { on "$C" timeout 50 python3 "$LAB_DIR/talk.py" $S "$1" "$ASK" recv sleep:33 "$ASK" "sleep:${2:-1}"; return 0; }
record "$C" eth0 "$R/idle-flow-expired/refused.pcap" "tcp port 80" idle 80 &
ONE=$!
record "$C" eth0 "$R/idle-flow-expired/dropped.pcap" "tcp port 8080" idle 8080 5 &
TWO=$!
wait $ONE $TWO
open_again
record "$C" eth0 "$R/idle-flow-expired/not-survived.pcap" "tcp port 80" idle 80
