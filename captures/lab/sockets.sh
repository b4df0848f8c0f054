#!/bin/bash
# Connections that hung before the capture began, known by the host's sockets alone (incident S3), and a pool that only idles. About 80 s.
#     sockets.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need ss
OUT=${1:-$CAPTURES/rules/capture-has-nothing}
mkdir -p "$OUT"
lab_begin
# One server takes requests and never answers; the other answers at once and keeps the connection.
serve "$B" 8080 recv sleep:120
serve "$B" 8081 recv "send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" sleep:120
for i in 1 2 3 4 5; do
    spawn "$P" python3 "$LAB_DIR/talk.py" 10.224.26.2 8080 "send:GET /crl HTTP/1.1\r\nHost: crl.example.com\r\n\r\n" sleep:110
    spawn "$P" python3 "$LAB_DIR/talk.py" 10.224.26.2 8081 "send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n" recv sleep:110
done
sleep 64
# A capture that begins now shows none of them: others go on working meanwhile.
serve "$B" 8082 recv "send:HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok" fin
capture "$P" eth1 "$OUT/hung-before.pcap"
HUNG=$LAST
for i in 1 2 3; do get "$P" http://10.224.26.2:8082/; sleep 1; done
capture_end "$HUNG"
on "$P" ss -tnpoi >"$OUT/hung-before.sockets"
# The same host once the hung ones are gone: its pool is no fault.
cp "$OUT/hung-before.pcap" "$OUT/not-an-idle-pool.pcap"
on "$P" ss -K dst 10.224.26.2:8080 >/dev/null
sleep 1
on "$P" ss -tnpoi | grep -v -A1 '10.224.26.2:8080' >"$OUT/not-an-idle-pool.sockets"
grep -c ESTAB "$OUT"/*.sockets
