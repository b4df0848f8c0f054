#!/bin/bash
# Live for a long time: a steady rate of healthy requests, and every minute another fault at another port. Prints a table of memory and of
# what was found; exit code 1 when a fault was missed, told twice, or memory grew.      soak.sh PROGRAM [MINUTES] [REQUESTS PER SECOND]
. "$(dirname "$0")/lib.sh"
PROGRAM=$(realpath "${1:?which program: soak.sh PROGRAM}")
MINUTES=${2:-30}
RATE=${3:-100}
lab_need nginx curl
lab_begin
nginx_start "$B" 'server { listen 10.224.26.2:80; }'
wait_port "$B" 80
mkdir -m 777 "$TMP/proof"
ip netns exec "$P" "$PROGRAM" live -i eth1 --format jsonl --evidence "$TMP/proof" --ring 16M 2>"$TMP/live.err" |
    python3 -u "$LAB_DIR/stamp.py" >"$TMP/live.out" &
STAMP=$!
sleep 1
LIVE=$(ip netns pids "$P" | while read -r pid; do [ "$(readlink "/proc/$pid/exe")" = "$PROGRAM" ] && echo "$pid"; done)
PIDS+=("$LIVE")
spawn "$P" python3 "$LAB_DIR/steady.py" 10.224.26.2 80 "$RATE" $((MINUTES * 60 + 5))
ask() { # port words...     a request, given up after 13 s
    on "$P" timeout 13 python3 "$LAB_DIR/talk.py" 10.224.26.2 "$1" "send:GET /$2 HTTP/1.1\r\nHost: www.example.com\r\n\r\n" recv >/dev/null 2>&1 &
}
: >"$TMP/faults"
for minute in $(seq "$MINUTES"); do
    port=$((20000 + minute))
    begin=$(date +%s.%N)
    case $((minute % 5)) in
        0) kind=refused && ask $port a && ask $port b ;;
        1) kind=hang && serve "$B" $port recv sleep:50 && ask $port a && ask $port b && ask $port c ;;
        2) kind=reset && serve "$B" $port recv rst && ask $port a && ask $port b ;;
        3) kind=closed && serve "$B" $port recv fin && ask $port a && ask $port b ;;
        4) kind=error && serve "$B" $port recv "send:HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" fin &&
            for i in 1 2 3 4 5 6; do ask $port $i; done ;;
    esac
    echo "$begin $port $kind" >>"$TMP/faults"
    sleep "$(python3 -c "import time; print(max(0, $begin + 60 - time.time()))")"
    echo "$minute $(awk '/^VmRSS/ {print $2}' "/proc/$LIVE/status")" >>"$TMP/memory"
done
kill -INT "$LIVE"
wait "$STAMP"
cat "$TMP/live.err"
python3 "$LAB_DIR/soak.py" "$TMP"
