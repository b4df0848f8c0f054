#!/bin/bash
# Families E and N: loss, windows, dead peers, requests nobody answers. About 1.8 minutes (the long cases run side by side).
# transfer.sh [OUTPUT [group…]]         groups: wait loss
. "$(dirname "$0")/lib.sh"
lab_need nginx curl iptables tc
OUT=${1:-$CAPTURES/rules}
shift
GROUPS_WANTED=${*:-wait loss}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
R=$OUT
S=10.224.26.2
lab_begin
certificates www.example.com
PEM=$TMP/www.example.com
OK='send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
HEAD='send:HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n'
ask() { printf 'send:GET %s HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n' "$1"; }
beside() { # other traffic that dates the silence: seconds
    local i
    for i in $(seq "$1"); do get "$C" --interface 203.0.113.9 "http://$S:7600/"; sleep 1; done
}
at() { # namespace port name command...      captures that port only
    record "$1" eth0 "$R/$3.pcap" "tcp port $2" "${@:4}"
}
JOBS=()
job() { LAB_DELAY=2 "$@" & JOBS+=($!); } # all captures run before the first case begins

nginx_start "$B" "server { listen 7600; } server { listen 7621; } server { listen 7651; }"
HTML=$NGINX_DIR/html
wait_port "$B" 7600

if wants wait; then
    # upstream-hang
    serve "$B" 7601 recv "$OK" recv sleep:90
    second() { talk "$C" $S 7601 "$(ask /first)" recv sleep:0.2 "$(ask /second)" sleep:40 & beside 14; }
    job record "$C" eth0 "$R/upstream-hang/second-request-waits.pcap" "tcp port 7601 or (tcp port 7600 and host 203.0.113.9)" second
    serve "$B" 7602 recv sleep:65 "$OK" sleep:1 close
    late() { get "$C" -m 80 "http://$S:7602/report"; }
    job at "$C" 7602 upstream-hang/answered-after-65s late
    serve "$B" 7603 recv sleep:90
    nginx_start "$P" "server { listen 203.0.113.1:443 ssl; server_name www.example.com; ssl_certificate $PEM.crt;
      ssl_certificate_key $PEM.key; location / { proxy_pass http://$S:7603; } }"
    wait_port "$P" 443
    both_legs() { get "$C" -m 12 --resolve www.example.com:443:203.0.113.1 https://www.example.com/; }
    job record "$C" eth0 "$R/upstream-hang/over-tls.pcap" "tcp port 443" both_legs
    given_up() { get "$C" -m 15 "http://$S:7603/"; get "$C" -m 15 "http://$S:7603/"; }
    job at "$B" 7603 upstream-hang/given-up-after-15s given_up
    serve "$B" 7604 recv sleep:8 "$OK" sleep:1 close
    job at "$C" 7604 upstream-hang/not-answered-after-8s get "$C" -m 12 "http://$S:7604/"
    serve "$B" 7605 recv sleep:90
    cut() { get "$C" -m 20 "http://$S:7605/" & sleep 2; }
    job at "$C" 7605 upstream-hang/not-capture-ends-after-2s cut
    serve "$B" 7606 recv sleep:21 "$OK" recv sleep:22 "$OK" recv sleep:90
    poll() { on "$C" python3 -c "
import socket, time
sock = socket.create_connection(('$S', 7606))
for _ in range(3):
    sock.sendall(b'GET /room/7/next HTTP/1.1\r\nHost: www.example.com\r\n\r\n')
    if _ < 2: sock.recv(4096)
time.sleep(12)"; }
    job at "$C" 7606 upstream-hang/not-long-poll poll
    # response-stalled
    serve "$B" 7611 recv "$HEAD" zeros:30000 sleep:90
    stalled() { get "$C" -m 40 "http://$S:7611/" & beside 14; }
    job record "$C" eth0 "$R/response-stalled/waits-for-the-rest.pcap" "tcp port 7611 or (tcp port 7600 and host 203.0.113.9)" stalled
    serve "$B" 7612 recv "$HEAD" zeros:30000 sleep:90
    job at "$B" 7612 response-stalled/given-up-after-15s get "$C" -m 15 "http://$S:7612/"
    serve "$B" 7613 recv "$HEAD" zeros:20000 again:4:zeros:20000 close
    job at "$C" 7613 response-stalled/not-trickles get "$C" -m 40 "http://$S:7613/"
    serve "$B" 7614 recv 'send:HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n' sleep:90
    events() { get "$C" -m 15 "http://$S:7614/"; }
    job at "$C" 7614 response-stalled/not-event-stream events
    # zero-window
    unread() { talk "$C" $S 7621 rcvbuf:4096 "$(ask /large.txt)" recv sleep:14 eof:2 close; }
    job at "$B" 7621 zero-window/client-stops-reading unread
    serve "$B" 7622 sleep:3 eof:5 "$OK" close
    upload() { talk "$C" $S 7622 'send:POST /upload HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 4000000\r\n\r\n' zeros:4000000 recv close; }
    SNAPLEN=160 job at "$C" 7622 zero-window/server-stops-reading-3s upload
    serve "$B" 7623 recv "$HEAD" zeros:100000 sleep:2 close
    slow_reader() { on "$C" python3 -c "
import socket, time
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
sock.connect(('$S', 7623))
sock.sendall(b'GET /large HTTP/1.1\r\nHost: www.example.com\r\n\r\n')
while sock.recv(16384): time.sleep(0.03)"; }
    job at "$B" 7623 zero-window/not-slow-reader slow_reader
    # slow-response
    serve "$B" 7631 recv sleep:2.2 "$OK" recv sleep:3.1 "$OK" recv sleep:1.7 "$OK" close
    slow() { talk "$C" $S 7631 "$(ask /report/1)" recv sleep:0.1 "$(ask /report/2)" recv sleep:0.1 "$(ask /report/3)" recv close; }
    job at "$C" 7631 slow-response/three-of-three slow
    serve "$B" 7632 recv sleep:1.4 "$OK" recv "$OK" recv "$OK" close
    warm() { talk "$C" $S 7632 "$(ask /1)" recv sleep:0.1 "$(ask /2)" recv sleep:0.1 "$(ask /3)" recv close; }
    job at "$C" 7632 slow-response/not-first-after-start warm
    # connection-pileup
    serve "$B" 7641 recv sleep:90
    pile() { seq 22 | on "$C" xargs -P 22 -I@ curl -s -o "$TMP/@" -m 14 "http://$S:7641/ca.crl"; }
    job at "$C" 7641 connection-pileup/twenty-two-wait pile
    serve "$B" 7642 recv "$OK" sleep:90
    pool() { local i; for i in $(seq 22); do talk "$C" $S 7642 "$(ask /)" recv sleep:12 close & done; sleep 13; }
    job at "$C" 7642 connection-pileup/not-idle-pool pool
    wait "${JOBS[@]}"
fi

if wants loss; then
    head -c 3000000 /dev/zero | tr '\0' 'x' >"$HTML/file.bin"
    fetch() { get "$C" -m 30 "http://$S:7651/file.bin"; }
    lossy() { # probability: of the packets from the server to the client
        on "$P" iptables -A FORWARD -p tcp --sport 7651 -m statistic --mode random --probability "$1" -j DROP
        fetch
        on "$P" iptables -D FORWARD -p tcp --sport 7651 -m statistic --mode random --probability "$1" -j DROP
    }
    # the route has a round trip, or loss costs nothing: a queue of 12 Mbit/s
    shape() { on "$P" tc qdisc add dev eth0 root tbf rate 12mbit burst 16kb latency 400ms; }
    shape
    SNAPLEN=96 at "$C" 7651 packet-loss/four-percent-before-the-capture lossy 0.04
    SNAPLEN=96 at "$B" 7651 packet-loss/fifteen-percent-behind-the-capture lossy 0.15
    SNAPLEN=96 at "$C" 7651 packet-loss/not-clean fetch
    burst() {
        fetch & local client=$!
        sleep 0.4
        on "$P" iptables -A FORWARD -p tcp --sport 7651 -j DROP
        sleep 0.03
        on "$P" iptables -D FORWARD -p tcp --sport 7651 -j DROP
        wait $client
    }
    SNAPLEN=96 at "$C" 7651 loss-burst-single/fifty-milliseconds burst
    SNAPLEN=96 at "$C" 7651 loss-burst-single/not-loss-all-the-time lossy 0.04
    on "$P" tc qdisc del dev eth0 root
    # rto-unrecovered, keepalive-probes-unanswered: from some moment on nothing of the server arrives
    dark() { on "$P" iptables -$1 FORWARD -p tcp --sport "$2" -j DROP; }
    serve "$B" 7661 recv "$OK" recv sleep:30
    gone() {
        talk "$C" $S 7661 "$(ask /1)" recv sleep:3 "$(ask /2)" sleep:9 & local client=$!
        sleep 2
        dark A 7661
        sleep 9
        kill $client
    }
    at "$C" 7661 rto-unrecovered/peer-gone-after-one-answer gone
    serve "$B" 7662 recv "$OK" recv "$OK" sleep:1 close
    back() {
        talk "$C" $S 7662 "$(ask /1)" recv sleep:3 "$(ask /2)" recv close & local client=$!
        sleep 2
        dark A 7662
        sleep 2.2
        dark D 7662
        wait $client
    }
    at "$C" 7662 rto-unrecovered/not-back-after-a-second back
    serve "$B" 7663 recv "$OK" sleep:30
    probes() {
        talk "$C" $S 7663 keepalive:1 "$(ask /1)" recv sleep:14 & local client=$!
        sleep 2.5
        [ -n "$1" ] && dark A 7663
        sleep 7
        kill $client
    }
    at "$C" 7663 keepalive-probes-unanswered/not-answered probes ""
    at "$C" 7663 keepalive-probes-unanswered/peer-gone probes dark
fi
