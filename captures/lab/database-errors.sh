#!/bin/bash
# Databases that refuse a login or report trouble behind it: PostgreSQL, MariaDB and Redis with passwords that are wrong, databases that do not
# exist, limits that are reached, memory that is full, a replica that is written to. And what looks like it and is nobody's fault: a mistyped
# password, a row that exists already, a query that somebody cancels. About 50 s.                          database-errors.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need haproxy postgres psql mariadbd mariadb redis-server redis-cli
R=${1:-$CAPTURES}
S=10.224.26.2
LOGIN=$R/rules/login-refused
LATER=$R/rules/server-error-in-protocol
mkdir -p "$LOGIN" "$LATER" "$R/healthy"
lab_begin

quietly() { "$@" >>"$TMP/load.log" 2>&1 </dev/null; }

# --- PostgreSQL: lab needs no password, the others need one ---------------------------------------------------------
postgres_start "$B" $S
wait_port "$B" 5432
pg() { # user password database statements...
    local user=$1 password=$2 database=$3 statement more=()
    shift 3
    for statement in "$@"; do more+=(-c "$statement"); done
    PGPASSWORD=$password PGCONNECT_TIMEOUT=5 quietly ip netns exec "$C" psql -h $S -U "$user" "$database" "${more[@]}"
}
pg lab '' postgres "SET password_encryption = 'scram-sha-256'" "CREATE USER alice PASSWORD 'right'" "CREATE USER bob PASSWORD 'right' CONNECTION LIMIT 1" \
    'CREATE TABLE t (id int PRIMARY KEY, n int)' 'INSERT INTO t VALUES (1, 0), (2, 0)' 'GRANT ALL ON t TO alice, bob'
sed -i '/^host.*0\.0\.0\.0/d' "$TMP/pg/data/pg_hba.conf"
echo 'host all lab 0.0.0.0/0 trust
host all all 0.0.0.0/0 scram-sha-256' >>"$TMP/pg/data/pg_hba.conf"
pg lab '' postgres 'SELECT pg_reload_conf()'
sleep 0.5

three() { local i; for i in 1 2 3; do "$@"; sleep 0.4; done; }
record "$C" eth0 "$LOGIN/postgresql-wrong-password.pcap" "tcp port 5432" three pg alice wrong postgres 'SELECT 1'
record "$C" eth0 "$LOGIN/postgresql-unknown-database.pcap" "tcp port 5432" three pg alice right shop 'SELECT 1'
limited() {
    pg bob right postgres 'SELECT pg_sleep(2)' &
    sleep 0.7
    pg bob right postgres 'SELECT 1'
    pg bob right postgres 'SELECT 1'
    wait $!
}
record "$C" eth0 "$LOGIN/postgresql-role-limit.pcap" "tcp port 5432" limited
mistyped() {
    pg alice right postgres 'SELECT 1'
    pg alice rihgt postgres 'SELECT 1'
    sleep 1
    pg alice right postgres 'SELECT 1'
    sleep 0.5
    pg alice right postgres 'SELECT 2'
}
record "$C" eth0 "$R/healthy/104-postgres-mistyped-password.pcap" "tcp port 5432" mistyped
probed() {
    local i
    for i in 1 2 3; do
        quietly ip netns exec "$C" pg_isready -h $S -U nobody
        sleep 0.3
    done
    sed -i 's/^host all all .*/host all all 0.0.0.0\/0 trust/' "$TMP/pg/data/pg_hba.conf"
    pg lab '' postgres 'SELECT pg_reload_conf()'
    sleep 0.5
    for i in 1 2 3; do
        quietly ip netns exec "$C" pg_isready -h $S -U nobody
        sleep 0.3
    done
    sed -i 's/^host all all .*/host all all 0.0.0.0\/0 scram-sha-256/' "$TMP/pg/data/pg_hba.conf"
    pg lab '' postgres 'SELECT pg_reload_conf()'
    sleep 0.5
}
record "$C" eth0 "$LOGIN/not-pg-isready-as-nobody.pcap" "tcp port 5432" probed

haproxy_start "$P" "defaults
  mode tcp
  $HAPROXY_TIMES
listen pg
  bind :5433
  option pgsql-check user lab
  server a $S:5432 check inter 500ms"
record "$P" eth1 "$LOGIN/not-haproxy-pgsql-check.pcap" "tcp port 5432" sleep 3

statements() {
    pg alice right postgres 'INSERT INTO t VALUES (1, 1) ON CONFLICT DO NOTHING' 'INSERT INTO t VALUES (1, 1)' 'SELEC 1' \
        'SELECT * FROM nothere' 'INSERT INTO t VALUES (1, 1)' 'UPDATE t SET n = n + 1 WHERE id = 1'
}
record "$C" eth0 "$LATER/not-postgresql-unique-violation.pcap" "tcp port 5432" statements
timeouts() {
    pg alice right postgres "SET statement_timeout = '300ms'" 'SELECT pg_sleep(5)' 'SELECT pg_sleep(5)' 'SELECT pg_sleep(5)' 'SELECT 1'
}
record "$C" eth0 "$LATER/postgresql-statement-timeout.pcap" "tcp port 5432" timeouts
full() { # a temporary file that may not grow: 53400
    pg alice right postgres "SET work_mem = '64kB'" 'SELECT count(*) FROM (SELECT generate_series(1, 400000) ORDER BY 1 DESC) s' 'SELECT 1'
}
pg lab '' postgres "ALTER SYSTEM SET temp_file_limit = '1MB'" 'SELECT pg_reload_conf()'
sleep 0.5
record "$C" eth0 "$LATER/postgresql-temporary-files-full.pcap" "tcp port 5432" full
read_only() { pg alice right postgres 'SET default_transaction_read_only = on' 'UPDATE t SET n = 7'; }
record "$C" eth0 "$LATER/postgresql-read-only.pcap" "tcp port 5432" read_only

# --- MariaDB -----------------------------------------------------------------------------------------------------------
install -d -o mysql "$TMP/mysql"
on "$B" mariadb-install-db --no-defaults --user=mysql --datadir="$TMP/mysql/data" --auth-root-authentication-method=normal >"$TMP/mysql.log" 2>&1
echo "CREATE USER alice@'%' IDENTIFIED BY 'right'; CREATE DATABASE shop; GRANT ALL ON shop.* TO alice@'%';
CREATE USER bob@'%' IDENTIFIED BY 'right' WITH MAX_USER_CONNECTIONS 1;
CREATE TABLE shop.t (id int PRIMARY KEY, n int) ENGINE=InnoDB; INSERT INTO shop.t VALUES (1, 0), (2, 0);" | tr '\n' ' ' | sed 's/; /;\n/g' >"$TMP/mysql/users.sql"
spawn "$B" mariadbd --no-defaults --init-file="$TMP/mysql/users.sql" --user=mysql --datadir="$TMP/mysql/data" --bind-address=$S --port=3306 --skip-name-resolve --socket="$TMP/mysql/s" --pid-file="$TMP/mysql/pid"
wait_port "$B" 3306
sql() { # user password database statements
    quietly ip netns exec "$C" mariadb --no-defaults --skip-ssl --connect-timeout=5 --force -h $S -u "$1" "-p$2" -e "$4" "$3"
}
record "$C" eth0 "$LOGIN/mariadb-wrong-password.pcap" "tcp port 3306" three sql alice wrong shop 'SELECT 1'
record "$C" eth0 "$LOGIN/mariadb-unknown-database.pcap" "tcp port 3306" three sql alice right nothere 'SELECT 1'
mistyped() {
    sql alice right shop 'SELECT 1'
    sql alice rihgt shop 'SELECT 1'
    sleep 1
    sql alice right shop 'SELECT 1'
    sleep 0.5
    sql alice right shop 'SELECT 2'
}
record "$C" eth0 "$R/healthy/105-mariadb-mistyped-password.pcap" "tcp port 3306" mistyped
limited() {
    sql bob right '' 'SELECT SLEEP(2)' &
    sleep 0.7
    sql bob right '' 'SELECT 1'
    wait $!
}
record "$C" eth0 "$LOGIN/mariadb-user-limit.pcap" "tcp port 3306" limited
pinged() { three quietly ip netns exec "$C" mariadb-admin --no-defaults --skip-ssl -h $S -u nobody ping; }
record "$C" eth0 "$LOGIN/mariadb-ping-without-password.pcap" "tcp port 3306" pinged
record "$C" eth0 "$LATER/not-mariadb-duplicate-key.pcap" "tcp port 3306" sql alice right shop 'INSERT INTO t VALUES (1, 1); SELEC 1; SELECT * FROM nothere; UPDATE t SET n = 1;'
locked() {
    sql alice right shop 'BEGIN; UPDATE t SET n = 2 WHERE id = 1; SELECT SLEEP(7)' &
    sleep 0.5
    local n
    for n in 3 4 5; do sql alice right shop "SET innodb_lock_wait_timeout = 1; UPDATE t SET n = $n WHERE id = 1"; done
    wait $!
}
record "$C" eth0 "$LATER/mariadb-lock-wait.pcap" "tcp port 3306" locked

# --- Redis -------------------------------------------------------------------------------------------------------------
spawn "$B" redis-server --bind $S --port 6379 --protected-mode no --save '' --maxmemory 1mb --maxmemory-policy noeviction --dir "$TMP"
wait_port "$B" 6379
filled() {
    on "$C" python3 - $S <<'P' >>"$TMP/load.log" 2>&1
import socket, sys
sock = socket.create_connection((sys.argv[1], 6379), 5)
sock.sendall(b'*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\nok\r\n')
sock.recv(512)
for n in range(6):
    key = b'key%d' % n
    sock.sendall(b'*3\r\n$3\r\nSET\r\n$4\r\n%s\r\n$2\r\nok\r\n' % key)
    print(sock.recv(512))
sock.sendall(b'*2\r\n$3\r\nGET\r\n$1\r\na\r\n')
print(sock.recv(512))
P
}
# filled before the capture begins, so that it stays small
on "$C" redis-cli -h $S CONFIG SET maxmemory 0 >>"$TMP/load.log"
on "$C" redis-cli -h $S EVAL 'redis.call("SET", "big", string.rep("x", 2000000)); return 1' 0 >>"$TMP/load.log"
on "$C" redis-cli -h $S SET a before >>"$TMP/load.log"
on "$C" redis-cli -h $S CONFIG SET maxmemory 1mb >>"$TMP/load.log"
record "$C" eth0 "$LATER/redis-out-of-memory.pcap" "tcp port 6379" filled
spawn "$B" redis-server --bind $S --port 6380 --protected-mode no --save '' --dir "$TMP" --replicaof $S 6379
wait_port "$B" 6380
sleep 2
written() { talk "$C" $S 6380 'send:GET a\r\n' recv 'send:SET a 1\r\n' recv 'send:SET b 2\r\n' recv 'send:GET a\r\n' recv 'send:QUIT\r\n' eof:2; }
record "$C" eth0 "$LATER/redis-read-only-replica.pcap" "tcp port 6380" written
wrong_type() { talk "$C" $S 6381 'send:SET a 1\r\n' recv 'send:LPUSH a 2\r\n' recv 'send:EVALSHA 0123456789012345678901234567890123456789 0\r\n' recv 'send:FOO\r\n' recv 'send:GET a\r\n' recv 'send:QUIT\r\n' eof:2; }
spawn "$B" redis-server --bind $S --port 6381 --protected-mode no --save '' --dir "$TMP"
wait_port "$B" 6381
record "$C" eth0 "$LATER/not-redis-wrong-type.pcap" "tcp port 6381" wrong_type

# --- Redis: commands that wait on purpose --------------------------------------------------------
mkdir -p "$R/rules/client-abandoned"
spawn "$B" redis-server --bind $S --port 6382 --protected-mode no --save '' --dir "$TMP"
WAITED_FOR=$LAST
wait_port "$B" 6382
callers() { # a command, five times at once: each is given up after 4 s
    local n pids=()
    for n in 1 2 3 4 5; do
        on "$C" python3 -c "
import socket, sys
sock = socket.create_connection(('$S', 6382))
sock.sendall(b'PING\r\n')
sock.recv(99)
sock.settimeout(4)
try:
    sock.sendall(b'$1\r\n')
    sock.recv(99)
except OSError:
    pass" >>"$TMP/load.log" 2>&1 </dev/null &
        pids+=($!)
    done
    wait "${pids[@]}"
}
on_purpose() { callers 'BLPOP jobs 0' & local all=$!; sleep 2; quietly on "$C" redis-cli -h $S -p 6382 GET a; wait "$all"; }
record "$C" eth0 "$R/rules/client-abandoned/not-redis-workers-that-wait.pcap" "tcp port 6382" on_purpose
stop "$WAITED_FOR" KILL
