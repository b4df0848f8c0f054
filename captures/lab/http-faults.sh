#!/bin/bash
# Family J, what servers and applications answer, and the refusals of family I: nginx, Apache, HAProxy, an application in Python,
# PostgreSQL, Redis and sshd. About 1 minute.     http-faults.sh [OUTPUT [group…]]      groups: errors requests cuts greetings
. "$(dirname "$0")/lib.sh"
lab_need nginx apache2 haproxy curl redis-server redis-cli postgres psql sshd ssh-keygen ssh
OUT=${1:-$CAPTURES/rules}
shift
GROUPS_WANTED=${*:-errors requests cuts greetings}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
R=$OUT
S=10.224.26.2
FRONT=203.0.113.1
lab_begin
spawn "$B" python3 "$LAB_DIR/faultyapp.py" 8000
nginx_start "$B" "server { listen 80 sndbuf=16k; server_name www.example.com; }"
WEB=$NGINX_DIR
apache_start "$B" "Listen 81"
haproxy_start "$B" "defaults
  mode http
  $HAPROXY_TIMES
frontend plain
  bind :82
  http-request return status 200 content-type text/plain string hello"
nginx_start "$P" "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host \$host; proxy_buffering off;
  proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
  server { listen 80; location / { proxy_pass http://$S:8000; } }"
for port in 80 81 82 8000; do wait_port "$B" $port; done
wait_port "$P" 80
app() { local path; for path in "$@"; do get "$C" "http://$S:8000/$path"; sleep 0.1; done; }
say() { talk "$C" $S "$1" "send:$2" eof:2; sleep 0.1; }
at_backend() { record "$B" eth0 "$R/$1.pcap" "port $2" "${@:3}"; }
both() { record "$P" any "$R/$1.pcap" "port 80 or port 8000" "${@:2}"; }

if wants errors; then
T=http-server-error
at_backend $T/application-500 8000 app ok crash ok
every_third() { local n; for n in 1 2 3 4 5 6; do app ok ok crash; done; }
at_backend $T/one-in-three 8000 every_third
passed_on() { get "$C" "http://$FRONT/crash"; get "$C" "http://$FRONT/ok"; }
both $T/behind-nginx passed_on
keepalive() { get "$C" "http://$S:8000/ok" "http://$S:8000/crash" "http://$S:8000/ok"; }
at_backend $T/on-a-kept-connection 8000 keepalive
at_backend $T/not-404-401-and-400 8000 app missing login form ok
at_backend $T/not-maintenance 8000 app busy ok
probe() { local n; for n in 1 2 3; do get "$C" -A kube-probe/1.29 "http://$S:8000/crash"; app ok; done; }
at_backend $T/not-a-check-that-fails 8000 probe

fi
if wants requests; then
T=http-bad-request
MISSING='GET / HTTP/1.1\r\nUser-Agent: lab\r\n\r\n'
at_backend $T/nginx-no-host 80 say 80 "$MISSING"
at_backend $T/apache-no-host 81 say 81 "$MISSING"
at_backend $T/haproxy-space-in-target 82 say 82 'GET /two words HTTP/1.1\r\nHost: www.example.com\r\n\r\n'
at_backend $T/nginx-space-in-name 80 say 80 'GET / HTTP/1.1\r\nHost: www.example.com\r\nX Y : 1\r\n\r\n'
at_backend $T/apache-space-in-name 81 say 81 'GET / HTTP/1.1\r\nHost: www.example.com\r\nX-Y : 1\r\n\r\n'
at_backend $T/haproxy-length-twice 82 say 82 \
    'POST / HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd'
at_backend $T/nginx-no-request 80 say 80 'what is this\r\n\r\n'
at_backend $T/not-the-applications-own 8000 app form ok
at_backend $T/not-accepted 80 get "$C" "http://$S:80/" "http://$S:80/missing"

T=http-header-too-large
long() { head -c "$1" /dev/zero | tr '\0' "${2:-c}"; }
cookie() { get "$C" -H "Cookie: session=$(long "$2")" "http://$S:$1/"; }
at_backend $T/nginx-cookie 80 cookie 80 9000
at_backend $T/apache-cookie 81 cookie 81 9000
at_backend $T/haproxy-cookie 82 cookie 82 17000
at_backend $T/python-cookie-431 8000 cookie 8000 66000
at_backend $T/nginx-target-414 80 get "$C" "http://$S:80/$(long 9000 u)"
both $T/answer-too-large-for-nginx get "$C" "http://$FRONT/fat"
at_backend $T/not-large-but-taken 80 cookie 80 7000
at_backend $T/not-large-answer-taken 8000 app fat
fi
if wants cuts; then
T=http-response-truncated
at_backend $T/length 8000 app short
at_backend $T/chunked 8000 app chunks
cut() { # nginx sends a file that shrinks meanwhile: a deploy that overwrites it in place
    head -c 300000 /dev/zero >"$WEB/html/big.bin"
    (sleep 0.7; : >"$WEB/html/big.bin") &
    talk "$C" $S 80 rcvbuf:8192 'send:GET /big.bin HTTP/1.1\r\nHost: www.example.com\r\n\r\n' recv sleep:0.9 eof:3
}
at_backend $T/nginx-file-shrank 80 cut
short_proxied() { get "$C" "http://$FRONT/short"; }
both $T/behind-nginx short_proxied
ended() { app close; get "$C" -I "http://$S:8000/short"; get "$C" -z 'next year' "http://$S/index.html"; }
record "$B" eth0 "$R/$T/not-ended-by-close-head-304.pcap" "port 8000 or port 80" ended
left() { get "$C" -m 0.5 --limit-rate 20000 "http://$S/large.txt"; }
at_backend $T/not-the-client-left 80 left

fi
if wants greetings; then
T=service-greeting-error
PGBIN=$(dirname "$(readlink -f "$(command -v postgres)")")
AS_PG=(setpriv --reuid postgres --regid postgres --clear-groups)
install -d -o postgres "$TMP/pg"
on "$B" "${AS_PG[@]}" "$PGBIN/initdb" -D "$TMP/pg/data" -A trust -U ann >"$TMP/pg.log" 2>&1
printf 'host all ann 203.0.113.7/32 trust\n' >"$TMP/pg/data/pg_hba.conf"
spawn "$B" "${AS_PG[@]}" "$PGBIN/postgres" -D "$TMP/pg/data" -c listen_addresses=$S -c unix_socket_directories="$TMP/pg" \
    -c max_connections=2 -c superuser_reserved_connections=0 -c max_wal_senders=0
wait_port "$B" 5432
sql() { on "$C" psql -qAt "host=$S user=ann dbname=postgres sslmode=disable gssencmode=disable $1" -c "${2:-select 1}" >/dev/null 2>&1; }
sleep 1
full() {
    local n
    for n in 1 2; do sql '' 'select pg_sleep(2)' & done
    sleep 0.7
    sql ''
    sleep 1.6
}
at_backend $T/postgresql-too-many-clients 5432 full
bob() { sql user=bob; sql ''; }
at_backend $T/postgresql-no-hba-entry 5432 bob
usual() { # asks for TLS first
    on "$C" psql -qAt "host=$S user=bob dbname=postgres" -c 'select 1' >/dev/null 2>&1
}
at_backend $T/postgresql-asked-for-tls-first 5432 usual
at_backend $T/not-postgresql-answers 5432 sql ''
spawn "$B" redis-server --port 6379 --save '' --appendonly no --dir "$TMP" --bind 0.0.0.0
spawn "$B" redis-server --port 6380 --save '' --appendonly no --dir "$TMP" --bind 0.0.0.0 --protected-mode no --maxclients 1
spawn "$B" redis-server --port 6381 --save '' --appendonly no --dir "$TMP" --bind 0.0.0.0 --requirepass secret
for port in 6379 6380 6381; do wait_port "$B" $port; done
redis() { on "$C" redis-cli -h $S "$@" >/dev/null 2>&1 </dev/null; }
at_backend $T/redis-protected-mode 6379 redis ping
hold() { talk "$C" $S 6380 'send:PING\r\n' recv sleep:1 close & sleep 0.4; redis -p 6380 ping; sleep 1; }
at_backend $T/redis-max-clients 6380 hold
unasked() { redis -p 6381 get x; redis -p 6381 -a secret nonsense; }
at_backend $T/not-redis-refuses-a-command 6381 unasked
ssh-keygen -q -t ed25519 -N '' -f "$TMP/hostkey"
printf 'Port 22\nHostKey %s\nUsePAM no\nPidFile none\nUseDNS no\nMaxStartups 1\n' "$TMP/hostkey" >"$TMP/sshd_config"
spawn "$B" sh -c "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f $TMP/sshd_config"
wait_port "$B" 22
crowd() { talk "$C" $S 22 recv sleep:1 close & sleep 0.4; talk "$C" $S 22 recv eof:1; sleep 1; }
at_backend $T/sshd-max-startups 22 crowd
serve "$B" 3306 'send:\x17\x00\x00\x00\xff\x10\x04Too many connections' close
at_backend $T/mysql-too-many-connections 3306 talk "$C" $S 3306 eof:1
serve "$B" 25 'send:554 5.7.1 mail.example.com ESMTP: no SMTP service for you\r\n' close
at_backend $T/smtp-554 25 talk "$C" $S 25 eof:1
fi
