#!/bin/bash
# Families H and I: TLS closed or refused by alert, and clients that speak another protocol than the port. About 2 minutes.
# wrong-protocol.sh [OUTPUT [group…]]      groups: closed alert http tls other
. "$(dirname "$0")/lib.sh"
lab_need haproxy nginx apache2 go curl redis-server redis-cli sshd ssh-keygen gnutls-serv gnutls-cli node
OUT=${1:-$CAPTURES/rules}
shift
GROUPS_WANTED=${*:-closed alert http tls other}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
lab_begin
certificates www.example.com
go_build
PEM=$TMP/www.example.com
NAME=www.example.com
R=$OUT
S=10.224.26.2
TLS="ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key;"
nginx_start "$B" "
  $TLS
  server { listen [::]:80 ipv6only=off; }
  server { listen [::]:443 ssl ipv6only=off; }
  server { listen [::]:8443 ssl proxy_protocol ipv6only=off; }"
apache_start "$B" "
Listen 81
Listen 444
Listen 8444
<VirtualHost *:444>
SSLEngine on
SSLCertificateFile $PEM.crt
SSLCertificateKeyFile $PEM.key
</VirtualHost>
<VirtualHost *:8444>
RemoteIPProxyProtocol On
SSLEngine on
SSLCertificateFile $PEM.crt
SSLCertificateKeyFile $PEM.key
</VirtualHost>"
haproxy_start "$B" "defaults
  mode http
  $HAPROXY_TIMES
frontend plain
  bind :82
  http-request return status 200 content-type text/plain string hello
frontend tls
  bind :445 ssl crt $PEM.pem
  http-request return status 200 content-type text/plain string hello
frontend tls_pp
  bind :8445 accept-proxy ssl crt $PEM.pem
  http-request return status 200 content-type text/plain string hello
frontend policy
  mode tcp
  bind :9443
  tcp-request inspect-delay 2s
  tcp-request content reject if { req.ssl_sni -i $NAME }
  tcp-request content accept if { req.ssl_hello_type 1 }
  default_backend tls_nginx
frontend dead
  mode tcp
  bind :9444
  tcp-request inspect-delay 2s
  tcp-request content accept if { req.ssl_hello_type 1 }
  default_backend dead
frontend dead_at_once
  mode tcp
  bind :9445
  default_backend dead_at_once
backend tls_nginx
  mode tcp
  server s $S:443
backend dead
  mode tcp
  retries 3
  server s $S:9
backend dead_at_once
  mode tcp
  retries 0
  server s $S:9"
spawn "$B" openssl s_server -www -quiet -accept 4433 -cert "$PEM.crt" -key "$PEM.key"
spawn "$B" "$TMP/goserver" -cert "$PEM.crt" -key "$PEM.key" -https :1443 -http :1080
spawn "$B" "$TMP/goserver" -broken -cert "$PEM.crt" -key "$PEM.key" -https :1444
spawn "$B" gnutls-serv --quiet --http -p 5556 --x509certfile "$PEM.crt" --x509keyfile "$PEM.key" --sni-hostname other.example.com
mkdir "$TMP/html"
spawn "$B" python3 -m http.server -d "$TMP/html" 83
spawn "$B" node -e "
const fs=require('fs'),o={cert:fs.readFileSync('$PEM.crt'),key:fs.readFileSync('$PEM.key')},h=(q,s)=>s.end('hello from node\n');
require('https').createServer(o,h).listen(446,'0.0.0.0');require('http').createServer(h).listen(84,'0.0.0.0')"
spawn "$B" redis-server --port 6379 --save '' --appendonly no --protected-mode no --dir "$TMP" --bind 0.0.0.0
ssh-keygen -q -t ed25519 -N '' -f "$TMP/hostkey" </dev/null
printf 'Port 22\nHostKey %s\nUsePAM no\nPidFile none\nUseDNS no\n' "$TMP/hostkey" >"$TMP/sshd_config"
spawn "$B" sh -c "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f $TMP/sshd_config"
for port in 80 443 8443 81 444 8444 82 445 8445 9443 9444 9445 4433 1443 1080 1444 5556 83 446 84 6379 22; do wait_port "$B" $port; done

https() { get "$C" --interface "${2:-203.0.113.7}" --resolve "${3:-$NAME}:$1:$S" "https://${3:-$NAME}:$1/"; }
http() { get "$C" --interface "${2:-203.0.113.7}" --resolve "$NAME:$1:$S" "http://$NAME:$1/"; }
https2() { https "$1"; sleep 0.1; https "$1" 203.0.113.8; }
http2() { http "$1"; sleep 0.1; http "$1" 203.0.113.8; }
at_server() { record "$B" eth0 "$R/$1.pcap" "" "${@:2}"; }
at_client() { record "$C" eth0 "$R/$1.pcap" "" "${@:2}"; }
python3 "$LAB_DIR/tlshello.py" $NAME "$TMP/hello"

if wants closed; then
    T=tls-closed-after-clienthello
    policy() { https 9443; https 9443 203.0.113.8 other.example.com; https 9443; }
    at_client $T/haproxy-sni-rejected policy
    at_client $T/haproxy-backend-dead-3s https 9444
    before() { talk "$C" $S 9445 sleep:0.05 "send:@$TMP/hello" eof:2; }
    at_client $T/fin-before-clienthello before
    at_client $T/apache-wants-proxy-fin https2 8444
    at_client $T/haproxy-wants-proxy-rst https2 8445
    at_server $T/nginx-wants-proxy-rst https2 8443
    serve "$B" 9446 recv sleep:0.02 close
    at_server $T/server-crash-fin https2 9446
    serve "$B" 9447 recv sleep:0.02 rst
    at_server $T/server-crash-rst https2 9447
    six() { get "$C" -6 --resolve "$NAME:9446:[2001:db8:b::2]" "https://$NAME:9446/"; }
    at_server $T/server-crash-fin-ipv6 six
    serve "$B" 9448 recv sleep:20
    client_first() { talk "$C" $S 9448 "send:@$TMP/hello" sleep:0.3 fin sleep:0.1 close; }
    at_server $T/not-client-closed-first client_first
    at_client $T/not-handshake-ok https2 443
    refused() { on "$C" openssl s_client -connect $S:4433 -cipher AES128-SHA -tls1_2 </dev/null >/dev/null 2>&1; }
    at_client $T/not-fatal-alert refused
    serve "$B" 9449 close
    no_hello() { talk "$C" $S 9449 eof:2; }
    at_client $T/not-no-clienthello no_hello
fi

if wants alert; then
    T=tls-fatal-alert
    at_client $T/internal-error-go https2 1444
    fallback() { on "$C" openssl s_client -connect $S:4433 -servername $NAME -tls1_2 -fallback_scsv </dev/null >/dev/null 2>&1; }
    at_client $T/inappropriate-fallback-openssl fallback
    mkdir "$TMP/broken"
    python3 "$LAB_DIR/tlsbroken.py" "$TMP/hello" "$TMP/broken"
    raw() { talk "$C" $S "$1" "send:@$TMP/broken/$2" eof:2; }
    for form in decode-error duplicate-extension no-null-compression; do
        at_client $T/$form-openssl raw 4433 $form
        at_client $T/$form-nginx raw 443 $form
        at_client $T/$form-go raw 1443 $form
        at_client $T/$form-gnutls raw 5556 $form
    done
    spawn "$P" python3 "$LAB_DIR/relay.py" 7001 $S 443 c2s 2
    spawn "$P" python3 "$LAB_DIR/relay.py" 7002 $S 443 s2c 1
    wait_port "$P" 7001
    wait_port "$P" 7002
    damaged() { get "$C" --tls-max 1.2 --resolve "$NAME:$1:203.0.113.1" "https://$NAME:$1/"; }
    at_client $T/bad-record-mac-openssl damaged 7001
    at_client $T/client-sends-decrypt-error damaged 7002
    warned() { on "$C" gnutls-cli --insecure --priority NORMAL:-VERS-TLS1.3 --sni-hostname $NAME -p 5556 $S </dev/null >/dev/null 2>&1; }
    at_client $T/not-warning-unrecognized-name-gnutls warned
    tls12() { get "$C" --tls-max 1.2 --resolve "$NAME:443:$S" "https://$NAME/"; }
    at_client $T/not-close-notify-tls12 tls12
    at_client $T/not-close-notify-tls13 https 4433
    cancelled() { talk "$C" $S 4433 "send:@$TMP/hello" recv 'send:\x15\x03\x03\x00\x02\x01\x5a\x15\x03\x03\x00\x02\x01\x00' fin eof:2; }
    at_client $T/not-user-canceled cancelled
fi

if wants http; then
    T=http-to-tls-port
    both() { http2 "$1"; https "$1" 203.0.113.9; }
    at_server $T/nginx http2 443
    at_server $T/nginx-with-control both 443
    at_server $T/apache http2 444
    at_server $T/go http2 1443
    at_server $T/haproxy-closes-with-control both 445
    at_server $T/openssl-closes-with-control both 4433
    at_server $T/node-closes-with-control both 446
    at_client $T/nginx-at-the-client http 443
    nginx_start "$P" "server { listen 203.0.113.1:80; location / { proxy_pass http://$S:443; } }"
    wait_port "$P" 80
    proxied() { get "$C" "http://203.0.113.1/"; get "$C" --interface 203.0.113.8 "http://203.0.113.1/"; }
    record "$P" any "$R/$T/nginx-proxy-to-nginx-tls.pcap" "" proxied
    at_server $T/not-https-ok https2 443
    at_server $T/not-http-ok http2 80
    proxy_header() { talk "$P" $S 443 'send:PROXY TCP4 203.0.113.7 35.229.69.78 53002 443\r\n' "send:@$TMP/hello" eof:2; }
    at_server $T/not-proxy-header proxy_header
fi

if wants tls; then
    T=tls-to-http-port
    at_server $T/nginx https2 80
    at_server $T/apache https2 81
    at_server $T/python-http09 https2 83
    at_server $T/go https2 1080
    at_server $T/haproxy https2 82
    at_server $T/node https2 84
    both() { http "$1"; https2 "$1"; }
    at_client $T/nginx-with-control both 80
    nginx_start "$P" "server { listen 203.0.113.1:81; location / { proxy_pass https://$S:80; } }"
    wait_port "$P" 81
    proxied() { get "$C" "http://203.0.113.1:81/"; get "$C" --interface 203.0.113.8 "http://203.0.113.1:81/"; }
    record "$P" any "$R/$T/nginx-proxy-to-plain-http.pcap" "" proxied
    at_server $T/not-http-ok http2 80
    at_server $T/not-https-ok https2 443
    at_server $T/not-https-ok-go https2 1443
    at_server $T/not-tls-to-ssh https 22
fi

if wants other; then
    T=unexpected-protocol-on-port
    ssh_to() { on "$C" timeout 5 ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile="$TMP/known" -p "$1" nobody@$S true </dev/null >>"$TMP/ssh.log" 2>&1; }
    at_server $T/ssh-to-nginx ssh_to 80
    at_server $T/ssh-to-apache ssh_to 81
    at_server $T/ssh-to-nginx-tls ssh_to 443
    at_server $T/ssh-to-redis ssh_to 6379
    http10_redis() { talk "$C" $S 6379 'send:GET / HTTP/1.0\r\n\r\n' recv sleep:0.1 close; }
    at_server $T/http-to-redis http10_redis
    at_server $T/http-to-sshd http 22
    at_server $T/tls-to-sshd https2 22
    redis_to() { on "$C" timeout 3 redis-cli -h $S -p "$1" PING </dev/null >/dev/null 2>&1; }
    at_server $T/redis-to-nginx redis_to 80
    at_server $T/not-ssh-to-sshd ssh_to 22
    at_server $T/not-redis-to-redis redis_to 6379
    at_server $T/not-http-to-http http 80
    at_server $T/not-http-to-tls http 443
    at_server $T/not-tls-to-http https 80
    prefixed() { talk "$P" $S 22 'send:PROXY TCP4 203.0.113.7 35.229.69.78 53002 22\r\n' 'send:SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n' eof:2; }
    at_server $T/not-proxy-prefixed-ssh prefixed
fi
