#!/bin/bash
# Live diagnosis beside real servers: the GitLab incident and a hung upstream while tcpwhy watches the proxy's interfaces. About two and a half minutes.
#     live.sh PROGRAM        exit code 1 when something did not hold
# Checked: how soon a finding is told, that the evidence opens in tshark with its comments on the right frames and alone names the same
# cause, that the file written says what the interface said, that a parallel tcpdump leads to the same findings, rights and signals.
. "$(dirname "$0")/lib.sh"
PROGRAM=$(realpath "${1:?which program: live.sh PROGRAM}")
lab_need haproxy go curl socat nginx tshark setcap
lab_begin
certificates staging.gitlab.io
go_build
FAILED=0
check() { # what command...
    local what=$1
    shift
    if "$@"; then echo "ok      $what"; else echo "FAILED  $what"; FAILED=1; fi
}

NAME=jarv.staging.gitlab.io
spawn "$B" "$TMP/goserver" -cert "$TMP/staging.gitlab.io.crt" -key "$TMP/staging.gitlab.io.key" -https :1443 -http :1080
wait_port "$B" 1443
spawn "$B" python3 "$LAB_DIR/serve.py" 8080 recv sleep:60
wait_port "$B" 8080
# Incident S3: connections that wait for an answer since long before anybody listens (the end of this script).
serve "$B" 8083 recv sleep:240
for i in 1 2 3 4 5; do
    spawn "$P" python3 "$LAB_DIR/talk.py" 10.224.26.2 8083 "send:GET /crl HTTP/1.1\r\nHost: crl.example.com\r\n\r\n" sleep:230
done
HUNG_SINCE=$SECONDS
sleep 4
configuration() { # port and options of the server
    haproxy_with_state
    cat <<X
backend pages_https
  option httpchk GET /-/readiness
  server web-pages-01 10.224.26.2:$1 check port 1080 inter 3s $2
X
}
: >"$TMP/state"
configuration 1443 "" >"$TMP/old.cfg"
configuration 2443 "send-proxy-v2" >"$TMP/new.cfg"
spawn "$P" haproxy -db -f "$TMP/old.cfg"
OLD=$LAST
wait_port "$P" 443
nginx_start "$P" 'server { listen 35.229.69.78:80; location / { proxy_pass http://10.224.26.2:8080; proxy_read_timeout 60s; } }'
wait_port "$P" 80
user() { on "$C" curl -sk -m "${2:-8}" -o /dev/null --interface 203.0.113.7 --resolve "$NAME:443:35.229.69.78" "$1" </dev/null; }

# Anybody's folder: the program becomes nobody.
mkdir -m 777 "$TMP/proof"
ip netns exec "$P" "$PROGRAM" live -i any --format jsonl -w "$TMP/ours.pcapng" --evidence "$TMP/proof" 2>"$TMP/live.err" |
    python3 -u "$LAB_DIR/stamp.py" >"$TMP/live.out" &
STAMP=$!
sleep 1
LIVE=$(ip netns pids "$P" | while read -r pid; do [ "$(readlink "/proc/$pid/exe")" = "$PROGRAM" ] && echo "$pid"; done)
PIDS+=("$LIVE")
capture "$P" any "$TMP/theirs.pcap"
THEIRS=$LAST
for i in 1 2 3 4; do user "https://$NAME/"; sleep 0.3; done
echo "show servers state" | socat stdio "$TMP/admin.sock" >"$TMP/state"
spawn "$P" haproxy -db -f "$TMP/new.cfg" -sf "$OLD"
sleep 2
for i in 1 2 3; do user "https://$NAME/"; sleep 0.4; done
user "http://35.229.69.78/report" 30 &
sleep 18
for i in 1 2; do user "https://$NAME/"; sleep 0.4; done
sleep 1
check "no thread of it holds a capability" bash -c '! grep -hE "^Cap(Inh|Prm|Eff|Amb)" /proc/'"$LIVE"'/task/*/status | grep -qv 0000000000000000'
capture_end "$THEIRS"
kill -INT "$LIVE"
wait "$STAMP"

indexes() { tshark -r "$TMP/ours.pcapng" -T fields -e sll.ifindex 2>/dev/null | sort -u | wc -l; }
check "on any, interfaces are told apart ($(indexes) of them)" [ "$(indexes)" = 2 ]
check "live: findings, when and what (live.py)" python3 "$LAB_DIR/live.py" "$PROGRAM" "$TMP"

# Rights: none, one file capability, and then the same without root.
install -m 755 "$PROGRAM" "$TMP/tcpwhy"
without() { on "$P" setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set="${1:--all}" "${@:2}"; }
without -all "$TMP/tcpwhy" live -i eth0 --for 1 >"$TMP/out" 2>&1
check "without rights: one clear line and the remedy ($?)" grep -q "CAP_NET_RAW is missing" "$TMP/out"
sed 's/^/          /' "$TMP/out"
setcap cap_net_raw+ep "$TMP/tcpwhy"
without -all,+net_raw "$TMP/tcpwhy" live -i eth0 --for 2 >"$TMP/out" 2>&1
check "with cap_net_raw alone it listens" grep -q "listening on eth0" "$TMP/out"

# An interface that goes down and comes back, and one that is deleted.
datagrams() { # how many, to 10.224.26.2, of 1,400 octets, one every 10 ms
    on "$P" python3 -c "
import socket, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range($1):
    try: sock.sendto(bytes(1400), ('${2:-10.224.26.2}', 9999))
    except OSError: pass
    time.sleep(0.01)"
}
ip -n "$P" link add spare0 type veth peer name spare0 netns "$C"
ip -n "$C" link set spare0 up
ip -n "$P" addr add 192.0.2.7/24 dev spare0
ip -n "$P" link set spare0 up
spawn "$P" "$PROGRAM" live -i spare0 -i eth1 --for 8 -w "$TMP/down.pcapng"
DOWN=$LAST
sleep 1.5
ip -n "$P" link set spare0 down
sleep 1
ip -n "$P" link set spare0 up
sleep 0.5
ip -n "$P" neigh replace 192.0.2.9 lladdr 02:00:00:00:00:09 dev spare0
datagrams 20 192.0.2.9
sleep 1
ip -n "$P" link del spare0
sleep 0.5
datagrams 20
wait "$DOWN"
STATUS=$?
check "an interface that goes away ends nothing ($STATUS)" [ $STATUS = 0 ]
grep -a "tcpwhy:" "$TMP/spawn.log" | sed 's/^/          /'
over() { [ "$(tshark -r "$TMP/down.pcapng" -Y "ip.dst==$1 && udp" 2>/dev/null | wc -l)" -ge 20 ]; }
check "what came after it was up again is in the file" over 192.0.2.9
check "what came over the other one afterwards is in the file" over 10.224.26.2

# A disk that is full.
mkdir "$TMP/full"
mount -t tmpfs -o size=64k,mode=777 tmpfs "$TMP/full"
datagrams 300 &
on "$P" "$PROGRAM" live -i eth1 --for 4 -w "$TMP/full/all.pcapng" >"$TMP/out" 2>"$TMP/err"
STATUS=$?
wait $!
check "a full disk: said once, exit code 2, the report is there" [ "$STATUS" = 2 -a "$(grep -c 'cannot be written any further' "$TMP/err")" = 1 -a -s "$TMP/out" ]
sed 's/^/          /' "$TMP/err"
"$PROGRAM" --format json "$TMP/full/all.pcapng" >"$TMP/out.json"
check "and what was written can be read" [ -s "$TMP/out.json" ]
umount "$TMP/full"

# Killed: what was written is readable.
spawn "$P" "$PROGRAM" live -i eth1 -w "$TMP/killed.pcapng"
KILLED=$LAST
sleep 1
datagrams 200
{ kill -KILL "$KILLED" && wait "$KILLED"; } 2>/dev/null
check "after SIGKILL the file is readable up to its last block" bash -c \
    "[ \$('$PROGRAM' --format json '$TMP/killed.pcapng' | python3 -c 'import json,sys; print(json.load(sys.stdin)[\"counts\"][\"packets\"][\"udp\"])') -gt 100 ]"

# What hung before anybody listened, and sends nothing since.
sleep $((HUNG_SINCE + 70 > SECONDS ? HUNG_SINCE + 70 - SECONDS : 0))
on "$P" "$PROGRAM" live -i eth1 --for 4 >"$TMP/out" 2>"$TMP/err" &
HUNG=$!
sleep 2
datagrams 5
wait "$HUNG"
check "connections that hung before the start are named" grep -Eq "5 connections.*10.224.26.2:8083|10.224.26.2:8083.*5 connections" <(tr -s ' \n' ' ' <"$TMP/out")
sed 's/^/          /' "$TMP/out" | head -12
exit $FAILED
