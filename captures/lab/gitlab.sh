#!/bin/bash
# Incident S1, GitLab Pages 2021: HAProxy's state file restores the old port under a new configuration,
# and a PROXY v2 header goes to a port that speaks TLS. About 50 s.     gitlab.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need haproxy go curl socat
OUT=${1:-$CAPTURES/incidents/gitlab}
mkdir -p "$OUT"
lab_begin
certificates staging.gitlab.io
go_build

NAME=jarv.staging.gitlab.io
spawn "$B" "$TMP/goserver" -cert "$TMP/staging.gitlab.io.crt" -key "$TMP/staging.gitlab.io.key" -https :1443 -http :1080
wait_port "$B" 1443
wait_port "$B" 1080

configuration() { # port and options of the servers
    haproxy_with_state
    cat <<X
frontend pages_http_in
  mode http
  bind 35.229.69.78:80
  default_backend pages_http
backend pages_https
  balance roundrobin
  option httpchk GET /-/readiness
  server web-pages-01 10.224.26.2:$1 check port 1080 inter 3s $2
  server web-pages-02 10.224.26.3:$1 check port 1080 inter 3s $2
backend pages_http
  mode http
  balance roundrobin
  server web-pages-01 10.224.26.2:1080
  server web-pages-02 10.224.26.3:1080
X
}
: >"$TMP/state"
user() { # address scheme
    on "$C" curl -sk -m 8 -o /dev/null -w '%{http_code} %{errormsg}\n' --interface "$1" \
        --resolve "$NAME:443:35.229.69.78" --resolve "$NAME:80:35.229.69.78" "$2://$NAME/" </dev/null
}

configuration 1443 "" >"$TMP/old.cfg"
configuration 2443 "send-proxy-v2" >"$TMP/new.cfg"
spawn "$P" haproxy -db -f "$TMP/old.cfg"
OLD=$LAST
wait_port "$P" 443
sleep 0.5

capture "$P" any "$OUT/both-legs.pcap"
BOTH=$LAST
capture "$P" any "$OUT/client-leg.pcap" net 203.0.113.0/24
CLIENT=$LAST
capture "$P" any "$OUT/backend-leg.pcap" net 10.224.26.0/24
BACKEND=$LAST

echo "before the change:"
FROM=(203.0.113.7 203.0.113.8 203.0.113.9)
for i in 0 1 2 3 4 5 6 7; do
    user "${FROM[i % 3]}" https
    [ $((i % 3)) = 1 ] && user "${FROM[(i + 1) % 3]}" http
    sleep "0.$((5 + i))"
done
echo "straight from the proxy to a backend:"
on "$P" curl -sk -m 8 -o /dev/null -w '%{http_code} %{errormsg}\n' --resolve "$NAME:1443:10.224.26.2" "https://$NAME:1443/"
sleep 1.3

echo "the change, with a reload:"
echo "show servers state" | socat stdio "$TMP/admin.sock" >"$TMP/state"
awk 'NR > 1 {print "  state file:", $2, $4, "port", $19}' "$TMP/state"
spawn "$P" haproxy -db -f "$TMP/new.cfg" -sf "$OLD"
sleep 1.7
echo "show servers state" | socat stdio "$TMP/admin.sock" | awk 'NR > 2 {print "  running:   ", $2, $4, "port", $19}'

echo "after the change:"
for i in $(seq 14); do
    user "${FROM[(i * i) % 3]}" https
    case $i in 2|3|5|8|11|12) user "${FROM[i % 3]}" http ;; esac
    sleep "1.$((i * 7 % 10))"
done
sleep 3
capture_end "$BOTH" "$CLIENT" "$BACKEND"

record "$P" any "$OUT/one-connection.pcap" "tcp port 443 or tcp port 1443" user 203.0.113.7 https
ls -l "$OUT"
