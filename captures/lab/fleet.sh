#!/bin/bash
# What only many connections together show: a restart, a storm of loss, hosts that cannot be reached, a check that flaps. About 3 minutes.
# fleet.sh [OUTPUT [rule…]]
. "$(dirname "$0")/lib.sh"
lab_need nginx curl iptables
OUT=${1:-$CAPTURES/rules}
shift
WANTED=${*:-service-restart loss-storm mass-connect-timeout health-check-flapping}
wants() { T=$1; mkdir -p "$OUT/$T"; [[ " $WANTED " == *" $1 "* ]]; }
S=10.224.26.2
lab_begin
ip -n "$B" addr add 10.224.26.11/24 dev eth0
ip -n "$B" addr add 10.224.26.12/24 dev eth0
ip -n "$B" addr add 10.224.26.13/24 dev eth0
nginx_start "$B" "server { listen 80; } server { listen 8081; keepalive_timeout 3s; }"
wait_port "$B" 80
JOBS=()
join() { wait "${JOBS[@]}"; JOBS=(); }
user() { on "$C" timeout "$4" python3 "$LAB_DIR/user.py" "$1" "$2" "$3" >>"$TMP/user.log" 2>&1 </dev/null; return 0; }
users() { # seconds port server...
    local seconds=$1 port=$2 server address
    shift 2
    for server in "$@"; do
        for address in 203.0.113.7 203.0.113.8 203.0.113.9; do
            user "$address" "$server" "$port" "$seconds" & JOBS+=($!)
            sleep 0.15
        done
    done
}

if wants service-restart; then
    # A server of its own: threads, keep-alive, ended by SIGKILL.
    cat >"$TMP/keep.py" <<'Y'
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Page).serve_forever()
Y
    keep() { spawn "$B" python3 "$TMP/keep.py" $S 8090; KEEP=$LAST; wait_port "$B" 8090; }
    keep
    restarted() {
        users 9 8090 $S
        users 9 8090 $S
        sleep 3
        stop "$KEEP" KILL
        sleep 2
        keep
        join
    }
    record "$C" eth0 "$OUT/$T/killed-and-started.pcap" "" restarted
    # Six connections of one age, each idle for the same time: nginx ends them together and goes on.
    hold() { # address
        on "$C" timeout 6 python3 -c "
import socket, sys, time
c = socket.create_connection(('$S', 8081), 4, ('$1', 0))
c.sendall(b'GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n')
c.recv(65536)
c.recv(65536)" >>"$TMP/user.log" 2>&1 </dev/null
        return 0
    }
    cohort() {
        local address i
        for i in 1 2; do for address in 203.0.113.7 203.0.113.8 203.0.113.9; do hold "$address" & JOBS+=($!); done; done
        join
        get "$C" "http://$S:8081/"
    }
    record "$C" eth0 "$OUT/$T/not-idle-timeout-of-one-age.pcap" "" cohort
fi

lose() { on "$P" iptables -I FORWARD "$@" -m statistic --mode random --probability 0.35 -j DROP; }
lose_no_more() { on "$P" iptables -D FORWARD "$@" -m statistic --mode random --probability 0.35 -j DROP; }
if wants loss-storm; then
    storm() {
        users 32 80 $S 10.224.26.3 10.224.26.4
        sleep 15
        lose
        sleep 4
        lose_no_more
        join
    }
    record "$C" eth0 "$OUT/$T/four-seconds.pcap" "" storm
    one_client() {
        users 32 80 $S 10.224.26.3 10.224.26.4
        users 32 80 $S 10.224.26.3 10.224.26.4
        sleep 13
        lose -s 203.0.113.7 -d $S
        sleep 4
        lose_no_more -s 203.0.113.7 -d $S
        join
    }
    record "$C" eth0 "$OUT/$T/not-one-pair-of-hosts.pcap" "" one_client
fi

if wants mass-connect-timeout; then
    ask() { # server...
        local server
        for server in "$@"; do get "$C" -m 4 "http://$server/" & JOBS+=($!); done
        join
    }
    shut() { local server; for server in "$@"; do on "$P" iptables -I FORWARD -d "$server" -j DROP; done; }
    open() { local server; for server in "$@"; do on "$P" iptables -D FORWARD -d "$server" -j DROP; done; }
    ALL="$S 10.224.26.3 10.224.26.11 10.224.26.12 10.224.26.13 203.0.113.1"
    nginx_start "$P" "server { listen 203.0.113.1:80; }"
    wait_port "$P" 80
    subnet() {
        ask $ALL
        shut 10.224.26.11 10.224.26.12 10.224.26.13
        ask $ALL
        sleep 1
        ask $ALL
        open 10.224.26.11 10.224.26.12 10.224.26.13
        ask $ALL
    }
    record "$C" eth0 "$OUT/$T/three-of-six.pcap" "" subnet
    two() {
        ask $ALL
        shut 10.224.26.11 10.224.26.12
        ask $ALL
        open 10.224.26.11 10.224.26.12
        ask $ALL
    }
    record "$C" eth0 "$OUT/$T/not-two-of-six.pcap" "" two
fi

if wants health-check-flapping; then
    refuse() { on "$B" iptables -I INPUT -p tcp --dport 80 -d $S -j REJECT --reject-with tcp-reset; }
    accept() { on "$B" iptables -D INPUT -p tcp --dport 80 -d $S -j REJECT --reject-with tcp-reset; }
    cat >"$TMP/check.cfg" <<Y
defaults
  mode tcp
  timeout connect 2s
  timeout client 5s
  timeout server 5s
listen web
  bind 203.0.113.1:8000
  server backend $S:80 check inter 1s fall 2 rise 2
Y
    spawn "$P" haproxy -db -f "$TMP/check.cfg"
    sleep 1
    flaps() { sleep 4; refuse; sleep 4; accept; sleep 4; refuse; sleep 4; accept; sleep 4; refuse; sleep 4; accept; sleep 3; }
    record "$B" eth0 "$OUT/$T/haproxy-three-times.pcap" "" flaps
    once() { sleep 5; refuse; sleep 6; accept; sleep 5; }
    record "$B" eth0 "$OUT/$T/not-once.pcap" "" once
fi
