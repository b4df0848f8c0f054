#!/bin/bash
# Incident S4: a switch reboots in a loop, and while it is dark the certificate of the site expires. About 4 minutes.
# blackout.sh [OUTPUT [group…]]      groups: incident uplink alike paused
#
#   users (namespace client) -- gateway 192.0.2.1 (proxy) -- switch, a bridge with STP -- vm1 192.0.2.10, the site and the capture point
#   an API   (namespace backend) --'                              `-- vm2 192.0.2.11
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/certs.sh"
lab_need nginx go javac java node curl bridge
OUT=${1:-$CAPTURES/incidents/blackout}
shift
WANTED=${*:-incident uplink alike paused}
wants() { [[ " $WANTED " == *" $1 "* ]]; }
mkdir -p "$OUT"
lab_begin
SW=$LAB-sw V1=$LAB-v1 V2=$LAB-v2
LAB_MORE_NS="$SW $V1 $V2"
for ns in $SW $V1 $V2; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    on "$ns" sysctl -qw net.ipv4.tcp_timestamps=1 net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv4.tcp_no_metrics_save=1 \
        net.ipv4.ip_local_port_range="40000 60999"
done
ip -n "$SW" link add br0 type bridge stp_state 1 forward_delay 200 hello_time 200 mcast_querier 1
ip link add eth0 netns "$V1" type veth peer name p1 netns "$SW"
ip link add eth0 netns "$V2" type veth peer name p2 netns "$SW"
ip link add eth2 netns "$P" type veth peer name p3 netns "$SW"
for port in p1 p2 p3; do ip -n "$SW" link set "$port" master br0 up; done
ip -n "$SW" link set br0 up
lab_address "$P" eth2 192.0.2.1/24 2001:db8:a::1/64
lab_address "$V1" eth0 192.0.2.10/24 2001:db8:a::10/64
lab_address "$V2" eth0 192.0.2.11/24 2001:db8:a::11/64
for ns in $V1 $V2; do
    ip -n "$ns" route add default via 192.0.2.1
    ip -n "$ns" -6 route add default via 2001:db8:a::1
    on "$ns" python3 "$LAB_DIR/offload.py" eth0
    # a neighbour is asked again after seconds instead of half a minute, so that short gaps show it
    on "$ns" sysctl -qw net.ipv4.neigh.eth0.base_reachable_time_ms=3000 net.ipv4.neigh.eth0.delay_first_probe_time=1 \
        net.ipv6.neigh.eth0.base_reachable_time_ms=3000 net.ipv6.neigh.eth0.delay_first_probe_time=1
done
on "$P" python3 "$LAB_DIR/offload.py" eth2
for last in 17 18 19 33 34 35; do ip -n "$C" addr add 203.0.113.$last/24 dev eth0; done
tls_clients_build
NAME=lobsters.example.com
S=192.0.2.10
authority ca "/O=tcpwhy lab/CN=tcpwhy lab CA"
issue site ca "/CN=$NAME" "-90 days" "+57 seconds" "subjectAltName=DNS:$NAME"
START=$SECONDS
until_second() { # of the run
    local left=$((START + $1 - SECONDS))
    [ "$left" -gt 0 ] && sleep "$left"
}
until_forwarding() {
    local i
    for i in $(seq 80); do
        [ "$(on "$SW" cat /sys/class/net/p1/brport/state /sys/class/net/p3/brport/state 2>/dev/null | tr -d '\n')" = 33 ] && return
        bridge -n "$SW" link show 2>/dev/null | grep -c 'state forwarding' | grep -q 3 && return
        sleep 0.1
    done
}
until_forwarding
nginx_start "$V1" "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets off;
  server { listen 80; listen [::]:80; listen 443 ssl; ssl_certificate $TMP/site.crt; ssl_certificate_key $TMP/site.key; }"
nginx_start "$B" "server { listen 80; }"
spawn "$V1" python3 "$LAB_DIR/waits.py" serve 192.0.2.10 8080 0.5
spawn "$V1" python3 "$LAB_DIR/waits.py" serve 2001:db8:a::10 8080 0.5
spawn "$V2" python3 "$LAB_DIR/waits.py" serve 192.0.2.11 9000 1
wait_port "$V1" 443
wait_port "$V1" 8080
wait_port "$V2" 9000
wait_port "$B" 80

# --- traffic that goes on all the time
BG=()
background() { # [vm2]                    until background_end; with vm2, vm1 also asks there with new connections
    local before=${#PIDS[@]}
    for _ in 1 2; do spawn "$C" python3 "$LAB_DIR/waits.py" open "$S" 8080 /events 100; done
    spawn "$C" python3 "$LAB_DIR/waits.py" open 2001:db8:a::10 8080 /events 100
    spawn "$V1" python3 "$LAB_DIR/waits.py" poll 192.0.2.11 9000 100
    again 1.7 user_page
    again 2.3 get "$V1" -m 5 http://10.224.26.2/
    again 3 echo_request "$V1" 192.0.2.1
    [ -n "${1:-}" ] && again 1.3 get "$V1" -m 3 http://192.0.2.11:9000/
    BG=("${PIDS[@]:before}")
}
background_end() {
    local pid
    for pid in "${BG[@]}"; do stop "$pid"; done
    sleep 0.5
}
again() { # pause command…
    local pause=$1
    shift
    while :; do
        "$@"
        sleep "$pause"
    done &
    PIDS+=($!)
}
user_page() {
    get "$C" -m 4 --interface "203.0.113.$((7 + SECONDS % 3))" "http://$S/"
}
# TLS 1.2 clients come from 203.0.113.16/28, TLS 1.3 clients from 203.0.113.32/28
TURN=0
visit() { # client version
    from_address "203.0.113.$(((($2 == 12) ? 17 : 33) + TURN++ % 3))"
    echo "$((SECONDS - START)) s: $(tls_client "$C" "$1" "$S" 443 "$NAME" "$2") ($2)"
}
reboot() { # seconds of darkness          the switch: no port forwards, and with STP for some seconds after
    ip -n "$SW" link set br0 down
    echo "$((SECONDS - START)) s: switch down"
    sleep "$1"
    ip -n "$SW" link set br0 up
    until_forwarding
    echo "$((SECONDS - START)) s: forwarding again"
    announce
}
announce() { # the gateway's gratuitous ARP
    on "$P" python3 -c "
import socket
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(('eth2', 0))
mac, address = sock.getsockname()[4], socket.inet_aton('192.0.2.1')
sock.send(b'\xff' * 6 + mac + b'\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01' + mac + address + bytes(6) + address)"
}

declare -A PID
begin() { # file filter-and-options…      on vm1
    local file=$1
    shift
    capture "$V1" eth0 "$OUT/$file.pcap" "$@"
    PID[$file]=$LAST
}
finish() { # file…
    local file
    for file in "$@"; do capture_end "${PID[$file]}"; done
}
if wants incident; then
    begin all
    begin tls12-only not net 203.0.113.32/28
    begin tls13-only not net 203.0.113.16/28
    begin received-only -Q in
    begin sent-only -Q out
    begin still-dark
    begin one-blackout
    begin blackouts-only
    from_address 203.0.113.8
    background
    sleep 2
    visit curl 12
    visit go 13
    visit node 13
    visit java 12
    visit openssl 13
    until_second 18
    reboot 6
    visit curl 13
    visit openssl 12
    sleep 3
    finish one-blackout
    visit go 12
    until_second 36
    reboot 7
    visit curl 12
    visit node 13
    sleep 2
    finish blackouts-only
    until_second 52
    ip -n "$SW" link set br0 down
    echo "$((SECONDS - START)) s: switch down; the certificate expires at 57 s"
    sleep 9
    finish still-dark
    ip -n "$SW" link set br0 up
    until_forwarding
    echo "$((SECONDS - START)) s: forwarding again"
    announce
    begin certificate-only
    for version in 12 13 13 12; do
        for client in curl go openssl; do visit "$client" "$version"; done
        visit java "$version"
        visit node "$version"
    done
    finish all tls12-only tls13-only received-only sent-only certificate-only
    background_end
fi

# --- only the port to the gateway is cut, once: vm2 answers all the time
if wants uplink; then
    begin uplink-once
    background vm2
    sleep 8
    ip -n "$SW" link set p3 down
    sleep 8
    ip -n "$SW" link set p3 up
    until_forwarding
    announce
    sleep 6
    finish uplink-once
    background_end
fi

# --- look-alikes
if wants alike; then
    begin not-one-host-down
    background vm2
    sleep 6
    ip -n "$SW" link set p2 down
    sleep 10
    ip -n "$SW" link set p2 up
    until_forwarding
    sleep 7
    finish not-one-host-down
    background_end
    sleep 5
    begin not-quiet-night
    for i in 1 2 3 4; do get "$C" -m 4 "http://$S/"; get "$V1" http://10.224.26.2/; echo_request "$V1" 192.0.2.1; sleep 0.7; done
    sleep 20
    for i in 1 2 3 4; do get "$C" -m 4 "http://$S/"; get "$V1" http://10.224.26.2/; echo_request "$V1" 192.0.2.1; sleep 0.7; done
    finish not-quiet-night
    # the capture stops for 8 s and goes on: two files put one behind the other
    background
    sleep 1.5
    begin not-paused-capture
    sleep 6
    finish not-paused-capture
    sleep 8
    begin paused-second
    sleep 6
    finish paused-second
    tail -c +25 "$OUT/paused-second.pcap" >>"$OUT/not-paused-capture.pcap"
    rm "$OUT/paused-second.pcap"
    background_end
fi

# --- vm1 itself stands still for 10 s, capture included: its processes are stopped, nothing goes in or out. The frames of the switch are left
# out, because a host that stands still would not have seen them either.
if wants paused; then
    background
    sleep 1.5
    begin not-paused-host tcp or arp or icmp
    sleep 7
    STOPPED=()
    for pid in $(ip netns pids "$V1") "${BG[@]}"; do
        [ "$pid" = "${PID[not-paused-host]}" ] || STOPPED+=("$pid")
    done
    kill -STOP "${STOPPED[@]}"
    sleep 0.2
    ip -n "$SW" link set p1 down
    sleep 6
    ip -n "$SW" link set p1 up
    until_forwarding
    kill -CONT "${STOPPED[@]}"
    sleep 7
    finish not-paused-host
    background_end
fi
for file in "$OUT"/*.pcap; do echo "$(tcpdump -nr "$file" 2>/dev/null | wc -l) packets, $(stat -c %s "$file") octets  ${file##*/}"; done
