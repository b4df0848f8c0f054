#!/bin/bash
# First words of services: FTP, IMAP, POP3, SMTP, AMQP and MQTT by real servers; clients that begin with TLS where the service begins in plain
# text; both sides waiting; ClientHellos without a name, and too large ones. About 2 minutes.
# first-words.sh [OUTPUT [group…]]      groups: healthy other greeting starttls waits name large banner slow
. "$(dirname "$0")/lib.sh"
lab_need vsftpd dovecot mosquitto mosquitto_sub rabbitmq-server amqp-publish postfix haproxy nginx curl openssl postgres psql iptables mariadbd mariadb
OUT=${1:-$CAPTURES}
shift
GROUPS_WANTED=${*:-healthy other greeting starttls waits name large banner slow}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
lab_begin
NAME=www.example.com
certificates $NAME
PEM=$TMP/$NAME
S=10.224.26.2
R=$OUT/rules
any() { local word; for word in "$@"; do wants "$word" && return 0; done; return 1; }

ftp_server() { # address more-lines
    local conf=$TMP/vsftpd-$1.conf
    printf '%s\n' listen=YES background=NO "listen_address=$1" anonymous_enable=YES local_enable=NO "anon_root=$TMP/ftp" \
        "secure_chroot_dir=$TMP/empty" seccomp_sandbox=NO xferlog_enable=NO ssl_enable=YES allow_anon_ssl=YES \
        force_local_logins_ssl=NO force_local_data_ssl=NO require_ssl_reuse=NO ssl_ciphers=HIGH "rsa_cert_file=$PEM.crt" "rsa_private_key_file=$PEM.key" "$2" >"$conf"
    spawn "$B" vsftpd "$conf"
}
if any healthy other greeting starttls waits; then
    mkdir -p "$TMP/ftp/pub" "$TMP/empty"
    echo "hello from vsftpd" >"$TMP/ftp/pub/hello.txt"
    ftp_server $S background=NO
    FTP=$LAST
    ftp_server 10.224.26.3 max_clients=1
    wait_port "$B" 21
fi
if any healthy other greeting starttls; then
    install -d -m 777 "$TMP/mail"
    cat >"$TMP/dovecot.conf" <<E
base_dir = $TMP/dovecot
state_dir = $TMP/dovecot
log_path = $TMP/dovecot.log
protocols = imap pop3
listen = $S
ssl = yes
ssl_cert = <$PEM.crt
ssl_key = <$PEM.key
disable_plaintext_auth = no
auth_failure_delay = 0
mail_location = maildir:$TMP/mail/%u
first_valid_uid = 1
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=mail gid=mail home=$TMP/mail/%u
}
E
    spawn "$B" dovecot -F -c "$TMP/dovecot.conf"
    for port in 143 110; do wait_port "$B" $port; done
    echo "ann:$(openssl rand -hex 4)" >"$TMP/words"
    mosquitto_passwd -U "$TMP/words"
    printf '%s\n' 'per_listener_settings true' 'user root' "listener 1883 $S" 'allow_anonymous true' \
        'listener 1883 10.224.26.3' 'allow_anonymous false' "password_file $TMP/words" >"$TMP/mosquitto.conf"
    spawn "$B" mosquitto -c "$TMP/mosquitto.conf"
    wait_port "$B" 1883
fi
if any healthy other greeting; then
    printf '%s\n' 'loopback_users = none' "listeners.tcp.1 = $S:5672" >"$TMP/rabbitmq.conf"
    install -d "$TMP/rabbit"
    spawn "$B" env HOME="$TMP/rabbit" RABBITMQ_BASE="$TMP/rabbit" RABBITMQ_MNESIA_BASE="$TMP/rabbit/db" RABBITMQ_LOG_BASE="$TMP/rabbit/log" \
        RABBITMQ_NODENAME=lab@localhost RABBITMQ_CONFIG_FILE="$TMP/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$TMP/rabbit/plugins" \
        RABBITMQ_PID_FILE="$TMP/rabbit/pid" /usr/lib/rabbitmq/bin/rabbitmq-server
    for i in $(seq 40); do on "$B" ss -Hltn 'sport = :5672' | grep -q . && break; sleep 1; done
    sleep 2
fi
if any healthy starttls; then
    install -d "$TMP/postfix" "$TMP/spool"
    install -d -o postfix "$TMP/postfix-data"
    sed -E 's/^([a-z].*[[:space:]]+(unix|inet|fifo)[[:space:]]+[-yn][[:space:]]+[-yn][[:space:]]+)[-yn]/\1n/' /usr/share/postfix/master.cf.dist >"$TMP/postfix/master.cf"
    printf '%s\n' 'compatibility_level = 3.6' "queue_directory = $TMP/spool" "data_directory = $TMP/postfix-data" 'mail_owner = postfix' \
        'setgid_group = postdrop' 'myhostname = mail.example.com' 'mydestination =' "inet_interfaces = $S" 'inet_protocols = ipv4' \
        'maillog_file = /dev/stdout' 'smtpd_tls_security_level = may' "smtpd_tls_cert_file = $PEM.crt" "smtpd_tls_key_file = $PEM.key" \
        'daemon_directory = /usr/lib/postfix/sbin' 'command_directory = /usr/sbin' 'alias_maps =' 'smtpd_peername_lookup = no' >"$TMP/postfix/main.cf"
    spawn "$B" postfix -c "$TMP/postfix" start-fg
    wait_port "$B" 25
fi
if any starttls; then
    install -d -o postgres "$TMP/pg"
    install -o postgres -m 600 "$PEM.key" "$TMP/pg/key"
    PGBIN=$(dirname "$(readlink -f "$(command -v postgres)")")
    as_postgres() { on "$B" setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
    as_postgres "$PGBIN/initdb" -D "$TMP/pg/data" -A trust -U ann >"$TMP/pg.log" 2>&1
    echo 'host all all 203.0.113.0/24 trust' >>"$TMP/pg/data/pg_hba.conf"
    spawn "$B" setpriv --reuid postgres --regid postgres --clear-groups "$PGBIN/postgres" -D "$TMP/pg/data" -c listen_addresses=$S \
        -c unix_socket_directories="$TMP/pg" -c ssl=on -c ssl_cert_file="$PEM.crt" -c ssl_key_file="$TMP/pg/key"
    wait_port "$B" 5432
fi

seen() { record "$B" eth0 "$R/$1.pcap" tcp "${@:2}"; }
fine() { record "$B" eth0 "$OUT/healthy/$1.pcap" tcp "${@:2}"; }
two() { "$@" --interface 203.0.113.7; sleep 0.1; "$@" --interface 203.0.113.8; }
hello() { on "${NS:-$C}" timeout 5 openssl s_client -connect "$1" "${@:2}" </dev/null >/dev/null 2>&1; }

if wants healthy; then
    ftp() { get "$C" ftp://$S/pub/hello.txt; get "$C" --ssl-reqd ftp://$S/pub/; }
    fine 95-ftp-plain-and-auth-tls ftp
    mail() {
        get "$C" -u ann:secret imap://$S/ ; get "$C" -u ann:secret --ssl-reqd imap://$S/
        get "$C" -u ann:secret pop3://$S/ ; get "$C" -u ann:secret --ssl-reqd pop3://$S/
        get "$C" -u ann:wrong imap://$S/
        printf 'QUIT\r\n' | on "$C" timeout 5 openssl s_client -quiet -starttls smtp -connect $S:25 >/dev/null 2>&1
    }
    fine 96-imap-pop3-and-smtp-with-starttls mail
    mqtt() {
        on "$C" timeout 14 mosquitto_sub -h $S -t news -k 5 -C 2 >/dev/null 2>&1 &
        local w=$!
        sleep 1; on "$C" mosquitto_pub -h $S -t news -m one -q 1; sleep 7
        on "$C" mosquitto_pub -V mqttv5 -h $S -t news -m two; wait $w
    }
    fine 97-mqtt-publish-subscribe-and-ping mqtt
    U=amqp://guest:guest@$S
    amqp() {
        on "$C" amqp-declare-queue -u $U -q jobs >/dev/null
        on "$C" timeout 6 amqp-consume -u $U -q jobs -c 2 cat >/dev/null 2>&1 &
        local w=$!
        sleep 1; on "$C" amqp-publish -u $U -r jobs -b one; sleep 1; on "$C" amqp-publish -u $U -r jobs -b two; wait $w
    }
    fine 98-amqp-publish-and-consume amqp
fi

if wants other; then
    T=unexpected-protocol-on-port
    http() { get "$C" --http0.9 -m 4 "http://$S:$1/" "${@:2}"; }
    seen $T/http-to-vsftpd two http 21
    seen $T/http-to-dovecot-pop3 http 110
    seen $T/http-to-rabbitmq http 5672
    tls() { get "$C" -m 4 "https://$S:5672/" "$@"; }
    seen $T/tls-to-rabbitmq two tls
    mqtt() { on "$C" timeout 3 mosquitto_sub -h $S -p "$1" -t news >/dev/null 2>&1; }
    seen $T/mqtt-to-rabbitmq mqtt 5672
    seen $T/mqtt-to-dovecot-imap mqtt 143
    nginx_start "$B" "server { listen $S:80; }"
    wait_port "$B" 80
    amqp() { on "$C" timeout 5 amqp-publish -u amqp://guest:guest@$S:80 -r jobs -b one >/dev/null 2>&1; }
    seen $T/amqp-to-nginx amqp
    seen $T/not-imap-to-imap get "$C" -u ann:secret imap://$S/
    published() { on "$C" mosquitto_pub -h $S -t news -m one; }
    seen $T/not-mqtt-to-mosquitto published
fi

if wants greeting; then
    T=service-greeting-error
    full() {
        talk "$C" 10.224.26.3 21 recv sleep:2 close &
        local w=$!
        sleep 0.5
        get "$C" ftp://10.224.26.3/
        wait $w
    }
    seen $T/vsftpd-too-many-users full
    refused() { on "$C" timeout 3 mosquitto_pub -h 10.224.26.3 -t news -m one >/dev/null 2>&1; on "$C" timeout 3 mosquitto_pub -V mqttv5 -h 10.224.26.3 -t news -m one >/dev/null 2>&1; }
    seen $T/mosquitto-not-authorized refused
    amqp10() { talk "$C" $S 5672 'send:AMQP\x00\x01\x00\x00' eof:3; }
    seen $T/rabbitmq-has-no-amqp-1.0 amqp10
    serve "$B" 144 'send:* BYE Too many connections from your address\r\n' close
    bye() { get "$C" -u ann:secret imap://$S:144/; }
    seen $T/imap-bye bye
    seen $T/not-imap-password-refused get "$C" -u ann:wrong imap://$S/
fi

if wants starttls; then
    T=starttls-needed
    from() { get "$C" "$@"; }
    seen $T/imaps-to-dovecot-143 two from -u ann:secret imaps://$S:143/
    seen $T/pop3s-to-dovecot-110 two from -u ann:secret pop3s://$S:110/
    seen $T/ftps-to-vsftpd two from ftps://$S:21/
    seen $T/smtps-to-postfix-25 two from smtps://$S:25/
    sql() { on "$C" psql -qAt "host=$S user=ann dbname=postgres sslmode=$1" -c 'SELECT 1' >/dev/null 2>&1; }
    postgres() { sql disable; hello $S:5432 -servername $NAME; hello $S:5432 -servername $NAME; }
    seen $T/tls-to-postgresql-beside-a-control postgres
    seen $T/tls-to-postgresql hello $S:5432 -servername $NAME
    asked() {
        get "$C" -u ann:secret --ssl-reqd imap://$S/; get "$C" -u ann:secret --ssl-reqd pop3://$S/; get "$C" --ssl-reqd ftp://$S/
        printf 'QUIT\r\n' | on "$C" timeout 5 openssl s_client -quiet -starttls smtp -connect $S:25 >/dev/null 2>&1
        sql require
    }
    seen $T/not-asked-first asked
    seen $T/not-imaps-to-993 get "$C" -u ann:secret imaps://$S/
fi

if wants waits; then
    T=both-sides-wait
    haproxy_start "$P" "defaults
  mode tcp
  timeout connect 3s
  timeout client 15s
  timeout server 30s
frontend inspects
  bind 203.0.113.1:21
  tcp-request inspect-delay 30s
  tcp-request content accept if { req.len gt 0 }
  default_backend ftp
frontend header
  bind 203.0.113.1:25 accept-proxy
  default_backend ftp
backend ftp
  server s $S:21"
    wait_port "$P" 21
    inspects() { get "$C" -m 12 ftp://203.0.113.1/; }
    record "$C" eth0 "$R/$T/haproxy-inspects-and-the-client-waits.pcap" tcp inspects
    header() { talk "$C" 203.0.113.1 25 eof:20; }
    record "$C" eth0 "$R/$T/haproxy-wants-a-proxy-header.pcap" tcp header
    stopped() {
        get "$C" ftp://$S/pub/hello.txt
        kill -STOP "$FTP"
        get "$C" -m 11 ftp://$S/pub/hello.txt & local one=$!
        get "$C" -m 11 --interface 203.0.113.8 ftp://$S/pub/hello.txt
        wait $one
        kill -CONT "$FTP"
    }
    seen $T/vsftpd-hangs-beside-a-control stopped
    serve "$B" 2121 sleep:5 'send:220 (FTP)\r\n' recv 'send:221 bye\r\n' close
    late() { talk "$C" $S 2121 recv 'send:QUIT\r\n' eof:3; }
    seen $T/not-greeted-after-5s late
    nginx_start "$B" "server { listen 10.224.26.4:80; }"
    wait_port "$B" 80
    preconnect() { talk "$C" 10.224.26.4 80 sleep:11 close; }
    seen $T/not-preconnect-where-the-client-speaks-first preconnect
    check() { local i; for i in 1 2 3; do talk "$C" 10.224.26.3 21 close; sleep 0.2; done; talk "$C" 203.0.113.1 25 sleep:0.4 close; }
    record "$C" eth0 "$R/$T/not-a-check.pcap" tcp check
fi

if wants name; then
    T=tls-sni-missing
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=default" -keyout "$TMP/default.key" -out "$TMP/default.crt" 2>/dev/null
    TLS="ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key;"
    nginx_start "$B" "$TLS
      server { listen 8442 ssl default_server; ssl_reject_handshake on; } server { listen 8442 ssl; server_name $NAME; }
      server { listen 8443 ssl default_server; ssl_certificate $TMP/default.crt; ssl_certificate_key $TMP/default.key; } server { listen 8443 ssl; server_name $NAME; }"
    haproxy_start "$B" "defaults
  mode http
  $HAPROXY_TIMES
frontend strict
  bind :8444 ssl crt $PEM.pem strict-sni
  http-request return status 200 content-type text/plain string hello"
    nginx_start "$P" "proxy_ssl_session_reuse off;
      server { listen 203.0.113.1:80; location / { proxy_pass https://$S:8442; } }
      server { listen 203.0.113.1:81; location / { proxy_pass https://$S:8442; proxy_ssl_server_name on; proxy_ssl_name $NAME; } }
      server { listen 203.0.113.1:82; location / { proxy_pass https://$S:8443; } }"
    for port in 8442 8443 8444; do wait_port "$B" $port; done
    wait_port "$P" 82
    proxied() { get "$C" http://203.0.113.1:81/; get "$C" http://203.0.113.1/; get "$C" http://203.0.113.1/; }
    record "$P" any "$R/$T/nginx-proxy-sends-no-name.pcap" tcp proxied
    strict() { get "$P" --resolve "$NAME:8444:$S" "https://$NAME:8444/"; get "$P" "https://$S:8444/"; }
    seen $T/haproxy-strict-sni strict
    other() {
        get "$P" --tls-max 1.2 --resolve "$NAME:8443:$S" "https://$NAME:8443/"
        NS=$P hello $S:8443 -noservername -tls1_2 -CAfile "$TMP/ca.pem" -verify_return_error
    }
    seen $T/default-certificate-is-rejected other
    stranger() { get "$C" --resolve "$NAME:8442:$S" "https://$NAME:8442/"; hello $S:8442 -noservername; }
    seen $T/stranger-is-a-notice stranger
    served() { get "$P" "https://$S:8443/"; get "$P" --resolve "$NAME:8443:$S" "https://$NAME:8443/"; get "$C" http://203.0.113.1:82/; }
    seen $T/not-default-site-serves served
    unknown() { get "$P" --resolve "shop.example.net:8442:$S" "https://shop.example.net:8442/"; get "$P" --resolve "$NAME:8442:$S" "https://$NAME:8442/"; }
    seen $T/not-name-unknown unknown
fi

if wants large; then
    T=tls-clienthello-lost
    nginx_start "$B" "ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key; server { listen 443 ssl; listen 4443 ssl; }"
    wait_port "$B" 443
    spawn "$P" python3 "$LAB_DIR/readsonce.py" 7443 $S 443
    wait_port "$P" 7443
    MANY=http/1.1,$(seq -s, 100000 100250)
    ask() { printf 'GET / HTTP/1.0\r\n\r\n' | on "$C" timeout "${3:-5}" openssl s_client -quiet -connect "$1" -servername $NAME -alpn "$2" >/dev/null 2>&1; }
    both() { ask "$1" http/1.1; ask "$1" "$MANY" "$2"; ask "$1" http/1.1; ask "$1" "$MANY" "$2"; }
    record "$C" eth0 "$R/$T/box-reads-one-segment.pcap" tcp both 203.0.113.1:7443
    on "$P" iptables -I FORWARD -p tcp --dport 443 -m length --length 1200:65535 -j DROP
    record "$C" eth0 "$R/$T/full-segments-are-dropped.pcap" tcp both $S:443 6
    on "$P" iptables -D FORWARD -p tcp --dport 443 -m length --length 1200:65535 -j DROP
    record "$C" eth0 "$R/$T/not-large-is-taken.pcap" "tcp port 4443" both $S:4443
    serve "$B" 9443 recv sleep:0.05 close
    record "$C" eth0 "$R/$T/not-every-one-is-closed-on.pcap" "tcp port 9443" both $S:9443
fi

if wants banner; then
    T=banner-delayed
    # the resolver is there and does not answer
    printf 'nameserver 10.224.26.1\noptions timeout:3 attempts:1\n' >"$TMP/resolv.conf"
    on "$P" iptables -I INPUT -p udp --dport 53 -j DROP
    in_vain() { spawn "$B" sh -c 'mount --bind "$0" /etc/resolv.conf; exec "$@"' "$TMP/resolv.conf" "$@"; }
    install -d -o mysql "$TMP/mysql"
    on "$B" mariadb-install-db --no-defaults --user=mysql --datadir="$TMP/mysql/data" --auth-root-authentication-method=normal >"$TMP/mysql.log" 2>&1
    echo "CREATE USER nobody@'%';" >"$TMP/mysql/users.sql"
    in_vain mariadbd --no-defaults --init-file="$TMP/mysql/users.sql" --user=mysql --datadir="$TMP/mysql/data" --bind-address=$S --port=3306 --socket="$TMP/mysql/s" --pid-file="$TMP/mysql/pid"
    wait_port "$B" 3306
    sql() { on "$C" mariadb -h "$1" -P "${2:-3306}" -u nobody -e 'SELECT 1' >/dev/null 2>&1; }
    record "$B" eth0 "$R/$T/mariadb-asks-for-the-clients-name.pcap" "" sql $S
    serve "$B" 22 sleep:4 'send:SSH-2.0-OpenSSH_9.2p1\r\n' recv close
    ssh() { talk "$C" $S 22 'send:SSH-2.0-client\r\n' recv sleep:0.2 close; }
    record "$B" eth0 "$R/$T/ssh-after-4s.pcap" "" ssh
    serve "$B" 2525 sleep:6 'send:220 mail.example.com ESMTP\r\n' recv 'send:221 bye\r\n' close
    mail() { talk "$C" $S 2525 recv 'send:QUIT\r\n' eof:3; }
    record "$B" eth0 "$R/$T/not-mail-that-waits-on-purpose.pcap" "" mail
    serve "$B" 2121 'send:220 (FTP)\r\n' recv 'send:221 bye\r\n' close
    lost() { # the greeting is lost three times
        on "$P" iptables -I FORWARD -p tcp --sport 2121 -m length --length 60:1500 --tcp-flags SYN,PSH PSH -j DROP
        talk "$C" $S 2121 recv 'send:QUIT\r\n' eof:3 & local w=$!
        sleep 2.4
        on "$P" iptables -D FORWARD -p tcp --sport 2121 -m length --length 60:1500 --tcp-flags SYN,PSH PSH -j DROP
        wait $w
    }
    record "$B" eth0 "$R/$T/not-greeting-that-was-lost.pcap" "" lost
fi

if wants slow; then
    T=tls-slow-handshake
    nginx_start "$B" "ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key; server { listen 443 ssl; } server { listen 80; }"
    haproxy_start "$B" "defaults
  mode tcp
  $HAPROXY_TIMES
frontend waits
  bind :8445
  tcp-request inspect-delay 4s
  tcp-request content accept if WAIT_END
  default_backend nginx
backend nginx
  server s $S:443"
    for port in 443 80 8445; do wait_port "$B" $port; done
    https() { get "$C" --interface "${2:-203.0.113.7}" --resolve "$NAME:$1:$S" "https://$NAME:$1/"; }
    inspects() { https 8445; https 8445 203.0.113.8; }
    record "$B" eth0 "$R/$T/haproxy-inspects-for-4s.pcap" "tcp port 8445" inspects
    thinks() {
        on "$C" python3 "$LAB_DIR/thinks.py" $S 443 $NAME 3 & local w=$!
        sleep 2
        get "$C" "http://$S/ca.crl"
        wait $w
    }
    record "$C" eth0 "$R/$T/client-fetches-a-revocation-list.pcap" tcp thinks
    record "$C" eth0 "$R/$T/not-quick.pcap" tcp https 443
    lost() { # the ServerHello is lost a few times
        on "$P" iptables -I FORWARD -p tcp --sport 443 -m length --length 400:1500 -j DROP
        https 443 & local w=$!
        sleep 1.6
        on "$P" iptables -D FORWARD -p tcp --sport 443 -m length --length 400:1500 -j DROP
        wait $w
    }
    record "$B" eth0 "$R/$T/not-server-hello-that-was-lost.pcap" tcp lost
fi
