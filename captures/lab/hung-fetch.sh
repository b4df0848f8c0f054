#!/bin/bash
# Incident S3: every page view fetches a CRL over HTTP and IPv6 without a timeout, from a server that above three open requests accepts and
# never answers. nginx and php-fpm on the web server (namespace proxy), the CRL server in the namespace backend. About 2 minutes.
# hung-fetch.sh [OUTPUT [group…]]      groups: incident alike
. "$(dirname "$0")/lib.sh"
FPM=$(command -v php-fpm8.2 || command -v php-fpm8.4 || command -v php-fpm || echo php-fpm)
lab_need nginx php "$FPM" curl ip6tables
php -m | grep -qx curl || { echo "SKIPPED $0: PHP has no curl"; exit 0; }
OUT=${1:-$CAPTURES/incidents/hung-fetch}
shift
WANTED=${*:-incident alike}
wants() { [[ " $WANTED " == *" $1 "* ]]; }
mkdir -p "$OUT"
lab_begin
W=$P
CRL=2001:db8:b::2
WORKERS=34

# --- the web server
mkdir "$TMP/site"
cat >"$TMP/site/page.php" <<Y
<?php
\$ch = curl_init("http://crl.randomcertauthority.test/ca.crl");
curl_setopt(\$ch, CURLOPT_RETURNTRANSFER, true);
curl_setopt(\$ch, CURLOPT_RESOLVE, ["crl.randomcertauthority.test:80:[$CRL]"]);
echo "page, CRL of ", strlen(curl_exec(\$ch)), " octets\n";
Y
echo "only a file" >"$TMP/site/logo.txt"
chmod -R a+rX "$TMP/site"
cat >"$TMP/fpm.conf" <<Y
[global]
error_log = $TMP/fpm.log
daemonize = no
[www]
user = www-data
listen = $TMP/fpm.sock
listen.mode = 0666
pm = static
pm.max_children = $WORKERS
Y
fpm_start() {
    spawn "$W" "$FPM" -F -y "$TMP/fpm.conf"
    FPM_PID=$LAST
    local i
    for i in $(seq 60); do [ -S "$TMP/fpm.sock" ] && break; sleep 0.05; done
}
fpm_start
nginx_start "$W" "server {
  listen 203.0.113.1:80; root $TMP/site;
  location ~ \.php\$ { include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME $TMP/site\$fastcgi_script_name; fastcgi_pass unix:$TMP/fpm.sock; } }"
wait_port "$W" 80
spawn "$B" python3 "$LAB_DIR/hungcrl.py" "$CRL" 80 3
wait_port "$B" 80

FROM=(203.0.113.7 203.0.113.8 203.0.113.9 198.51.100.23)
visitor() { # number path patience       in the background
    spawn "$C" curl -s -m "$3" -o /dev/null --interface "${FROM[$1 % 4]}" -H "Host: www.example.com" "http://203.0.113.1$2"
}

# monitoring that looks at the wrong thing: the CRL server answers ping all the time
monitoring() {
    on "$W" python3 -c "
import socket
sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sock.sendto(bytes([128, 0, 0, 0, 0, 7, 0, $1]) + bytes(range(48)), ('$CRL', 0, 0, 0))" 2>/dev/null
}

ALL="tcp or udp or icmp or icmp6 or arp"
declare -A PID
begin() { # file namespace interface filter…
    local file=$1
    shift
    capture "$1" "$2" "$OUT/$file.pcap" "${@:3}"
    PID[$file]=$LAST
}
if wants incident; then
    begin both-sides "$W" any "$ALL"
    begin until-restart "$W" any "$ALL"
    begin fetches-only "$W" eth1 "$ALL"
    begin visitors-only "$W" eth0 "$ALL"
    begin fetches-sent-only "$W" eth1 "ip6 and src net 2001:db8:b::1"
    begin fetches-received-only "$W" eth1 "ip6 and dst net 2001:db8:b::1"

    echo "pages work:"
    for i in 1 2 3 4 5 6; do
        on "$C" curl -s -m 9 --interface "${FROM[i % 4]}" -H "Host: www.example.com" http://203.0.113.1/page.php </dev/null
        sleep "0.$((2 + i))"
    done
    echo "six at once, then one after the other:"
    for i in 1 2 3 4 5 6; do visitor "$i" /page.php 100; done
    sleep 1
    for i in $(seq 40); do
        visitor "$i" /page.php $((i % 3 ? 100 : 9))
        [ $((i % 7)) = 0 ] && visitor "$i" /logo.txt 9
        sleep "0.$((15 + i * i % 11))"
    done
    echo "$(on "$W" ss -Hnt state established "dst [$CRL]" | wc -l) fetches wait, $(on "$C" ss -Hnt state established dst 203.0.113.1 | wc -l) visitors wait"
    on "$W" ss -Hnto state established "dst [$CRL]" | head -2
    sleep 1
    begin during-the-hang-all "$W" any "$ALL"
    begin during-the-hang "$W" any "tcp and host $CRL"
    for i in 1 2 3 4 5 6 7; do
        visitor "$i" /logo.txt 9
        sleep 1
        monitoring "$i"
        sleep 1.1
    done
    capture_end "${PID[both-sides]}" "${PID[fetches-only]}" "${PID[visitors-only]}" "${PID[fetches-sent-only]}" "${PID[fetches-received-only]}" \
        "${PID[during-the-hang]}" "${PID[during-the-hang-all]}"
    begin restart-only "$W" any "$ALL"
    echo "restart:"
    sleep 1
    stop "$FPM_PID" TERM
    sleep 1.5
    rm -f "$TMP/fpm.sock"
    fpm_start
    sleep 0.5
    for i in 1 2 3; do
        on "$C" curl -s -m 9 --interface "${FROM[i % 4]}" -H "Host: www.example.com" http://203.0.113.1/page.php </dev/null
        sleep 0.4
    done
    capture_end "${PID[until-restart]}" "${PID[restart-only]}"
fi

# --- one port each, all at the same time: the patient ones, and what only looks like a hang
if wants alike; then
    for port in 81 82 87; do
        spawn "$B" python3 "$LAB_DIR/hungcrl.py" "$CRL" "$port" 1
        wait_port "$B" "$port"
    done
    spawn "$B" python3 "$LAB_DIR/hungcrl.py" "$CRL" 83 99 3
    spawn "$B" python3 "$LAB_DIR/waits.py" serve "$CRL" 84 12
    spawn "$B" python3 "$LAB_DIR/waits.py" serve "$CRL" 85 1
    spawn "$B" python3 "$LAB_DIR/waits.py" serve "$CRL" 86 1
    wait_port "$B" 83
    wait_port "$B" 84
    wait_port "$B" 85
    wait_port "$B" 86
    fetch() { # port options…
        spawn "$W" curl -s -g -o /dev/null "${@:2}" "http://[$CRL]:$1/ca.crl"
    }
    begin patient-66s "$W" eth1 "tcp port 81 or icmp6"
    begin keepalive-answered "$W" eth1 "tcp port 82"
    begin with-timeout-5s "$W" eth1 "tcp port 87"
    begin not-slow-3s "$W" eth1 "tcp port 83"
    begin not-long-poll "$W" eth1 "tcp port 84"
    begin not-firewall-drops "$W" eth1 "tcp port 85"
    begin keepalive-unanswered "$W" eth1 "tcp port 86"
    PATIENT=()
    on "$W" curl -s -g -o /dev/null "http://[$CRL]:81/ca.crl" </dev/null
    for i in 1 2 3 4; do
        fetch 81 -m 66 --no-keepalive
        PATIENT+=("$LAST")
        fetch 82 -m 20 --keepalive-time 3
        sleep 0.01
    done
    for i in $(seq 9); do
        fetch 87 -m 5
        [ "$i" -gt 2 ] && sleep 0.3
    done
    for i in 1 2 3 4 5 6; do fetch 83 -m 20; done
    for i in 1 2 3; do spawn "$W" python3 "$LAB_DIR/waits.py" poll "$CRL" 84 4; done
    spawn "$W" python3 "$LAB_DIR/waits.py" open "$CRL" 84 /events 31
    spawn "$W" python3 "$LAB_DIR/waits.py" open "$CRL" 84 /socket 31
    spawn "$W" python3 "$LAB_DIR/waits.py" keep "$CRL" 85 6 20
    spawn "$W" python3 "$LAB_DIR/waits.py" keep "$CRL" 86 4 12 4
    for i in $(seq 60); do
        [ "$(on "$W" ss -Hnt state established '( dport = :85 or dport = :86 )' | wc -l)" = 10 ] && break
        sleep 0.1
    done
    sleep 1
    on "$B" ip6tables -A INPUT -p tcp --dport 85 ! --syn -j DROP
    on "$B" ip6tables -A INPUT -p tcp --dport 86 ! --syn -j DROP
    for i in 1 2 3; do
        sleep 0.8
        fetch 83 -m 20
    done
    sleep 29
    capture_end "${PID[keepalive-answered]}" "${PID[with-timeout-5s]}" "${PID[not-slow-3s]}" "${PID[not-firewall-drops]}" "${PID[keepalive-unanswered]}" "${PID[not-long-poll]}"
    wait "${PATIENT[@]}" 2>/dev/null
    capture_end "${PID[patient-66s]}"
fi
for file in "${!PID[@]}"; do echo "$(tcpdump -nr "$OUT/$file.pcap" 2>/dev/null | wc -l) packets, $(stat -c %s "$OUT/$file.pcap") octets  $file"; done
