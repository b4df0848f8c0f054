#!/bin/bash
# How many packets a second are watched without a drop, beside `tcpdump -w /dev/null` on the same interface under the same load: iperf3
# (UDP at fixed rates, TCP in small segments) and wrk against nginx. Prints a table; programs take turns. About 4 minutes.
#     load.sh PROGRAM [SECONDS OF EACH RUN]
. "$(dirname "$0")/lib.sh"
PROGRAM=$(realpath "${1:?which program: load.sh PROGRAM}")
SECONDS_EACH=${2:-8}
lab_need iperf3 wrk nginx
lab_begin
nginx_start "$P" 'server { listen 203.0.113.1:80; keepalive_requests 100000000; location / { return 200 "0123456789abcdef"; } }'
spawn "$P" iperf3 -s
wait_port "$P" 80
wait_port "$P" 5201

watch_it() { # tcpdump | tcpwhy           $WATCH is its process id
    if [ "$1" = tcpdump ]; then
        ip netns exec "$P" tcpdump -i eth0 -nn -B 32768 -Z root -w /dev/null 2>"$TMP/watch.err" &
    else
        ip netns exec "$P" "$PROGRAM" live -i eth0 -B 32768 --format json -o "$TMP/report.json" >/dev/null 2>"$TMP/watch.err" &
    fi
    WATCH=$!
    sleep 1
}

counted() { on "$P" cat /sys/class/net/eth0/statistics/rx_packets /sys/class/net/eth0/statistics/tx_packets | paste -sd+ | bc; }
ticks() { awk '{print $14 + $15}' "/proc/$WATCH/stat"; }

measure() { # load, command...
    local load=$1 program
    shift
    for program in tcpdump tcpwhy; do
        watch_it "$program"
        local before spent begin end took packets
        before=$(counted) spent=$(ticks) begin=$(date +%s%N)
        ip netns exec "$C" "$@" >"$TMP/load.log" 2>&1 </dev/null
        end=$(date +%s%N)
        packets=$(($(counted) - before))
        sleep 1
        spent=$(($(ticks) - spent)) took=$(((end - begin) / 1000000))
        kill -INT "$WATCH"
        wait "$WATCH" 2>/dev/null
        python3 - "$load" "$program" "$packets" "$took" "$spent" "$TMP/watch.err" <<'X'
import re, sys
load, program, packets, took, ticks, told = sys.argv[1:]
packets, seconds, text = int(packets), int(took) / 1000, open(told).read()
if program == "tcpdump":
    seen = int(re.search(r"(\d+) packets captured", text)[1])
    lost = int(re.search(r"(\d+) packets dropped by kernel", text)[1])
else:
    seen, lost = map(int, re.search(r"(\d+) packets, (\d+) dropped", text).groups())
print(f"| {load} | {program} | {packets / seconds:,.0f} | {seen:,} | {lost:,} ({100 * lost / max(1, packets):.1f} %) | {int(ticks) / seconds:.0f} % |", flush=True)
X
    done
}

echo "| load | program | packets/s on the wire | seen | dropped | CPU of one core |"
echo "|---|---|---|---|---|---|"
for rate in 50 100 150 200 250 300; do
    measure "UDP, $rate,000 packets/s asked for" timeout $((SECONDS_EACH + 10)) \
        iperf3 -c 203.0.113.1 -u -l 100 -b $((rate * 800))K -t "$SECONDS_EACH"
done
measure "TCP, segments of 88 octets" timeout $((SECONDS_EACH + 10)) iperf3 -c 203.0.113.1 -M 88 -t "$SECONDS_EACH"
measure "TCP, segments of 536 octets" timeout $((SECONDS_EACH + 10)) iperf3 -c 203.0.113.1 -M 536 -t "$SECONDS_EACH"
measure "TCP, segments of 1448 octets" timeout $((SECONDS_EACH + 10)) iperf3 -c 203.0.113.1 -t "$SECONDS_EACH"
measure "HTTP, 64 connections kept" timeout $((SECONDS_EACH + 10)) wrk -t1 -c64 -d"${SECONDS_EACH}s" http://203.0.113.1/
measure "HTTP, a connection for each request" timeout $((SECONDS_EACH + 10)) wrk -t1 -c64 -d"${SECONDS_EACH}s" -H 'Connection: close' http://203.0.113.1/
