#!/bin/bash
# Healthy services under load, several at a time, so that nothing is slow on two cores: PostgreSQL, MariaDB, Redis, memcached, MQTT, HTTP/1.1 and
# HTTP/2 with and without TLS and keep-alive, through HAProxy and nginx. Nothing above a notice may be found, at any of three places. About a minute.
#     busy.sh PROGRAM [FOLDER]     the captures (some 500 MB) stay in FOLDER when it is given; exit code 1 for a false alarm
. "$(dirname "$0")/lib.sh"
PROGRAM=$(realpath "${1:?which program: busy.sh PROGRAM}")
lab_need nginx haproxy curl wrk ab h2load pgbench redis-server redis-benchmark memcached mosquitto mosquitto_pub mariadbd mariadb-slap
lab_begin
OUT=${2:-$TMP/busy}
mkdir -p "$OUT"
S=10.224.26.2
NAME=www.example.com
certificates $NAME
PEM=$TMP/$NAME

nginx_start "$B" "ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key; keepalive_requests 200;
  server { listen 80; listen 8080 proxy_protocol; }
  server { listen 443 ssl http2; }"
head -c 3000000 /dev/zero | tr '\0' 'd' >"$NGINX_DIR/html/download"
wait_port "$B" 443
nginx_start "$P" "ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key; upstream app { server $S:80; keepalive 8; }
  server { listen 35.229.69.78:443 ssl http2; location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ''; } }
  server { listen 35.229.69.78:81; location / { proxy_pass http://$S:80; } }"
haproxy_start "$P" "defaults
  mode http
  $HAPROXY_TIMES
frontend http_in
  bind 35.229.69.78:80
  default_backend app
backend app
  option httpchk GET /index.html
  server one $S:8080 send-proxy-v2 check check-send-proxy inter 1s
listen tcp_in
  mode tcp
  bind 35.229.69.78:8443
  server tls $S:443 check inter 1s"
wait_port "$P" 8443

postgres_start "$B" $S
install -d -o mysql "$TMP/mysql"
on "$B" mariadb-install-db --no-defaults --user=mysql --datadir="$TMP/mysql/data" --auth-root-authentication-method=normal >"$TMP/mysql.log" 2>&1
printf '%s\n' "CREATE USER lab@'%';" "GRANT ALL ON *.* TO lab@'%';" >"$TMP/users.sql"
chmod 644 "$TMP/users.sql"
spawn "$B" mariadbd --no-defaults --init-file="$TMP/users.sql" --user=mysql --datadir="$TMP/mysql/data" --bind-address=$S --skip-name-resolve --socket="$TMP/mysql/s" --pid-file="$TMP/mysql/pid"
spawn "$B" redis-server --port 6379 --save '' --appendonly no --protected-mode no --dir "$TMP" --bind 0.0.0.0
spawn "$B" memcached -u nobody -l $S -p 11211
printf '%s\n' "listener 1883 $S" 'allow_anonymous true' >"$TMP/mosquitto.conf"
spawn "$B" mosquitto -c "$TMP/mosquitto.conf"
for port in 5432 3306 6379 11211 1883; do wait_port "$B" "$port" || wait_port "$B" "$port"; done
on "$C" pgbench -h $S -U lab -i -q postgres >>"$TMP/load.log" 2>&1

SNAPLEN=512
capture "$C" eth0 "$OUT/client.pcap"; CAPTURED=("$LAST")
capture "$P" any "$OUT/proxy.pcap"; CAPTURED+=("$LAST")
capture "$B" eth0 "$OUT/backend.pcap"; CAPTURED+=("$LAST")
JOBS=()
load() { on "$C" timeout 40 "$@" </dev/null >>"$TMP/load.log" 2>&1 & JOBS+=($!); }
loaded() { wait "${JOBS[@]}"; JOBS=(); }
load pgbench -h $S -U lab -c 6 -T 5 postgres
load pgbench -h $S -U lab -c 2 -C -S -T 5 postgres
loaded
load mariadb-slap --no-defaults -h $S -u lab --auto-generate-sql --concurrency=4 --number-of-queries=800
load redis-benchmark -h $S -n 6000 -c 10 -P 4 -t set,get,lpush -q
load redis-benchmark -h $S -n 600 -k 0 -c 4 -t ping -q
loaded
load wrk -t 1 -c 8 -d 4 http://35.229.69.78/index.html
loaded
load wrk -t 1 -c 6 -d 4 https://35.229.69.78/index.html
loaded
load ab -n 600 -c 6 http://35.229.69.78:81/index.html
load ab -k -n 1500 -c 6 http://35.229.69.78:81/index.html
loaded
load ab -n 200 -c 4 https://35.229.69.78:8443/index.html
load h2load -n 1500 -c 4 -m 20 https://35.229.69.78/index.html
load h2load -n 30 -c 3 -m 2 "https://35.229.69.78:8443/download"
loaded
load bash -c "for i in \$(seq 40); do curl -sk -o /dev/null https://35.229.69.78/download; curl -s -o /dev/null -r 0-99999 http://35.229.69.78/download; sleep 0.1; done"
load bash -c "for i in \$(seq 60); do printf 'set k%s 0 0 5\r\nhello\r\nget k%s\r\nquit\r\n' \$i \$i | nc -q 1 $S 11211; sleep 0.1; done"
load bash -c "mosquitto_sub -h $S -t news -C 30 & for i in \$(seq 30); do sleep 0.3; mosquitto_pub -h $S -t news -q 1 -m \$i; done; wait"
loaded
sleep 1
capture_end "${CAPTURED[@]}"

FAILED=0
for place in client proxy backend; do
    "$PROGRAM" -q --fail-on warning "$OUT/$place.pcap" >"$TMP/report"
    case $? in
        0) echo "ok      $place: $(grep -E '^ +[0-9]+ flows?:' "$TMP/report" | head -n 1 | sed 's/^ *//')" ;;
        *) FAILED=1 && echo "FAILED  $place" && sed -n '1,40p' "$TMP/report" ;;
    esac
done
exit $FAILED
