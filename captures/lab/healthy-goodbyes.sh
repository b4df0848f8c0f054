#!/bin/bash
# Connections that a server closes without a word, and means well: PostgreSQL's CancelRequest, memcached's quit and noreply, HAProxy's hello
# check of a TLS port, which takes an alert for a sign of life; a job that closes all its connections when it is done. Every capture here must
# stay without a finding above notice. About 25 s.                                                         healthy-goodbyes.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/certs.sh"
lab_need nginx haproxy memcached postgres psql
R=${1:-$CAPTURES/healthy}
S=10.224.26.2
mkdir -p "$R"
lab_begin

# --- PostgreSQL: Ctrl-C in psql sends a CancelRequest on a connection of its own -----------------------------------
postgres_start "$B" $S
wait_port "$B" 5432
cancelled() {
    local i query
    for i in 1 2; do
        # A process in the background ignores the interrupt of the keyboard unless it is told otherwise.
        ip netns exec "$C" python3 -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])' \
            psql -h $S -U lab postgres -c 'SELECT pg_sleep(20)' >>"$TMP/load.log" 2>&1 &
        query=$!
        sleep 1.5
        stop $query INT
        on "$C" psql -h $S -U lab postgres -c 'SELECT 1' >>"$TMP/load.log" 2>&1
    done
}
record "$C" eth0 "$R/99-postgres-cancel-request.pcap" "tcp port 5432" cancelled

# --- memcached: quit is answered by a close, noreply by nothing ---------------------------------------------------------
spawn "$B" memcached -u nobody -l $S -p 11211
wait_port "$B" 11211
farewells() {
    local i
    for i in 1 2 3; do talk "$C" $S 11211 'send:quit\r\n' eof:3; done
    talk "$C" $S 11211 'send:set a 0 0 3 noreply\r\nabc\r\nset b 0 0 1 noreply\r\nx\r\nquit\r\n' eof:3
    talk "$C" $S 11211 'send:set c 0 60 3\r\nabc\r\n' recv 'send:get c\r\n' recv 'send:quit\r\n' eof:3
}
record "$C" eth0 "$R/100-memcached-quit-and-noreply.pcap" "tcp port 11211" farewells

# --- HAProxy: option ssl-hello-chk ---------------------------------------------------------------------------------------
certificates www.example.com
nginx_start "$B" "ssl_certificate $TMP/www.example.com.crt; ssl_certificate_key $TMP/www.example.com.key; server { listen 443 ssl; }"
wait_port "$B" 443
checked() {
    haproxy_start "$P" "defaults
  mode tcp
  $HAPROXY_TIMES
listen tls
  bind :8443
  option ssl-hello-chk
  server a $S:443 check inter 2s"
    sleep 9
    on "$C" curl -sk -o /dev/null --resolve www.example.com:8443:203.0.113.1 https://www.example.com:8443/
    stop "$LAST"
}
record "$P" eth1 "$R/101-haproxy-hello-check.pcap" "tcp port 443" checked

# --- A job with 25 connections of its own, opened before the capture begins, that asks and is done -------------------------
nginx_start "$B" "keepalive_timeout 30s; server { listen 80; }"
wait_port "$B" 80
cat >"$TMP/job.py" <<'X'
import socket
import time

connections = [socket.create_connection(("10.224.26.2", 80)) for _ in range(25)]
time.sleep(1.5)
for _ in range(3):
    for one in connections:
        one.sendall(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
        one.recv(4000)
    time.sleep(0.4)
for one in connections:
    one.close()
X
ip netns exec "$C" python3 "$TMP/job.py" &
JOB=$!
PIDS+=($JOB)
sleep 0.7
done_with() { wait $JOB; get "$C" "http://$S/"; }
record "$C" eth0 "$R/106-a-job-that-is-done.pcap" "tcp port 80" done_with
