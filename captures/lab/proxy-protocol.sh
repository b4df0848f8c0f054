#!/bin/bash
# Family G: PROXY protocol headers sent to, missing at, or broken for real receivers. About 5 minutes.
# proxy-protocol.sh [OUTPUT [group…]]     groups: tls http other missing malformed checksum fragmented duplicated unknown untrusted
. "$(dirname "$0")/lib.sh"
lab_need haproxy nginx apache2 go curl redis-server sshd ssh-keygen nc
OUT=${1:-$CAPTURES/rules}
shift
GROUPS_WANTED=${*:-tls http other missing malformed checksum fragmented duplicated unknown untrusted}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
lab_begin
certificates www.example.com
go_build
mkdir "$TMP/h"
python3 "$LAB_DIR/proxyheader.py" "$TMP/h"
H=$TMP/h
PEM=$TMP/www.example.com
NAME=www.example.com
R=$OUT

# --- receivers on the backend ---------------------------------------------------------------------------------
TLS="ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key;"
nginx_start "$B" "
  $TLS
  server { listen [::]:80 ipv6only=off; }
  server { listen [::]:443 ssl ipv6only=off; }
  server { listen [::]:8080 proxy_protocol ipv6only=off; }
  server { listen [::]:8443 ssl proxy_protocol ipv6only=off; }"
apache_start "$B" "
Listen 81
Listen 444
Listen 8081
Listen 8444
<VirtualHost *:444>
SSLEngine on
SSLCertificateFile $PEM.crt
SSLCertificateKeyFile $PEM.key
</VirtualHost>
<VirtualHost *:8081>
RemoteIPProxyProtocol On
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
  bind :::82 v4v6
  http-request return status 200 content-type text/plain string hello
frontend tls
  bind :::445 v4v6 ssl crt $PEM.pem
  http-request return status 200 content-type text/plain string hello
frontend plain_pp
  bind :::8082 v4v6 accept-proxy
  http-request return status 200 content-type text/plain string hello
frontend tls_pp
  bind :::8445 v4v6 accept-proxy ssl crt $PEM.pem
  http-request return status 200 content-type text/plain string hello"
spawn "$B" openssl s_server -www -quiet -accept 4433 -cert "$PEM.crt" -key "$PEM.key"
spawn "$B" "$TMP/goserver" -cert "$PEM.crt" -key "$PEM.key" -https :1443 -http :1080
for port in 80 443 8080 8443 81 444 8081 8444 82 445 8082 8445 4433 1443 1080; do wait_port "$B" $port || exit 1; done

# --- the sender: HAProxy on the proxy, mode tcp ----------------------------------------------------------------
sender() { # 'server options' [wait]      "wait": look at the ClientHello first, as GitLab Pages does
    local inspect=""
    [ "${2:-}" = wait ] && inspect="tcp-request inspect-delay 5s
  tcp-request content accept if { req.ssl_hello_type 1 }"
    haproxy_start "$P" "defaults
  mode tcp
  $HAPROXY_TIMES
frontend in
  bind 35.229.69.78:443
  bind 35.229.69.78:80
  bind 2001:db8:c::1:443
  $inspect
  default_backend servers
backend servers
  server s1 $1"
    SENDER=$LAST
    wait_port "$P" 443
}
https() { get "$C" --interface "$1" --resolve "$NAME:443:35.229.69.78" "https://$NAME/"; }
http() { get "$C" --interface "$1" --resolve "$NAME:80:35.229.69.78" "http://$NAME/"; }
https_users() { https 203.0.113.7; sleep 0.1; https 203.0.113.8; sleep 0.1; https 203.0.113.9; }
http_users() { http 203.0.113.7; sleep 0.1; http 203.0.113.8; sleep 0.1; http 203.0.113.9; }
via() { # file 'server options' mode command…     both legs, on the proxy
    sender "$2" "$3"
    record "$P" any "$R/$1.pcap" "tcp or arp or icmp" "${@:4}"
    stop "$SENDER"
}

if wants tls; then
    T=proxy-header-to-tls-port
    via $T/nginx-v2 "10.224.26.2:443 send-proxy-v2" wait https_users
    via $T/nginx-v1 "10.224.26.2:443 send-proxy" wait https_users
    via $T/apache-v2 "10.224.26.2:444 send-proxy-v2" wait https_users
    via $T/apache-v1 "10.224.26.2:444 send-proxy" wait https_users
    via $T/haproxy-v2 "10.224.26.2:445 send-proxy-v2" wait https_users
    via $T/haproxy-v1 "10.224.26.2:445 send-proxy" wait https_users
    via $T/openssl-v2 "10.224.26.2:4433 send-proxy-v2" wait https_users
    via $T/go-v2 "10.224.26.2:1443 send-proxy-v2" wait https_users
    via $T/go-v1 "10.224.26.2:1443 send-proxy" wait https_users
    via $T/go-v2-ssl-tlvs "10.224.26.2:1443 send-proxy-v2-ssl-cn proxy-v2-options crc32c,unique-id,authority" wait https_users
    # without inspection HAProxy does not wait for the ClientHello: header, the backend's FIN and HAProxy's FIN can all come before it
    python3 "$LAB_DIR/tlshello.py" $NAME "$TMP/hello"
    late_hello() { talk "$C" 35.229.69.78 443 sleep:0.2 "send:@$TMP/hello" eof:2; talk "$C" --from 203.0.113.8 35.229.69.78 443 sleep:0.1 "send:@$TMP/hello" eof:2; }
    via $T/go-v2-header-first "10.224.26.2:1443 send-proxy-v2" "" late_hello
    via $T/apache-v1-header-first "10.224.26.2:444 send-proxy" "" late_hello
    via $T/nginx-v1-header-first "10.224.26.2:443 send-proxy" "" late_hello
    six() { get "$C" -6 --resolve "$NAME:443:[2001:db8:c::1]" "https://$NAME/"; }
    via $T/go-v2-ipv6 "2001:db8:b::2:1443 send-proxy-v2" wait six
    with_control() {
        https_users
        get "$P" --resolve "$NAME:1443:10.224.26.2" "https://$NAME:1443/"
    }
    via $T/go-v2-with-control "10.224.26.2:1443 send-proxy-v2" wait with_control
    sender "10.224.26.2:1443 send-proxy-v2" wait
    record "$B" eth0 "$R/$T/go-v2-backend-leg.pcap" "" https_users
    stop "$SENDER"
    via $T/not-accepted-nginx-v2 "10.224.26.2:8443 send-proxy-v2" wait https_users
    via $T/not-accepted-nginx-v1 "10.224.26.2:8443 send-proxy" wait https_users
    via $T/not-accepted-apache-v2 "10.224.26.2:8444 send-proxy-v2" wait https_users
    via $T/not-accepted-haproxy-v1 "10.224.26.2:8445 send-proxy" "" https_users
    via $T/not-plain-http-port "10.224.26.2:80 send-proxy-v2" "" http_users
fi

if wants http; then
    T=proxy-header-to-http-port
    via $T/nginx-v2 "10.224.26.2:80 send-proxy-v2" "" http_users
    via $T/nginx-v1 "10.224.26.2:80 send-proxy" "" http_users
    via $T/apache-v2 "10.224.26.2:81 send-proxy-v2" "" http_users
    via $T/apache-v1 "10.224.26.2:81 send-proxy" "" http_users
    via $T/haproxy-v2 "10.224.26.2:82 send-proxy-v2" "" http_users
    via $T/go-v2 "10.224.26.2:1080 send-proxy-v2" "" http_users
    with_control() {
        http_users
        get "$P" "http://10.224.26.2:80/"
    }
    via $T/nginx-v2-with-control "10.224.26.2:80 send-proxy-v2" "" with_control
    curl_sends() { get "$P" --haproxy-protocol "http://10.224.26.2:81/"; }
    record "$B" eth0 "$R/$T/curl-v1-apache.pcap" "" curl_sends
    via $T/not-accepted-nginx-v2 "10.224.26.2:8080 send-proxy-v2" "" http_users
    via $T/not-accepted-nginx-v1 "10.224.26.2:8080 send-proxy" "" http_users
    via $T/not-accepted-apache-v1 "10.224.26.2:8081 send-proxy" "" http_users
    via $T/not-nginx-ssl-plain-400 "10.224.26.2:443 send-proxy-v2" wait https_users
fi

if wants other; then
    T=proxy-header-to-other-service
    spawn "$B" redis-server --port 6379 --save '' --appendonly no --protected-mode no --dir "$TMP" --bind 0.0.0.0
    ssh-keygen -q -t ed25519 -N '' -f "$TMP/hostkey" </dev/null
    printf 'Port 22\nHostKey %s\nUsePAM no\nPidFile none\nUseDNS no\n' "$TMP/hostkey" >"$TMP/sshd_config"
    spawn "$B" sh -c "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f $TMP/sshd_config"
    spawn "$B" python3 -W ignore -c '
import asyncore, smtpd
smtpd.DebuggingServer(("0.0.0.0", 25), None)
asyncore.loop()'
    haproxy_start "$B" "defaults
  mode tcp
  $HAPROXY_TIMES
listen redis_pp
  bind :16379 accept-proxy
  server s 10.224.26.2:6379
listen ssh_pp
  bind :10022 accept-proxy
  server s 10.224.26.2:22"
    for port in 6379 22 25 16379 10022; do wait_port "$B" $port; done
    redis_user() { talk "$C" 35.229.69.78 80 'send:*1\r\n$4\r\nPING\r\n' recv sleep:0.2 fin eof:2; }
    redis_inline() { talk "$C" 35.229.69.78 80 'send:PING\r\n' recv sleep:0.2 fin eof:2; }
    ssh_user() { on "$C" timeout 5 ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile="$TMP/known" -p 80 nobody@35.229.69.78 true </dev/null >>"$TMP/ssh.log" 2>&1; }
    smtp_user() { talk "$C" 35.229.69.78 80 recv 'send:EHLO client.example.com\r\n' recv 'send:QUIT\r\n' recv sleep:0.1 close; }
    via $T/redis-v1 "10.224.26.2:6379 send-proxy" "" redis_user
    via $T/redis-v1-inline "10.224.26.2:6379 send-proxy" "" redis_inline
    via $T/sshd-v1 "10.224.26.2:22 send-proxy" "" ssh_user
    via $T/sshd-v2 "10.224.26.2:22 send-proxy-v2" "" ssh_user
    via $T/smtp-v1 "10.224.26.2:25 send-proxy" "" smtp_user
    via $T/smtp-v2 "10.224.26.2:25 send-proxy-v2" "" smtp_user
    via $T/not-redis-behind-accept-proxy "10.224.26.2:16379 send-proxy-v2" "" redis_user
    via $T/not-sshd-behind-accept-proxy "10.224.26.2:10022 send-proxy" "" ssh_user
fi

if wants missing; then
    T=proxy-header-missing
    # the balancer sends the header, somebody goes straight to the port
    straight() { # scheme port
        if [ "$1" = https ]; then https_users; else http_users; fi
        get "$P" --resolve "$NAME:$2:10.224.26.2" "$1://$NAME:$2/"
        sleep 0.2
        get "$C" --resolve "$NAME:$2:10.224.26.2" "$1://$NAME:$2/"
        get "$C" --interface 203.0.113.9 --resolve "$NAME:$2:10.224.26.2" "$1://$NAME:$2/"
    }
    at_backend() { # file 'server options' scheme port
        sender "$2" ""
        record "$B" eth0 "$R/$1.pcap" "" straight "$3" "$4"
        stop "$SENDER"
    }
    at_backend $T/nginx-tls "10.224.26.2:8443 send-proxy-v2" https 8443
    at_backend $T/nginx-http "10.224.26.2:8080 send-proxy-v2" http 8080
    at_backend $T/apache-tls "10.224.26.2:8444 send-proxy-v2" https 8444
    at_backend $T/apache-http "10.224.26.2:8081 send-proxy" http 8081
    at_backend $T/haproxy-tls "10.224.26.2:8445 send-proxy" https 8445
    at_backend $T/haproxy-http "10.224.26.2:8082 send-proxy-v2" http 8082
    # the balancer loses its send-proxy in a reload
    lost() {
        https_users
        stop "$SENDER"
        sender "10.224.26.2:8443" wait
        https_users
        https_users
    }
    sender "10.224.26.2:8443 send-proxy-v2" wait
    record "$P" any "$R/$T/send-proxy-removed.pcap" "" lost
    stop "$SENDER"
    # look-alikes: closed with 0 octets, and no PROXY header anywhere
    haproxy_start "$B" "defaults
  mode tcp
  $HAPROXY_TIMES
frontend policy
  bind :9443
  tcp-request inspect-delay 2s
  tcp-request content reject if { req.ssl_sni -i $NAME }
  tcp-request content accept if { req.ssl_hello_type 1 }
  default_backend tls
backend tls
  server s 10.224.26.2:443"
    wait_port "$B" 9443
    policy() {
        get "$C" --resolve "$NAME:9443:10.224.26.2" "https://$NAME:9443/"
        get "$C" --resolve "other.example.com:9443:10.224.26.2" "https://other.example.com:9443/"
        get "$C" --resolve "$NAME:9443:10.224.26.2" "https://$NAME:9443/"
    }
    record "$B" eth0 "$R/$T/not-sni-rejected.pcap" "host 203.0.113.7 or arp" policy
    serve "$B" 9080 recv close
    closes() { get "$C" "http://10.224.26.2:9080/"; get "$C" "http://10.224.26.2:9080/"; }
    record "$B" eth0 "$R/$T/not-closed-for-another-reason.pcap" "" closes
    at_backend_ok() { https_users; }
    sender "10.224.26.2:8443 send-proxy-v2" wait
    record "$B" eth0 "$R/$T/not-header-present.pcap" "" at_backend_ok
    stop "$SENDER"
fi

REQUEST='send:GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n'
printf 'GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n' >"$TMP/request"
for form in "$H"/*; do cat "$form" "$TMP/request" >"$TMP/$(basename "$form").req"; done
port_of() { case $1 in nginx) echo 8080 ;; haproxy) echo 8082 ;; apache) echo 8081 ;; esac; }
bytes() { # receiver form       header and request in one segment, after a good sibling
    talk "$P" 10.224.26.2 "$(port_of "$1")" "send:@$TMP/v2-ok.req" eof:3
    sleep 0.1
    talk "$P" 10.224.26.2 "$(port_of "$1")" "send:@$TMP/$2.req" eof:3
}
direct() { record "$B" eth0 "$R/$1.pcap" "" "${@:2}"; }

if wants malformed; then
    T=proxy-header-malformed
    for receiver in nginx haproxy; do
        for form in v2-version-1 v2-command-2 v2-family-0x91 v2-length-9 v2-tlv-overrun v1-lf-only v1-address-1.2.3 \
            v1-too-long v1-double-space v1-port-70000 v1-port-leading-zero v1-family-mismatch v1-missing-port v1-lower-case; do
            direct $T/$form-$receiver bytes $receiver $form
        done
        truncated() {
            talk "$P" 10.224.26.2 "$(port_of "$1")" "send:@$TMP/v2-ok.req" eof:3
            talk "$P" 10.224.26.2 "$(port_of "$1")" "send:@$H/v2-truncated" eof:4
        }
        direct $T/v2-truncated-$receiver truncated $receiver
    done
    for form in v2-version-1 v2-length-9 v1-lf-only v2-family-0x91; do direct $T/$form-apache bytes apache $form; done
    for form in v2-noop v2-many-tlvs v2-aws v2-ssl v2-unix v2-ok6 v1-ok v1-ok6; do direct $T/not-$form-nginx bytes nginx $form; done
    for form in v2-many-tlvs v2-aws v1-ok6; do direct $T/not-$form-haproxy bytes haproxy $form; done
    pieces() { talk "$P" 10.224.26.2 "$(port_of "$1")" "send:@$TMP/v2-ok.req" eof:3; talk "$P" 10.224.26.2 "$(port_of "$1")" 'send:\r\n\r\n\x00\r\nQUIT\n\x21\x11' sleep:0.1 'send:\x00\x0c\xcb\x00\x71\x07\x23\xe5\x45\x4e\xcf\x0a\x01\xbb' "$REQUEST" eof:3; }
    direct $T/not-fragmented-nginx pieces nginx
    direct $T/not-fragmented-haproxy pieces haproxy
fi

if wants checksum; then
    T=proxy-header-bad-checksum
    direct $T/nginx-accepts bytes nginx v2-wrong-crc
    direct $T/apache-accepts bytes apache v2-wrong-crc
    direct $T/haproxy-resets bytes haproxy v2-wrong-crc
    direct $T/not-right-nginx bytes nginx v2-crc
    direct $T/not-right-haproxy bytes haproxy v2-crc
    direct $T/not-right-with-many-tlvs bytes haproxy v2-many-tlvs
    via $T/not-haproxy-sender-crc "10.224.26.2:8082 send-proxy-v2 proxy-v2-options crc32c" "" http_users
fi

if wants fragmented; then
    T=proxy-header-fragmented
    v2_pieces() { # receiver [pause]
        talk "$P" 10.224.26.2 "$(port_of "$1")" "send:@$TMP/v2-ok.req" eof:3
        talk "$P" 10.224.26.2 "$(port_of "$1")" 'send:\r\n\r\n\x00\r\nQUIT\n\x21\x11' "sleep:${2:-0.1}" 'send:\x00\x0c\xcb\x00\x71\x07\x23\xe5\x45\x4e\xcf\x0a\x01\xbb' "$REQUEST" eof:3
    }
    v1_pieces() {
        talk "$P" 10.224.26.2 "$(port_of "$1")" "send:@$TMP/v1-ok.req" eof:3
        talk "$P" 10.224.26.2 "$(port_of "$1")" 'send:PROXY TCP4 203.0.113.7 35.2' sleep:0.1 'send:29.69.78 53002 443\r\n' "$REQUEST" eof:3
    }
    v2_then_fin() {
        talk "$P" 10.224.26.2 "$(port_of "$1")" "send:@$TMP/v2-ok.req" eof:3
        talk "$P" 10.224.26.2 "$(port_of "$1")" 'send:\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00' fin eof:3
    }
    for receiver in nginx haproxy apache; do
        direct $T/v2-$receiver v2_pieces $receiver
        direct $T/v1-$receiver v1_pieces $receiver
    done
    direct $T/v2-haproxy-short-pause v2_pieces haproxy 0.003
    direct $T/v2-then-fin-nginx v2_then_fin nginx
    split_request() {
        talk "$P" 10.224.26.2 "$(port_of "$1")" "send:@$H/$2" sleep:0.05 'send:GET / HTTP/1.1\r\nHost: www.exa' sleep:0.1 'send:mple.com\r\nConnection: close\r\n\r\n' eof:3
    }
    direct $T/not-split-request-nginx-v2 split_request nginx v2-ok
    direct $T/not-split-request-haproxy-v1 split_request haproxy v1-ok
    split_after() {
        talk "$P" 10.224.26.2 "$(port_of "$1")" 'send:PROXY TCP4 203.0.113.7 35.229.69.78 53002 443\r\nGET / HT' sleep:0.1 'send:TP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n' eof:3
    }
    direct $T/not-header-with-half-a-request split_after haproxy
fi

if wants duplicated; then
    T=proxy-header-duplicated
    for pair in v2-ok+v2-ok v1-ok+v1-ok v1-ok+v2-ok v2-ok+v1-ok; do cat "$H/${pair%+*}" "$H/${pair#*+}" "$TMP/request" >"$TMP/$pair.req"; done
    direct $T/v2-v2-nginx bytes nginx v2-ok+v2-ok
    direct $T/v1-v1-nginx bytes nginx v1-ok+v1-ok
    direct $T/v1-v2-haproxy bytes haproxy v1-ok+v2-ok
    direct $T/v2-v1-haproxy bytes haproxy v2-ok+v1-ok
    direct $T/v2-v2-apache bytes apache v2-ok+v2-ok
    # nginx listens on 443 of every address: the middle balancer needs its own port
    chain_port() { # file 'bind options'
        haproxy_start "$B" "defaults
  mode tcp
  $HAPROXY_TIMES
listen middle
  bind 10.224.26.3:7443 $2
  server s 10.224.26.4:8443 send-proxy-v2"
        local middle=$LAST
        wait_port "$B" 7443
        sender "10.224.26.3:7443 send-proxy-v2" wait
        record "$B" any "$R/$1.pcap" "" https_users
        stop "$SENDER"
        stop "$middle"
    }
    chain_port $T/two-balancers ""
    chain_port $T/not-two-balancers-accept-proxy "accept-proxy"
    direct $T/not-one-header-nginx bytes nginx v2-ok
    direct $T/not-one-header-haproxy bytes haproxy v1-ok
fi

if wants unknown; then
    T=proxy-header-client-unknown
    direct $T/v1-unknown-nginx bytes nginx v1-unknown
    direct $T/v1-unknown-haproxy bytes haproxy v1-unknown
    direct $T/v1-unknown-apache-closes bytes apache v1-unknown
    direct $T/v1-unknown-addresses-nginx bytes nginx v1-unknown-addresses
    direct $T/v2-local-nginx bytes nginx v2-local
    direct $T/v2-local-haproxy bytes haproxy v2-local
    direct $T/v2-unspec-nginx bytes nginx v2-unspec
    direct $T/v2-unspec-apache-closes bytes apache v2-unspec
    checks() { sleep 9; }
    haproxy_start "$P" "defaults
  mode tcp
  $HAPROXY_TIMES
listen in
  bind 35.229.69.78:443
  server s1 10.224.26.2:8443 send-proxy-v2 check check-send-proxy inter 2s
  server s2 10.224.26.2:8080 send-proxy-v2 check inter 2s"
    SENDER=$LAST
    record "$B" eth0 "$R/$T/not-local-health-check.pcap" "" checks
    stop "$SENDER"
    local_close() { for i in 1 2 3; do talk "$P" 10.224.26.2 8080 "send:@$H/v2-local" sleep:0.05 close; sleep 1; done; }
    direct $T/not-local-then-close local_close
    direct $T/not-known-client bytes nginx v2-ok
fi

if wants untrusted; then
    T=proxy-header-from-untrusted
    usual() { http_users; http_users; }
    spoof() { talk "$C" --from 198.51.100.23 10.224.26.2 8080 "send:PROXY TCP4 10.0.0.1 35.229.69.78 40000 80\r\nGET /admin HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n" eof:3; }
    both() { usual; sleep 0.2; spoof; sleep 0.3; spoof; http_users; }
    sender "10.224.26.2:8080 send-proxy" ""
    record "$B" eth0 "$R/$T/v1-nginx.pcap" "" both
    spoof2() { talk "$C" --from 198.51.100.23 10.224.26.2 8080 "send:@$TMP/v2-ok.req" eof:3; }
    both2() { usual; sleep 0.2; spoof2; http_users; }
    record "$B" eth0 "$R/$T/v2-nginx.pcap" "" both2
    record "$B" eth0 "$R/$T/not-usual-proxy.pcap" "" usual
    stop "$SENDER"
fi
