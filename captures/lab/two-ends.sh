#!/bin/bash
# captures/two-ends: one fault at a time between a client and a server, captured at both ends, with the truth about every frame.
# Usage: two-ends.sh [OUTPUT-DIRECTORY [SCENARIO…]]
#
# client namespace - TAP - middle.py - TAP - server namespace. The middle breaks what the scenario's plan (faults.py) says and writes down what
# became of each frame; frametruth.py turns that into truth.tsv, with the frame's number in both captures. Offloads are off: a frame is a
# segment. Which kind of retransmission it was, the sender's kernel says itself (trace event tcp_retransmit_skb with its callers), where
# the kernel has that; nothing here is guessed from the captures.
set -u
. "$(dirname "$0")/lib.sh"
lab_need nginx curl tcpdump
OUT=${1:-$CAPTURES/two-ends}
[ $# -gt 0 ] && shift
ALL=(healthy loss-up loss-down burst tail-loss ack-loss syn-loss reordering duplication corruption black-hole-up black-hole-down black-hole-both
    pmtu-icmp pmtu-silent reset-to-client reset-to-server reset-to-both reset-ignored idle-silent idle-reset zero-window-server zero-window-client slow-server)
[ $# -gt 0 ] && ALL=("$@")
CLIENT=203.0.113.7 SERVER=10.224.26.2 PORT=80

begin() { # scenario number      two namespaces, two TAPs, the middle between them, a capture at each end
    TMP=$(mktemp -d /tmp/tcpwhy-two.XXXXXX)
    chmod 755 "$TMP"
    LAB=te$$-$2 C=te$$-$2-c P= B=te$$-$2-b PIDS=()
    trap lab_end EXIT
    trap 'exit 130' INT TERM
    local ns mtu=576 first=$((30000 + $2 * 200))
    case $1 in pmtu-*) mtu=1500 ;; esac
    for ns in $C $B; do
        ip netns add "$ns"
        ip -n "$ns" link set lo up
        ip netns exec "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 net.ipv4.tcp_no_metrics_save=1 \
            net.ipv4.ip_local_port_range="$first $((first + 199))"
    done
    : >"$TMP/middle"
    python3 "$LAB_DIR/middle.py" tec$$-$2 tes$$-$2 "$TMP/log" "$1" >"$TMP/middle" 2>&1 &
    MIDDLE=$!
    PIDS+=($MIDDLE)
    for _ in $(seq 100); do grep -q ready "$TMP/middle" && break; sleep 0.05; done
    attach "$C" tec$$-$2 02:cb:00:71:07:07 $CLIENT/24 203.0.113.1 02:cb:00:71:07:01 $mtu
    attach "$B" tes$$-$2 02:0a:e0:1a:02:02 $SERVER/24 10.224.26.1 02:0a:e0:1a:02:01 $mtu
    capture "$C" eth0 "$TMP/client.pcap"
    CAPTURING=($LAST)
    capture "$B" eth0 "$TMP/server.pcap"
    CAPTURING+=($LAST)
}

attach() { # namespace tap mac address gateway gateway-mac mtu
    ip link set "$2" netns "$1" name eth0
    ip -n "$1" link set eth0 address "$3" mtu "$7"
    ip -n "$1" addr add "$4" dev eth0
    ip -n "$1" link set eth0 up
    ip -n "$1" neigh replace "$5" lladdr "$6" dev eth0 nud permanent
    ip -n "$1" route add default via "$5" congctl lock cubic
    on "$1" python3 "$LAB_DIR/offload.py" eth0 2>/dev/null
}

finish() { # scenario
    sleep 0.5
    capture_end "${CAPTURING[@]}"
    stop $MIDDLE
    local dir=$OUT/$1
    mkdir -p "$dir"
    cp "$TMP/client.pcap" "$TMP/server.pcap" "$dir/"
    for end in client server; do
        [ $end = client ] && ns=$C || ns=$B
        on "$ns" cat /proc/net/netstat /proc/net/snmp >"$TMP/$end.counters"
    done
    [ -n "$TRACE" ] && cat "$TRACE/trace" >"$TMP/trace"
    python3 "$LAB_DIR/frametruth.py" "$TMP" "$dir" "$1"
}

web() { # nginx with the file and a place to put one
    seq -f 'line %06g of a text that never says the same twice' 690 >"$TMP/text"
    echo "the last line" >>"$TMP/text"
    nginx_start "$B" "server { listen $PORT; keepalive_timeout 300s; client_max_body_size 10m; location /up { dav_methods PUT; create_full_put_path on; }
        location /slow { limit_rate 6k; } }" "user root;"
    cp "$TMP/text" "$NGINX_DIR/html/slow"
    cp "$TMP/text" "$NGINX_DIR/html/text"
    wait_port "$B" $PORT
}

downloads() { # how many
    local i
    for i in $(seq "$1"); do get "$C" -m 20 "http://$SERVER/text"; sleep 0.2; done
}

uploads() {
    local i
    for i in $(seq "$1"); do get "$C" -m 20 -T "$TMP/text" -H 'Expect:' "http://$SERVER/up/text$i"; sleep 0.2; done
}

# A download that is going on and two connections that are in use when the hole opens, and new ones in it.
in_the_hole() {
    local ask='send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n' i
    talk "$C" $SERVER $PORT "$ask" recv sleep:2 "$ask" recv sleep:2.5 "$ask" sleep:12 close &
    talk "$C" $SERVER $PORT "$ask" recv sleep:1 "$ask" recv sleep:3 "$ask" sleep:12 close &
    get "$C" -m 16 "http://$SERVER/slow" &
    for i in 1 2 3 4; do get "$C" -m 10 "http://$SERVER/"; sleep 1.2; done &
    sleep 18
}

idle() {
    local ask='send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n' i
    for i in 1 2; do
        talk "$C" $SERVER $PORT "$ask" recv sleep:1 "$ask" recv sleep:40 "$ask" recv close &
    done
    talk "$C" $SERVER $PORT "$ask" recv sleep:10 "$ask" recv sleep:10 "$ask" recv sleep:10 "$ask" recv sleep:15 "$ask" recv close
    sleep 8
}

run_one() { # scenario number
    begin "$1" "$2"
    case $1 in
    zero-window-server)
        serve "$B" $PORT rcvbuf:4096 'recv:\r\n\r\n' sleep:5 'recv:the last line' 'send:HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n' recv close
        seq -f 'line %06g of a text that never says the same twice' 1600 >"$TMP/text"
        echo "the last line" >>"$TMP/text"
        uploads 2
        ;;
    zero-window-client)
        web
        seq -f 'line %06g of a text that never says the same twice' 1600 >"$NGINX_DIR/html/text"
        echo "the last line" >>"$NGINX_DIR/html/text"
        for _ in 1 2; do
            talk "$C" $SERVER $PORT rcvbuf:4096 'send:GET /text HTTP/1.1\r\nHost: www.example.com\r\n\r\n' sleep:5 'recv:the last line' close
        done
        ;;
    slow-server)
        serve "$B" $PORT 'recv:\r\n\r\n' sleep:4 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' recv close
        for _ in 1 2 3; do get "$C" "http://$SERVER/"; done
        ;;
    loss-up) web; uploads 3 ;;
    reordering | duplication) web; downloads 2; uploads 1 ;;
    black-hole-*) web; in_the_hole ;;
    idle-*) web; idle ;;
    *) web; downloads 3 ;;
    esac
    finish "$1"
}

TRACE=
if mkdir -p /tmp/tcpwhy-trace.$$ && mount -t tracefs none /tmp/tcpwhy-trace.$$ 2>/dev/null; then
    if mkdir /tmp/tcpwhy-trace.$$/instances/lab$$ 2>/dev/null; then
        TRACE=/tmp/tcpwhy-trace.$$/instances/lab$$
        echo mono >"$TRACE/trace_clock"
        echo 4096 >"$TRACE/buffer_size_kb"
        echo 1 >"$TRACE/options/stacktrace"
        echo 1 >"$TRACE/events/tcp/tcp_retransmit_skb/enable"
    fi
fi
number=0 at_once=6
for scenario in "${ALL[@]}"; do
    number=$((number + 1))
    (run_one "$scenario" $number) &
    while [ "$(jobs -rp | wc -l)" -ge $at_once ]; do sleep 0.2; done
done
wait
[ -n "$TRACE" ] && echo 0 >"$TRACE/events/tcp/tcp_retransmit_skb/enable" && rmdir "$TRACE"
umount /tmp/tcpwhy-trace.$$ 2>/dev/null
rmdir /tmp/tcpwhy-trace.$$
