#!/bin/bash
# More benign patterns (catalogue section 6), seen at one host: flow control, TLS endings, resumption that fails, intended waits, idle
# services, restarts, retries. Every capture here must stay without a finding above notice. About 75 s.     healthy-more.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/certs.sh"
lab_need nginx curl iptables redis-server redis-cli postgres psql
R=${1:-$CAPTURES/healthy}
S=10.224.26.2
NAME=www.example.com
mkdir -p "$R"
SNAPLEN=4000 # nothing here is longer, and the ring then holds 64 times as many packets in a burst
lab_begin
certificates $NAME
PEM=$TMP/$NAME
authority old "/CN=retired CA"
issue expired old "/CN=$NAME" "-90 days" "-3 days"
issue selfsigned self "/CN=mail.example.com" "-9 days" "+300 days"
nginx_start "$B" "ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key; keepalive_timeout 75s;
  server { listen 80; location /slow/ { alias html/; limit_rate 20k; } }
  server { listen 443 ssl; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on; }
  server { listen 9443 ssl; ssl_certificate $TMP/expired.crt; ssl_certificate_key $TMP/expired.key; }"
FILES=$NGINX_DIR/html
head -c 260000 /dev/zero | tr '\0' 'd' >"$FILES/download"
mkdir "$NGINX_DIR/html/slow" 2>/dev/null
sed -i "s|alias html/|alias $FILES/|" "$NGINX_DIR/nginx.conf"
stop "$LAST"
spawn "$B" nginx -e "$NGINX_DIR/error.log" -p "$NGINX_DIR" -c "$NGINX_DIR/nginx.conf"
NGINX_B=$LAST NGINX_B_DIR=$NGINX_DIR
wait_port "$B" 443
spawn "$B" redis-server --port 6379 --save '' --appendonly no --protected-mode no --dir "$TMP" --bind 0.0.0.0
wait_port "$B" 6379
ASK='send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n'
ASK_CLOSE='send:GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n'
OK='send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
as() { get "$C" --interface "203.0.113.$1" "${@:2}"; }
JOBS=()
# job NAME filter command…     captures of one port each run side by side, all begun before the first case
job() { LAB_DELAY=2 record "$C" eth0 "$R/$1.pcap" "${@:2}" & JOBS+=($!); }

# --- flow control, loss ------------------------------------------------------------------------------------------
serve "$B" 7701 recv zeros:300000 close
probe() { talk "$C" $S 7701 rcvbuf:20000 "$ASK" sleep:0.9 eof:5; } # window closed for 0.9 s, probed, opened
job 71-zero-window-probed "tcp port 7701" probe
serve "$B" 7702 recv zeros:600000 close
full() { talk "$C" $S 7702 rcvbuf:60000 "$ASK" eof:9; }
job 72-window-full-and-updates "tcp port 7702" full
steady() { get "$C" -m 40 --interface 203.0.113.9 "http://$S/slow/download"; }
job 73-slow-and-steady-download "host 203.0.113.9 and tcp port 80" steady
serve "$B" 7703 recv "$OK" close
synack() { # the handshake's ACK is lost once: the server repeats its SYN+ACK, then all is well
    local i
    for i in 1 2 3; do talk "$C" $S 7703 "$ASK" recv close; done
    on "$P" iptables -I FORWARD -p tcp --dport 7703 --tcp-flags ALL ACK -m statistic --mode nth --every 100000 --packet 0 -j DROP
    talk "$C" $S 7703 sleep:1.4 "$ASK" recv close
    on "$P" iptables -D FORWARD -p tcp --dport 7703 --tcp-flags ALL ACK -m statistic --mode nth --every 100000 --packet 0 -j DROP
    for i in 1 2 3; do talk "$C" $S 7703 "$ASK" recv close; done
}
job 74-syn-ack-repeated-once "tcp port 7703" synack

# --- TLS ---------------------------------------------------------------------------------------------------------
rude='
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", 7443))
listener.listen(8)
while True:
    plain, _ = listener.accept()
    tls = context.wrap_socket(plain, server_side=True)
    tls.recv(4096)
    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    socket.socket(fileno=tls.detach()).close()
'
spawn "$B" python3 -c "$rude" "$PEM.pem"
wait_port "$B" 7443
no_notify() { local i; for i in 1.2 1.3 1.3; do get "$C" --tls-max $i "https://$S:7443/"; done; }
job 75-tls-without-close-notify "tcp port 7443" no_notify
expired() { # monitoring that ignores the date, and mail servers that take any certificate
    local i
    for i in 7 8 7 8; do as $i --tls-max 1.2 "https://$S:9443/"; done
    for i in 1 2; do printf 'QUIT\r\n' | on "$C" timeout 5 openssl s_client -quiet -tls1_2 -starttls smtp -connect $S:25 >/dev/null 2>&1; done
}
starttls='
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
def talk(sock):
    sock.sendall(b"220 mail.example.com ESMTP\r\n")
    sock.recv(512); sock.sendall(b"250-mail.example.com\r\n250 STARTTLS\r\n")
    sock.recv(512); sock.sendall(b"220 go ahead\r\n")
    tls = context.wrap_socket(sock, server_side=True)
    tls.recv(512); tls.sendall(b"221 bye\r\n"); tls.unwrap(); tls.close()
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", 25))
listener.listen(8)
while True:
    threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()
'
spawn "$B" python3 -c "$starttls" "$TMP/selfsigned.crt" "$TMP/selfsigned.key"
wait_port "$B" 25
job 76-certificates-that-clients-accept "tcp port 9443 or tcp port 25" expired
early_server() { nginx_start "$B" "server { listen 7444 ssl; ssl_protocols TLSv1.2 TLSv1.3; ssl_early_data on; ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key; }"; }
early_server
EARLY=$LAST
wait_port "$B" 7444
unknown() { # sessions of before a restart are offered after it: the server takes the long way, 0-RTT is refused, all is well
    local ask='GET / HTTP/1.0\r\n\r\n' v
    printf "$ask" >"$TMP/early"
    for v in 2 3; do
        printf "$ask" | on "$C" openssl s_client -quiet -tls1_$v -connect $S:7444 -servername $NAME -sess_out "$TMP/s$v" >/dev/null 2>&1
    done
    stop "$EARLY"
    early_server
    wait_port "$B" 7444
    for v in 2 3; do
        printf "$ask" | on "$C" openssl s_client -quiet -tls1_$v -connect $S:7444 -servername $NAME -sess_in "$TMP/s$v" >/dev/null 2>&1
    done
    printf "$ask" | on "$C" openssl s_client -quiet -connect $S:7444 -servername $NAME -sess_in "$TMP/s3" -early_data "$TMP/early" >/dev/null 2>&1
}
job 77-tls-tickets-and-early-data-refused "tcp port 7444" unknown

# --- services that wait on purpose, and idle ones ----------------------------------------------------------------
serve "$B" 7704 sleep:5 'send:220 mail.example.com ESMTP\r\n' recv 'send:250 mail.example.com\r\n' recv 'send:221 bye\r\n' close
greet() { talk "$C" $S 7704 recv:ESMTP 'send:EHLO client.example.com\r\n' recv:mail 'send:QUIT\r\n' recv:bye close; }
job 78-greeting-delayed-on-purpose "tcp port 7704" greet
serve "$B" 143 'send:* OK IMAP4rev1 ready\r\n' recv 'send:a1 OK LOGIN completed\r\n' recv 'send:* 3 EXISTS\r\na2 OK SELECT completed\r\n' recv 'send:+ idling\r\n' sleep:17 'send:* 4 EXISTS\r\n' sleep:10 recv 'send:a3 OK IDLE terminated\r\n' recv 'send:* BYE\r\na4 OK LOGOUT completed\r\n' close
imap() { talk "$C" $S 143 recv:ready 'send:a1 LOGIN ann secret\r\n' recv:completed 'send:a2 SELECT INBOX\r\n' recv:a2 'send:a3 IDLE\r\n' recv:idling recv:EXISTS sleep:8 'send:DONE\r\n' recv:terminated 'send:a4 LOGOUT\r\n' eof:3; }
job 79-imap-idle "tcp port 143" imap
serve "$B" 1883 recv 'send:\x20\x02\x00\x00' recv 'send:\x90\x03\x00\x01\x00' recv 'send:\xd0\x00' recv 'send:\xd0\x00' recv
mqtt() { talk "$C" $S 1883 'send:\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05probe' recv 'send:\x82\x09\x00\x01\x00\x04news\x00' recv sleep:10 'send:\xc0\x00' recv sleep:10 'send:\xc0\x00' recv 'send:\xe0\x00' close; }
job 80-mqtt-idle "tcp port 1883" mqtt
queue() { on "$C" redis-cli -h $S BLPOP jobs 15 >/dev/null & local w=$!; sleep 13; on "$C" redis-cli -h $S RPUSH jobs one >/dev/null; wait $w; on "$C" redis-cli -h $S BLPOP jobs 12 >/dev/null; }
job 81-redis-blocking-pop "tcp port 6379" queue
install -d -o postgres "$TMP/pg"
PGBIN=$(dirname "$(readlink -f "$(command -v postgres)")")
on "$B" setpriv --reuid postgres --regid postgres --clear-groups "$PGBIN/initdb" -D "$TMP/pg/data" -A trust -U ann >"$TMP/pg.log" 2>&1
echo 'host all all 203.0.113.0/24 trust' >>"$TMP/pg/data/pg_hba.conf"
spawn "$B" setpriv --reuid postgres --regid postgres --clear-groups "$PGBIN/postgres" -D "$TMP/pg/data" -c listen_addresses=$S -c unix_socket_directories="$TMP/pg"
wait_port "$B" 5432
sql() { on "$C" psql -qAt -h $S -U ann postgres "$@" >/dev/null 2>&1; }
postgres_idle() { # a listener, a pool connection that is idle, a query that takes long, a login refused
    (echo 'LISTEN news;'; sleep 20; echo 'SELECT 1;') | sql &
    local listener=$!
    (echo 'SELECT 1;'; sleep 16; echo 'SELECT 2;') | sql &
    local pool=$!
    sleep 1
    sql -c 'SELECT pg_sleep(4)'
    sql -c "NOTIFY news, 'hello'"
    wait $listener $pool
}
job 82-postgresql-listen-and-idle-pool "tcp port 5432" postgres_idle

# --- clients that leave ------------------------------------------------------------------------------------------
serve "$B" 7705 recv 'send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok' close
short() { local i; for i in 1 2 3 4 5 6 7 8; do talk "$C" $S 7705 "$ASK_CLOSE" recv:ok rst; done; }
job 83-reset-right-after-the-answer "tcp port 7705" short
late='
import http.server, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0
    def log_message(self, *_): pass
    def do_GET(self):
        Handler.count += 1
        if Handler.count == 3: time.sleep(1.5)
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers()
        try: self.wfile.write(b"ok")
        except OSError: pass
http.server.ThreadingHTTPServer(("0.0.0.0", 7706), Handler).serve_forever()
'
spawn "$B" python3 -c "$late"
wait_port "$B" 7706
deadline() { local i; for i in 1 2; do get "$C" "http://$S:7706/"; done; get "$C" -m 0.5 "http://$S:7706/item"; get "$C" "http://$S:7706/item"; sleep 1.5; for i in 1 2 3; do get "$C" "http://$S:7706/"; done; }
job 84-deadline-then-retry "tcp port 7706" deadline
wait "${JOBS[@]}"

# --- a server that is restarted while nobody waits ---------------------------------------------------------------
restart() {
    local i idle
    for i in 7 8 9; do as $i "http://$S/"; as $i "https://$S/"; done
    talk "$C" $S 80 "$ASK" recv eof:8 & # an idle keep-alive connection, closed by the server that leaves
    idle=$!
    sleep 0.5
    stop "$NGINX_B" QUIT
    wait $idle
    spawn "$B" nginx -e "$NGINX_B_DIR/error.log" -p "$NGINX_B_DIR" -c "$NGINX_B_DIR/nginx.conf"
    wait_port "$B" 80
    for i in 7 8 9; do as $i "http://$S/"; as $i "https://$S/"; done
}
record "$C" eth0 "$R/85-clean-restart.pcap" "tcp port 80 or tcp port 443" restart

serve "$B" 7707 recv 'send:HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n' sleep:0.3 "$OK" recv "$OK" close
hints() { talk "$C" $S 7707 "$ASK" recv:ok "$ASK" recv:ok eof:2; get "$C" "http://$S:7707/"; }
record "$C" eth0 "$R/86-early-hints.pcap" "tcp port 7707" hints
