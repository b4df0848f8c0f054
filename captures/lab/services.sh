#!/bin/bash
# Services that turn their clients down, or stop, where the application is at fault as little as the network: Redis that wants a password, or
# whose process is stopped; PgBouncer without a free connection; PostgreSQL with a locked table; Postfix that does not relay. And what looks
# like it: a check that takes NOAUTH for a sign of life, workers that wait on purpose, a pool that is busy for a second, queries that take long,
# one recipient among others. About 100 s.                                                                       services.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need redis-server redis-cli postgres psql pgbouncer postfix
R=${1:-$CAPTURES}
S=10.224.26.2
LOGIN=$R/rules/login-refused
LATER=$R/rules/server-error-in-protocol
HANG=$R/rules/upstream-hang
mkdir -p "$LOGIN" "$LATER" "$HANG"
lab_begin

quietly() { timeout 20 "$@" >>"$TMP/load.log" 2>&1 </dev/null; }
resp() { # word...                         a command of Redis as an array of bulk strings, for talk.py
    local word
    printf '*%d\\r\\n' $#
    for word in "$@"; do printf '$%d\\r\\n%s\\r\\n' ${#word} "$word"; done
}
redis_start() { # port options...          $LAST is its process id
    local port=$1
    shift
    spawn "$B" redis-server --bind $S --port "$port" --protected-mode no --save '' --dir "$TMP" "$@"
    wait_port "$B" "$port"
}
few() { local i; for i in 1 2 3 4; do "$@"; sleep 0.3; done; }

# --- Redis: a password that the application is not given, or is given wrong ------------------------------------------
redis_start 6390 --requirepass right
refused() { talk "$C" $S 6390 "send:$(resp GET session:1)" recv "send:$(resp SET session:1 x)" recv eof:1; }
record "$C" eth0 "$LOGIN/redis-no-password.pcap" "tcp port 6390" few refused
record "$C" eth0 "$LOGIN/redis-wrong-password.pcap" "tcp port 6390" few quietly ip netns exec "$C" redis-cli -h $S -p 6390 -a wrong GET a
checked() { # checks that know no password, and libraries that say who they are before they log in
    few quietly ip netns exec "$C" redis-cli -h $S -p 6390 PING
    talk "$C" $S 6390 "send:$(resp INFO)" recv eof:1
    talk "$C" $S 6390 "send:$(resp HELLO 3)" recv "send:$(resp AUTH right)" recv "send:$(resp GET a)" recv "send:$(resp QUIT)" eof:2
    talk "$C" $S 6390 "send:$(resp CLIENT SETINFO lib-name x)$(resp AUTH right)$(resp GET a)" recv sleep:0.2 "send:$(resp SET a 1)" recv "send:$(resp QUIT)" eof:2
}
record "$C" eth0 "$LOGIN/not-redis-ping-without-password.pcap" "tcp port 6390" checked

# --- Redis: stopped while commands wait; commands that wait on purpose -----------------------------------------------
redis_start 6391
REDIS=$LAST
asks() { # seconds command...              a new connection: PING is answered, the command is given up after so long
    local wait=$1
    shift
    on "$C" python3 -c "
import socket, sys, time
sock = socket.create_connection(('$S', 6391))
sock.sendall(b'*1\r\n\$4\r\nPING\r\n')
sock.recv(99)
time.sleep(1.5)
sock.settimeout($wait)
words = sys.argv[1:]
sock.sendall(b'*%d\r\n' % len(words) + b''.join(b'\$%d\r\n%s\r\n' % (len(word), word.encode()) for word in words))
try:
    sock.recv(99)
except OSError:
    pass" "$@" >>"$TMP/load.log" 2>&1 </dev/null &
    ASKED+=($!)
}
on_purpose() {
    ASKED=()
    asks 4 BLPOP jobs 0; asks 4 BRPOPLPUSH jobs done 0; asks 4 XREAD BLOCK 0 STREAMS log '$'; asks 4 blmove jobs done LEFT LEFT 0; asks 4 WAIT 1 0
    sleep 2
    quietly ip netns exec "$C" redis-cli -h $S -p 6391 GET a
    wait "${ASKED[@]}"
}
record "$C" eth0 "$HANG/not-redis-workers-that-wait.pcap" "tcp port 6391" on_purpose
stopped() {
    ASKED=()
    asks 12 GET session:1; asks 12 SET k 1; asks 12 hgetall user:7; asks 12 GET session:2
    sleep 1
    kill -STOP "$REDIS"
    wait "${ASKED[@]}"
}
record "$C" eth0 "$HANG/redis-stopped.pcap" "tcp port 6391" stopped
kill -KILL "$REDIS"

# --- PgBouncer: no connection to the database is free ----------------------------------------------------------------
postgres_start "$B" $S
wait_port "$B" 5432
mkdir "$TMP/bouncer"
echo '"lab" ""' >"$TMP/bouncer/users"
cat >"$TMP/bouncer/ini" <<X
[databases]
postgres = user=lab host=$S port=5432
[pgbouncer]
listen_addr = $S
listen_port = 6432
unix_socket_dir =
auth_type = any
auth_file = $TMP/bouncer/users
default_pool_size = 2
pool_mode = transaction
query_wait_timeout = 2
logfile = $TMP/bouncer/log
pidfile = $TMP/bouncer/pid
X
chown -R postgres "$TMP/bouncer"
spawn "$B" setpriv --reuid postgres --regid postgres --clear-groups pgbouncer "$TMP/bouncer/ini"
wait_port "$B" 6432
pg() { PGCONNECT_TIMEOUT=9 quietly ip netns exec "$C" psql -h $S -p 6432 -U lab postgres -c "$1"; }
pg 'SELECT 1' # so that it knows what the database says to whoever is let in
pool() { # seconds                          two queries that take so long, and four more that wait for them
    local i held=()
    for i in 1 2; do pg "SELECT pg_sleep($1)" & held+=($!); done
    sleep 0.3
    for i in 1 2 3 4; do pg 'SELECT 1' & held+=($!); done
    wait "${held[@]}"
}
record "$C" eth0 "$LATER/pgbouncer-pool-exhausted.pcap" "tcp port 6432" pool 4
record "$C" eth0 "$LATER/not-pgbouncer-pool-busy-for-a-second.pcap" "tcp port 6432" pool 1

# --- PostgreSQL: a lock that holds everybody up, and queries that only take long -------------------------------------
HELD=$R/rules/queries-held-up
mkdir -p "$HELD"
direct() { quietly ip netns exec "$C" psql -h $S -U lab postgres "$@"; }
direct -c 'CREATE TABLE orders AS SELECT generate_series(1, 100) AS id'
readers() { # how many, seconds between them, statement...   the later ones take another statement, if there is one
    local i all=() many=$1 between=$2
    shift 2
    for i in $(seq "$many"); do
        direct -c 'SELECT 1' -c "${1:?}" & all+=($!)
        [ $# -gt 1 ] && shift
        sleep "$between"
    done
    wait "${all[@]}"
}
locked() {
    direct -c 'BEGIN' -c 'LOCK TABLE orders' -c 'SELECT pg_sleep(6)' -c 'COMMIT' & local lock=$!
    sleep 0.5
    readers 7 0.6 'SELECT count(*) FROM orders'
    wait "$lock"
}
record "$C" eth0 "$HELD/postgresql-locked-table.pcap" "tcp port 5432" locked
long() { readers 6 0.6 'SELECT pg_sleep(5)' 'SELECT pg_sleep(3)' 'SELECT pg_sleep(4)' 'SELECT pg_sleep(2)' 'SELECT pg_sleep(4)' 'SELECT pg_sleep(5)'; }
record "$C" eth0 "$HELD/not-long-queries.pcap" "tcp port 5432" long
record "$C" eth0 "$HELD/not-jobs-that-begin-together.pcap" "tcp port 5432" readers 6 0 'SELECT pg_sleep(3)'
shutdown() { # whoever asks is told that the server goes
    readers 6 0.6 'SELECT pg_sleep(30)' & local all=$!
    sleep 5
    direct -c 'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state IS NOT NULL'
    wait "$all"
}
record "$C" eth0 "$HELD/not-ended-by-the-server.pcap" "tcp port 5432" shutdown

# --- Postfix: who may send where -------------------------------------------------------------------------------------
MAIL=$TMP/postfix
install -d -m 755 "$MAIL" "$MAIL/queue" "$MAIL/etc"
install -d -o postfix "$MAIL/data"
cp /etc/postfix/postfix-files /etc/postfix/dynamicmaps.cf "$MAIL/etc/" 2>/dev/null
sed -e 's/^\([a-z].* .* .* \)y\( .*\)$/\1n\2/' /etc/postfix/master.cf >"$MAIL/etc/master.cf"
cat >"$MAIL/etc/main.cf" <<X
compatibility_level = 3.6
queue_directory = $MAIL/queue
data_directory = $MAIL/data
maillog_file = /var/log/tcpwhy-lab-mail
maillog_file_prefixes = /var/log
myhostname = mx.example.org
mydestination = example.org
mynetworks = 127.0.0.0/8
inet_interfaces = $S
inet_protocols = ipv4
local_transport = discard:taken
local_recipient_maps = inline:{ {shop@example.org = 1}, {info@example.org = 1} }
alias_maps =
alias_database =
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
unknown_local_recipient_reject_code = 550
smtpd_tls_security_level = none
smtpd_peername_lookup = no
X
on "$B" postfix -c "$MAIL/etc" start >>"$TMP/postfix.log" 2>&1
MASTER=$(tr -d ' ' <"$MAIL/queue/pid/master.pid") && PIDS+=("$MASTER")
wait_port "$B" 25
mail() { # namespace source recipient...    one connection, one mail, as Python's smtplib sends it
    local ns=$1
    shift
    on "$ns" timeout 10 python3 - "$S" "$@" <<'P' >>"$TMP/load.log" 2>&1
import smtplib, sys
server, source, *recipients = sys.argv[1:]
with smtplib.SMTP(server, 25, local_hostname="app", source_address=(source, 0)) as smtp:
    try:
        print(smtp.sendmail("shop@example.com", recipients, "Subject: an order\n\nthank you\n"))
    except smtplib.SMTPException as error:
        print(error)
P
}
out() { few mail "$P" 10.224.26.1 customer@example.net; }
record "$B" eth0 "$LATER/postfix-relay-denied.pcap" "tcp port 25" out
daily() { # an address that does not exist, one recipient of two somewhere else, and a mail that is taken
    mail "$P" 10.224.26.1 nobody@example.org
    mail "$P" 10.224.26.1 info@example.org customer@example.net
    mail "$P" 10.224.26.1 customer@example.net
    mail "$P" 10.224.26.1 info@example.org
}
record "$B" eth0 "$LATER/not-postfix-unknown-recipients.pcap" "tcp port 25" daily
strangers() { local from; for from in 203.0.113.7 203.0.113.8 203.0.113.9; do few mail "$C" $from "victim@example.net"; done; }
record "$B" eth0 "$LATER/not-postfix-strangers-who-try.pcap" "tcp port 25" strangers
on "$B" postfix -c "$MAIL/etc" stop >>"$TMP/postfix.log" 2>&1
rm -f /var/log/tcpwhy-lab-mail
