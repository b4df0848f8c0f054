#!/bin/bash
# Incident S2: the name of a backend moves to another address, the proxy keeps the old one.
# About 4 minutes.     stale-address.sh [OUTPUT [case…]]     cases: silent refused taken nginx apache checked down follows
#
#   clients 203.0.113.7 .8 .9 -- 203.0.113.1 proxy 10.224.26.1 -- 10.224.26.2 (old), .3 (new), .4 (DNS)
. "$(dirname "$0")/lib.sh"
lab_need apache2 haproxy nginx redis-server curl iptables
OUT=${1:-$CAPTURES/incidents/stale-address}
shift
CASES=${*:-silent refused taken nginx apache checked down follows}
wants() { [[ " $CASES " == *" $1 "* ]]; }
mkdir -p "$OUT"
lab_begin
OLD=10.224.26.2 NEW=10.224.26.3 NAME=backend.example.com
M=/usr/lib/apache2/modules
echo "nameserver 10.224.26.4" >"$TMP/resolv.conf"
echo $OLD >"$TMP/record"
spawn "$B" python3 "$LAB_DIR/movingdns.py" 10.224.26.4 "$TMP/record" 2
nginx_start "$B" "server { listen $OLD:80; } server { listen $NEW:80; }"
wait_port "$B" 80
for i in $(seq 60); do
    on "$B" ss -Hlun "sport = :53" | grep -q . && break
    sleep 0.05
done

WITH_DNS=(sh -c 'mount --bind "$0" /etc/resolv.conf; exec "$@"' "$TMP/resolv.conf")
named() { # command...   on the proxy, with the lab's DNS server as resolver
    on "$P" "${WITH_DNS[@]}" "$@"
}
spawn() { # as in lib.sh, but what runs on the proxy asks the lab's DNS server
    local ns=$1 first=()
    shift
    [ "$ns" = "$P" ] && first=("${WITH_DNS[@]}")
    ip netns exec "$ns" "${first[@]}" "$@" >>"$TMP/spawn.log" 2>&1 </dev/null &
    LAST=$!
    PIDS+=("$LAST")
}
apache() {
    apache_start "$P" "Listen 203.0.113.1:80
LoadModule proxy_module $M/mod_proxy.so
LoadModule proxy_http_module $M/mod_proxy_http.so
ProxyPass / http://$NAME/ connectiontimeout=2 timeout=5 retry=6"
    PROXY=$LAST
    wait_port "$P" 80
}
haproxy() { # options of the server line [more sections]
    printf '%s\n' "defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
  retries 1
${2:-}
frontend web
  bind 203.0.113.1:80
  default_backend app
backend app
  server app1 $NAME:80 $1" >"$TMP/moving.cfg"
    spawn "$P" haproxy -db -f "$TMP/moving.cfg"
    PROXY=$LAST
    wait_port "$P" 80
}
user() { # last number of the client's address [seconds]
    on "$C" curl -s -m "${2:-8}" -o /dev/null -w '  %{http_code} after %{time_total} s %{errormsg}\n' --interface "203.0.113.$1" \
        -H "Host: www.example.com" http://203.0.113.1/ </dev/null
}
other_process() { # something else on the proxy host asks the DNS and uses the answer
    named curl -s -m 3 -o /dev/null -w "  another process: %{http_code} from %{remote_ip}\n" "http://$NAME/" </dev/null
}
silent() { on "$B" iptables -I INPUT -p tcp -d $OLD -j DROP; }
refuses() { on "$B" iptables -I INPUT -p tcp -d $OLD -j REJECT --reject-with tcp-reset; }
moves() { echo $NEW >"$TMP/record"; }
before() { other_process; user 7; user 8; user 9; sleep 0.5; }
after() {
    local i
    sleep 2.2
    other_process
    for i in 7 8 9; do user $i; sleep 0.3; done
    sleep 6
    for i in 8 7 9 8; do user $i; sleep 0.2; done
    other_process
}
points() { # suffix
    POINTS=()
    capture "$P" any "$OUT/$1-both-legs.pcap" net 203.0.113.0/24 or net 10.224.26.0/24; POINTS+=("$LAST")
    [ -n "${ONE:-}" ] && return
    capture "$P" any "$OUT/$1-no-dns.pcap" tcp port 80; POINTS+=("$LAST")
    capture "$P" any "$OUT/$1-backend-leg.pcap" tcp and net 10.224.26.0/24; POINTS+=("$LAST")
    capture "$P" any "$OUT/$1-client-leg.pcap" net 203.0.113.0/24; POINTS+=("$LAST")
}
again() { # back to the beginning
    stop "$PROXY"
    on "$B" iptables -F INPUT
    on "$P" ss -K dst $OLD >/dev/null 2>&1 # what still repeats itself would be in the next capture
    on "$B" ss -K src $OLD >/dev/null 2>&1
    echo $OLD >"$TMP/record"
    sleep 0.5
}

if wants silent; then
    echo "HAProxy without resolvers, the old address falls silent:"
    haproxy ""
    points haproxy
    before; moves; silent; after
    capture_end "${POINTS[@]}"
    echo "the same, from the middle, stopped while a request waits:"
    user 7 9 & WAITS=$!
    sleep 0.5
    capture "$P" any "$OUT/haproxy-mid-stream.pcap"; MID=$LAST
    wait "$WAITS"
    other_process
    user 8 9 & WAITS=$!
    sleep 2
    capture_end "$MID"
    wait "$WAITS"
    again
fi
if wants refused; then
    ONE=1
    echo "HAProxy without resolvers, the old address refuses:"
    haproxy ""
    points haproxy-refused
    before; moves; refuses; after
    capture_end "${POINTS[@]}"
    again
fi
if wants taken; then
    ONE=1
    echo "HAProxy without resolvers, somebody else's Redis has the old address:"
    haproxy ""
    spawn "$B" redis-server --port 6399 --bind 0.0.0.0 --protected-mode no --save "" --dir "$TMP"
    wait_port "$B" 6399
    points haproxy-taken
    before; moves; on "$B" iptables -t nat -I PREROUTING -p tcp -d $OLD --dport 80 -j REDIRECT --to-ports 6399; after
    capture_end "${POINTS[@]}"
    on "$B" iptables -t nat -F PREROUTING
    again
fi
if wants nginx; then
    ONE=1
    echo "nginx, which asks once at its start:"
    nginx_start "$P" "server { listen 203.0.113.1:80; location / { proxy_pass http://$NAME; proxy_connect_timeout 2s; } }"
    PROXY=$LAST
    wait_port "$P" 80
    points nginx
    before; moves; silent; after
    capture_end "${POINTS[@]}"
    again
fi
if wants apache; then
    ONE=1
    echo "Apache, which asks again after a failed connection:"
    apache
    points apache
    before; moves; silent; after
    capture_end "${POINTS[@]}"
    again
fi
if wants checked; then
    ONE=1
    echo "HAProxy with a check: no server is left, 503 at once:"
    haproxy "check inter 1s fall 2"
    points haproxy-checked
    before; moves; silent; after
    capture_end "${POINTS[@]}"
    again
fi
if wants down; then
    ONE=1
    echo "look-alike: the server is down, its name did not move:"
    haproxy ""
    points not-moved-server-down
    before; silent; after
    capture_end "${POINTS[@]}"
    again
fi
if wants follows; then
    ONE=1
    echo "healthy: HAProxy follows the DNS:"
    haproxy "resolvers lab resolve-prefer ipv4 init-addr last,libc" "resolvers lab
  nameserver a 10.224.26.4:53
  hold valid 1s
  timeout resolve 1s"
    points not-stale-proxy-follows
    before; moves; sleep 3; silent; after
    capture_end "${POINTS[@]}"
    again
fi
ls -l "$OUT"
