#!/bin/bash
# Family O and SYN floods: what only many flows together show. About 3 minutes.    wide.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need nginx curl
OUT=${1:-$CAPTURES/rules}
R=$OUT
S=10.224.26.2
lab_begin
nginx_start "$B" "server { listen 10.224.26.2:80; listen 10.224.26.3:80; listen 10.224.26.4:80; listen 10.224.26.2:8080; }
  server { listen 10.224.26.2:81; keepalive_timeout 8s; }"
wait_port "$B" 80
JOBS=()
join() { wait "${JOBS[@]}"; JOBS=(); }
# Users: client address, server, seconds. Two requests a second on a connection of its own that stays open.
user() { on "$C" timeout "$3" python3 "$LAB_DIR/user.py" "$1" "$2" 80 >>"$TMP/user.log" 2>&1 </dev/null; return 0; }
users() { # seconds server...
    local seconds=$1 server address
    shift
    for server in "$@"; do
        for address in 203.0.113.7 203.0.113.8 203.0.113.9; do user "$address" "$server" "$seconds" & JOBS+=($!); done
    done
}
cut_link() { on "$P" iptables -I FORWARD -j DROP; on "$P" iptables -I OUTPUT -j DROP; }
join_link() { on "$P" iptables -D FORWARD -j DROP; on "$P" iptables -D OUTPUT -j DROP; }

T=network-blackout
dark() { users 30 $S; sleep 12; cut_link; sleep 9; join_link; join; }
record "$C" eth0 "$R/$T/one-peer-dark.pcap" "" dark
# what one of three clients sends is dropped: the server closes its connections in time, and so is heard
one_client() {
    local address i
    for address in 203.0.113.7 203.0.113.8 203.0.113.8 203.0.113.8 203.0.113.9; do
        on "$C" timeout 24 python3 "$LAB_DIR/user.py" $address $S 81 >>"$TMP/user.log" 2>&1 </dev/null & JOBS+=($!)
    done
    sleep 8
    on "$P" iptables -I FORWARD -s 203.0.113.8 -j DROP
    for i in 1 2 3 4; do get "$C" --interface 203.0.113.8 -m 3 "http://$S:81/"; done
    join
    on "$P" iptables -D FORWARD -s 203.0.113.8 -j DROP
}
record "$C" eth0 "$R/$T/one-client-is-not-heard.pcap" "" one_client
all_dark() { users 34 $S 10.224.26.3 10.224.26.4; sleep 12; cut_link; sleep 13; join_link; join; }
record "$B" eth0 "$R/$T/not-an-idle-server-asks-nobody.pcap" "" all_dark
pause() { users 12 $S; join; sleep 8; users 10 $S; join; }
record "$C" eth0 "$R/$T/not-quiet-hour.pcap" "" pause
short() { users 16 $S; sleep 11; cut_link; sleep 2; join_link; join; }
record "$C" eth0 "$R/$T/not-two-seconds.pcap" "" short

T=link-flapping
flap() {
    users 62 $S 10.224.26.3
    local i
    sleep 11
    for i in 1 2 3; do cut_link; sleep 8; join_link; sleep 9; done
    join
}
record "$C" eth0 "$R/$T/three-times.pcap" "" flap
record "$C" eth0 "$R/$T/not-once.pcap" "" dark

T=service-down
asks() { # times pause
    local i address
    for i in $(seq "$1"); do
        for address in 203.0.113.7 203.0.113.8 203.0.113.9; do get "$C" -m 5 --interface "$address" "http://$S:$PORT/"; done
        get "$C" "http://$S/"
        sleep "$2"
    done
}
answer='HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok'
stopped() {
    PORT=8095
    serve "$B" $PORT 'recv' "send:$answer" close
    local first=$LAST
    asks 2 0.3
    stop "$first"
    asks 5 1
}
record "$C" eth0 "$R/$T/stopped.pcap" "" stopped
stopped_and_started() {
    PORT=8096
    serve "$B" $PORT 'recv' "send:$answer" close
    local first=$LAST
    asks 2 0.3
    stop "$first"
    asks 5 1
    serve "$B" $PORT 'recv' "send:$answer" close
    asks 2 0.3
}
record "$C" eth0 "$R/$T/stopped-and-started.pcap" "" stopped_and_started
never() { local i; for i in $(seq 6); do get "$C" "http://$S:8097/"; get "$C" "http://$S/"; sleep 0.3; done; }
record "$C" eth0 "$R/$T/not-one-client-at-a-port-nobody-served.pcap" "" never

T=port-scan
scan() { get "$C" "http://$S/"; on "$C" python3 "$LAB_DIR/scan.py" $S 1 60; get "$C" --interface 203.0.113.8 "http://$S/"; }
record "$C" eth0 "$R/$T/sixty-ports.pcap" "" scan
watch_ports() { local i; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do get "$C" "http://$S/"; get "$C" "http://$S:8080/"; done; }
record "$C" eth0 "$R/$T/not-monitoring.pcap" "" watch_ports
neighbours() { # how many addresses of its own link one host knocks at; nobody has them, and the one it finds refuses it
    local n
    for n in $(seq 100 $((99 + $1))); do on "$P" nc -zn -w 1 10.224.26.$n 80 >>"$TMP/nc.log" 2>&1 & JOBS+=($!); done
    on "$P" nc -zn -w 1 $S 81 >>"$TMP/nc.log" 2>&1
    join
}
record "$P" eth1 "$R/$T/link-sweep.pcap" "" neighbours 60
sleep 4 # the kernel asks three times for each, a second apart
record "$P" eth1 "$R/$T/not-forty-neighbours.pcap" "" neighbours 40

T=syn-flood
flood() { get "$C" "http://$S/"; on "$C" python3 "$LAB_DIR/flood.py" $S 80 1200 400; get "$C" "http://$S/"; }
on "$P" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0
record "$B" eth0 "$R/$T/spoofed-sources.pcap" "tcp port 80" flood
crowd() { local i; for i in $(seq 60); do get "$C" "http://$S/" & JOBS+=($!); done; join; }
record "$B" eth0 "$R/$T/not-crowd.pcap" "tcp port 80" crowd
