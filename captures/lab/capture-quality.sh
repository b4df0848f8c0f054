#!/bin/bash
# Family A: what is wrong with a capture itself, and captures/broken. About 1.5 minutes.    capture-quality.sh [OUTPUT [BROKEN]]
# Real where the lab can do it (filters, snaplen, a ring that is too small, a bridge); the rest is made from the real ones by
# generate/quality.py.
. "$(dirname "$0")/lib.sh"
lab_need nginx curl iptables
OUT=${1:-$CAPTURES/rules}
BROKEN=${2:-$CAPTURES/broken}
R=$OUT
S=10.224.26.2
NAME=www.example.com
if [ -n "${LAB_KEEP_OFFLOAD:-}" ]; then
    lab_begin
    nginx_start "$B" "server { listen [::]:80 ipv6only=off; }"
    wait_port "$B" 80
    big() { get "$C" "http://$S/large.txt"; get "$C" --data-binary "@$NGINX_DIR/html/large.txt" "http://$S/"; }
    record "$B" eth0 "$R/capture-offload-artifacts/veth-tso-and-checksums.pcap" "" big
    record "$B" any "$R/capture-offload-artifacts/veth-any.pcap" "" big
    exit 0
fi
LAB_KEEP_OFFLOAD=1 "$0" "$OUT"
lab_begin
certificates $NAME
PEM=$TMP/$NAME
nginx_start "$B" "ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key;
  server { listen [::]:80 ipv6only=off; } server { listen [::]:443 ssl ipv6only=off; }"
head -c 120000 /dev/zero | tr '\0' 'v' >"$NGINX_DIR/html/video"
spawn "$B" python3 "$LAB_DIR/dns.py" 53
wait_port "$B" 80
wait_port "$B" 443
ok() { get "$C" --interface "${1:-203.0.113.7}" "http://$S/${2:-}"; }
https() { get "$C" --interface "${1:-203.0.113.7}" --resolve "$NAME:443:$S" "https://$NAME/"; }
several() { ok; ok 203.0.113.8; https; https 203.0.113.9; }
loads() { ok 203.0.113.7 large.txt; ok 203.0.113.8 large.txt; ok 203.0.113.9 large.txt; }
ASK='send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n'
mkdir -p "$TMP/raw"

T=capture-has-nothing
nothing() { sleep 1; }
record "$C" eth0 "$R/$T/quiet-interface.pcap" "tcp port 9999" nothing
record "$C" any "$R/$T/quiet-interface-any.pcap" "tcp port 9999" nothing
record "$C" eth0 "$R/$T/not-normal.pcap" "" several

T=capture-packet-loss
# a real one: in immediate mode on "any", a 2 MiB ring holds eight packets
mkdir -p "$R/$T"
ip netns exec "$C" tcpdump -Z root -U --immediate-mode -B 2048 -i any -y LINUX_SLL2 -n -s 0 -w "$R/$T/ring-too-small.pcap" "tcp port 80" >>"$TMP/tcpdump.log" 2>&1 &
SMALL=$!
PIDS+=("$SMALL")
sleep 0.6
loads
loads
capture_end "$SMALL"
tail -3 "$TMP/tcpdump.log"
record "$C" eth0 "$TMP/raw/loads.pcap" "" loads
lossy() { # every 9th data packet to the client is lost for a while
    on "$P" iptables -I FORWARD -p tcp --sport 80 -m length --length 1000:1500 -m statistic --mode nth --every 9 --packet 0 -j DROP
    ok 203.0.113.7 large.txt
    ok 203.0.113.8 large.txt
    on "$P" iptables -F FORWARD
}
record "$B" eth0 "$R/$T/not-real-loss-near-server.pcap" "" lossy
record "$C" eth0 "$R/$T/not-real-loss-near-client.pcap" "" lossy
record "$C" eth0 "$R/$T/not-complete.pcap" "" loads

T=capture-one-sided
record "$C" eth0 "$R/$T/requests-only.pcap" "src net 203.0.113.0/24" loads
record "$C" eth0 "$R/$T/answers-only.pcap" "dst net 203.0.113.0/24" loads
record "$C" eth0 "$R/$T/not-both.pcap" "" several

T=capture-starts-mid-stream
serve "$B" 7501 recv 'send:HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n' zeros:3000 sleep:1 zeros:3000 sleep:1 zeros:3000 eof:5
stream() { (talk "$C" --from "$1" $S 7501 "$ASK" sleep:2.6 recv close) & }
stream 203.0.113.7; stream 203.0.113.8; stream 203.0.113.9
sleep 0.3
rest() { sleep 2.5; }
record "$C" eth0 "$R/$T/downloads-already-running.pcap" "" rest
record "$C" eth0 "$R/$T/not-from-the-syn.pcap" "" several

T=capture-ends-early
sleep 1.5
record "$C" eth0 "$R/$T/not-all-finished.pcap" "" several
serve "$B" 7502 recv sleep:6 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' close
pending() { ok; (ok 203.0.113.8; get "$C" "http://$S:7502/") & sleep 0.7; }
record "$C" eth0 "$R/$T/request-pending.pcap" "" pending
on "$B" iptables -A INPUT -p tcp --dport 7503 -j DROP
syn() { ok; (get "$C" --connect-timeout 5 "http://$S:7503/") & sleep 0.7; }
record "$C" eth0 "$R/$T/syn-pending.pcap" "port 80 or port 7503" syn
running() { ok; (talk "$C" $S 7501 "$ASK" sleep:2.6 recv close) & sleep 0.6; }
record "$C" eth0 "$R/$T/response-running.pcap" "port 80 or port 7501" running
serve "$B" 7504 recv sleep:30
hang() { ok; (get "$C" -m 20 "http://$S:7504/") & sleep 12; ok; ok 203.0.113.8; }
record "$C" eth0 "$R/$T/not-a-hang-of-12s.pcap" "port 80 or port 7504" hang

T=capture-snaplen-truncated
SNAPLEN=96 record "$C" eth0 "$R/$T/96-octets.pcap" "" several
SNAPLEN=68 record "$P" any "$R/$T/68-octets-any.pcap" "" several
record "$C" eth0 "$R/$T/not-full.pcap" "" several
syns() { get "$C" "http://$S:9/"; get "$C" "http://$S:9/"; }
SNAPLEN=96 record "$C" eth0 "$R/$T/not-short-packets.pcap" "" syns

T=capture-duplicate-packets
record "$P" any "$R/$T/router-any.pcap" "" several
LAB_MORE_NS="$LAB-x $LAB-y $LAB-z"
for ns in $LAB_MORE_NS; do ip netns add "$ns"; ip -n "$ns" link set lo up; done
ip link add eth0 netns "$LAB-y" type veth peer name port1 netns "$LAB-x"
ip link add eth0 netns "$LAB-z" type veth peer name port2 netns "$LAB-x"
ip -n "$LAB-x" link add br0 type bridge
for port in port1 port2; do ip -n "$LAB-x" link set $port master br0; ip -n "$LAB-x" link set $port up; done
lab_address "$LAB-x" br0 192.0.2.1/24
lab_address "$LAB-y" eth0 192.0.2.7/24
lab_address "$LAB-z" eth0 192.0.2.2/24
ip netns exec "$LAB-y" python3 "$LAB_DIR/offload.py" eth0
ip netns exec "$LAB-z" python3 "$LAB_DIR/offload.py" eth0
serve "$LAB-z" 8000 recv 'send:HTTP/1.1 200 OK\r\nContent-Length: 8000\r\n\r\n' zeros:8000 close
across() { get "$LAB-y" "http://192.0.2.2:8000/"; get "$LAB-y" "http://192.0.2.2:8000/"; }
record "$LAB-x" any "$R/$T/bridge-any.pcap" "" across
record "$LAB-x" port1 "$R/$T/not-one-interface.pcap" "" across
record "$B" eth0 "$R/$T/not-retransmissions.pcap" "" lossy

T=capture-clock-jump
long() {
    local a
    for a in 203.0.113.7 203.0.113.8 203.0.113.9; do
        (talk "$C" --from $a $S 7505 'send:one' recv sleep:0.5 'send:two' recv sleep:0.5 'send:three' recv sleep:0.5 'send:four' recv sleep:0.5 'send:five' recv close) &
    done
    sleep 4
}
serve "$B" 7505 recv send:1 recv send:2 recv send:3 recv send:4 recv send:5 eof:5
record "$C" eth0 "$TMP/raw/long.pcap" "" long
idle() {
    local a
    for a in 203.0.113.7 203.0.113.8 203.0.113.9; do
        (talk "$C" --from $a $S 7505 'send:one' recv sleep:0.5 'send:two' recv sleep:7 'send:three' recv 'send:four' recv 'send:five' recv close) &
    done
    sleep 9
}
record "$C" eth0 "$R/$T/not-idle-for-7s.pcap" "" idle

T=capture-offload-artifacts
record "$B" eth0 "$R/$T/not-mss-sized.pcap" "" loads
jumbo() { ok 203.0.113.7 large.txt; }
for pair in "$C eth0" "$P eth0" "$P eth1" "$B eth0"; do ip -n ${pair% *} link set ${pair#* } mtu 9000; done
record "$B" eth0 "$R/$T/not-jumbo-frames.pcap" "" jumbo
for pair in "$C eth0" "$P eth0" "$P eth1" "$B eth0"; do ip -n ${pair% *} link set ${pair#* } mtu 1500; done

T=capture-filter-narrow
mkdir -p "$R/$T"
# dumpcap writes its filter into the file
ip netns exec "$C" dumpcap -q -i eth0 -f "tcp port 80" -w "$R/$T/one-port.pcapng" >>"$TMP/tcpdump.log" 2>&1 &
NAMED=$!
PIDS+=("$NAMED")
sleep 1.5
several
capture_end "$NAMED"
unanswered() {
    on "$B" iptables -I INPUT -p tcp --dport 8081 -j DROP
    several
    get "$C" -m 4 "http://$S:8081/"
    on "$B" iptables -F INPUT
}
record "$C" eth0 "$R/$T/tcp-only.pcap" "tcp" unanswered
record "$C" eth0 "$R/$T/not-all-well.pcap" "tcp" several
wide() {
    ip -n "$C" neigh flush dev eth0
    echo_request "$C" $S
    on "$C" sh -c "printf 'nameserver $S\n' >$TMP/resolv.conf; mount --bind $TMP/resolv.conf /etc/resolv.conf; curl -s -m 5 -o /dev/null http://www.example.com/"
    several
}
record "$C" eth0 "$R/$T/not-narrow.pcap" "" wide

python3 "$LAB_DIR/generate/quality.py" "$TMP/raw" "$R" "$BROKEN"
rm -rf "$R/capture-file-damaged/"*.txt
ls "$BROKEN"
