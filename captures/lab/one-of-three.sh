#!/bin/bash
# One of three backends is broken behind a busy HAProxy that serves HTTP/1 in the clear and HTTP inside TLS: most requests are well, all ask for
# the same few paths, and connections to the backends are shared, so that no leg can be joined. About 70 seconds.
# one-of-three.sh [OUTPUT [case…]]     cases: slow in-turn asks pool https
. "$(dirname "$0")/lib.sh"
lab_need haproxy curl
OUT=${1:-$CAPTURES/rules}
shift
WANTED=${*:-slow in-turn asks https pool}
lab_begin
certificates www.example.com
mkdir -p "$TMP/mood"
for n in 2 3 4; do
    echo well >"$TMP/mood/$n"
    spawn "$B" python3 "$LAB_DIR/moody.py" "10.224.26.$n" 8080 "$TMP/mood/$n"
    SERVERS+=("$LAST")
done
haproxy_start "$P" "global
  stats socket $TMP/admin.sock mode 600 level admin
defaults
  mode http
  option forwardfor
  timeout connect 2s
  timeout client 20s
  timeout server 4s
frontend shop
  bind 203.0.113.1:80
  bind 203.0.113.1:443 ssl crt $TMP/www.example.com.pem
  http-request return status 500 if { nbsrv(of_its_own) lt 1 }
  http-request redirect scheme https code 301 if { hdr(host) old.example.com } !{ ssl_fc }
  default_backend shop
backend of_its_own
  server none 127.0.0.1:9
backend shop
  server one 10.224.26.2:8080
  server two 10.224.26.3:8080
  server three 10.224.26.4:8080"
for n in 2 3 4; do until on "$B" curl -s -m 1 -o /dev/null "http://10.224.26.$n:8080/"; do sleep 0.1; done; done
wait_port "$P" 443
itself() { # down|up      HAProxy answers 500 of its own accord while the server of another backend is down
    on "$P" python3 -c "
import socket
sock = socket.socket(socket.AF_UNIX)
sock.connect('$TMP/admin.sock')
sock.sendall(b'set server of_its_own/none state ' + (b'maint' if '$1' == 'down' else b'ready') + b'\n')
sock.recv(999)"
}
visitors() { # seconds
    local n pids=()
    for n in 7 8 9; do
        on "$C" timeout 20 python3 "$LAB_DIR/visitor.py" "203.0.113.$n" "$1" </dev/null >>"$TMP/visitors.log" 2>&1 &
        pids+=($!)
    done
    wait "${pids[@]}"
}
mood() { echo "$1" >"$TMP/mood/3"; }
case_of() { # case file mood
    [[ " $WANTED " == *" $1 "* ]] || return 0
    broken() {
        visitors 9 &
        local all=$!
        sleep 2
        mood "$MOOD"
        wait "$all"
        mood well
    }
    MOOD=$3
    SNAPLEN=300 record "$P" any "$OUT/$2.pcap" "tcp port 80 or tcp port 443 or tcp port 8080" broken
    sleep 4
}
case_of slow slow-response/one-of-three-behind-a-busy-proxy slow
# first a backend fails, and when it is well again the proxy itself: two causes
in_turn() {
    visitors 10 &
    local all=$!
    sleep 1.5
    mood fails
    sleep 2.5
    mood well
    sleep 2.5
    itself down
    sleep 2
    itself up
    wait "$all"
}
if [[ " $WANTED " == *" in-turn "* ]]; then
    SNAPLEN=300 record "$P" any "$OUT/http-server-error/backend-then-proxy.pcap" "tcp port 80 or tcp port 443 or tcp port 8080" in_turn
fi
sleep 3
# an application whose database nobody serves any more
if [[ " $WANTED " == *" asks "* ]]; then
    asking() { visitors 7 & local all=$!; sleep 2; mood asks; wait "$all"; mood well; }
    SNAPLEN=300 record "$B" eth0 "$OUT/http-server-error/behind-it-a-port-that-refuses.pcap" "tcp port 8080 or tcp port 6379" asking
fi
# who asks in the clear is sent to https, goes there, and begins in the clear again
if [[ " $WANTED " == *" https "* ]]; then
    again() {
        local n
        for n in 1 2 3 4 5 6 7 8 9; do get "$C" -L --resolve old.example.com:80:203.0.113.1 --resolve old.example.com:443:203.0.113.1 http://old.example.com/api/cart; done
    }
    SNAPLEN=300 record "$C" eth0 "$OUT/http-redirect-loop/not-where-https-answers.pcap" "tcp port 80 or tcp port 443" again
fi
# the whole pool is stopped at once
if [[ " $WANTED " == *" pool "* ]]; then
    ended() { visitors 6 & local all=$!; sleep 2; local pid; for pid in "${SERVERS[@]}"; do stop "$pid" KILL; done; wait "$all"; }
    SNAPLEN=300 record "$P" any "$OUT/service-down/pool-of-three.pcap" "tcp port 80 or tcp port 8080" ended
fi
