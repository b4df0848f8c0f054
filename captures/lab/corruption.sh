#!/bin/bash
# corrupt-segments: octets that are turned over on the way, and what only looks like it. About 20 s.    corruption.sh [OUTPUT]
# The damage comes from two-ends.sh (a middle in user space, scenario "corruption" with other chances than in captures/two-ends); the loss
# behind unfinished checksums is made by iptables on a router between veth pairs that keep their offloads.
. "$(dirname "$0")/lib.sh"
lab_need nginx curl iptables
OUT=${1:-$CAPTURES/rules}
R=$OUT/corrupt-segments
S=10.224.26.2
mkdir -p "$R"
ENDS=$(mktemp -d /tmp/tcpwhy-ends.XXXXXX)
TWO_ENDS_SEED=21 "$LAB_DIR/two-ends.sh" "$ENDS" corruption
cp "$ENDS/corruption/client.pcap" "$R/one-octet-turned-over.pcap"
cp "$ENDS/corruption/server.pcap" "$R/not-at-the-sender.pcap"
cat "$ENDS/corruption/counters.tsv"
rm -rf "$ENDS"

LAB_KEEP_OFFLOAD=1
lab_begin
nginx_start "$B" "server { listen 7661; }"
wait_port "$B" 7661
seq -f 'line %06g of a text that never says the same twice' 8000 >"$NGINX_DIR/html/text"
lossy() { # one of twelve large packets of the server gets lost behind the capture
    on "$P" iptables -A FORWARD -p tcp --sport 7661 -m length --length 1000:65535 -m statistic --mode random --probability 0.08 -j DROP
    local i
    for i in 1 2 3; do get "$C" -m 20 "http://$S:7661/text"; done
    on "$P" iptables -F FORWARD
}
record "$B" eth0 "$R/not-unfinished-and-lost.pcap" "tcp port 7661" lossy
