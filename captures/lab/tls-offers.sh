#!/bin/bash
# ClientHellos that no server takes: version, cipher suites, name, application protocol; and one that nobody answers. About 2 minutes.
# tls-offers.sh [OUTPUT [group…]]      groups: version cipher name alpn stalled
. "$(dirname "$0")/lib.sh"
lab_need nginx haproxy go curl redis-server gnutls-serv
OUT=${1:-$CAPTURES/rules}
shift
GROUPS_WANTED=${*:-version cipher name alpn stalled}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
lab_begin
NAME=www.example.com
certificates $NAME
go_build
PEM=$TMP/$NAME
S=10.224.26.2
TLS="ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key;"
nginx_start "$B" "$TLS ssl_protocols TLSv1.3; server { listen 443 ssl; }"
nginx_start "$B" "$TLS ssl_protocols TLSv1.2; ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384; server { listen 8441 ssl; }"
nginx_start "$B" "$TLS server { listen 8446 ssl http2; }"
nginx_start "$B" "$TLS server { listen 8442 ssl default_server; ssl_reject_handshake on; } server { listen 8442 ssl; server_name $NAME; }"
haproxy_start "$B" "defaults
  mode http
  $HAPROXY_TIMES
frontend new
  bind :8443 ssl crt $PEM.pem ssl-min-ver TLSv1.3
  http-request return status 200 content-type text/plain string hello
frontend strict
  bind :8444 ssl crt $PEM.pem strict-sni
  http-request return status 200 content-type text/plain string hello
frontend waits
  mode tcp
  bind :8445
  tcp-request inspect-delay 5s
  tcp-request content accept if WAIT_END
  default_backend nginx
backend nginx
  mode tcp
  server s $S:443"
spawn "$B" "$TMP/goserver" -cert "$PEM.crt" -key "$PEM.key" -https :1443
spawn "$B" "$TMP/goserver" -alpn h2 -cert "$PEM.crt" -key "$PEM.key" -https :1444
spawn "$B" openssl s_server -quiet -accept 4433 -cert "$PEM.crt" -key "$PEM.key" -alpn h2
spawn "$B" gnutls-serv --quiet --http -p 5556 --x509certfile "$PEM.crt" --x509keyfile "$PEM.key" --priority NORMAL:-VERS-ALL:+VERS-TLS1.1:+SHA1
spawn "$B" gnutls-serv --quiet --http -p 5557 --x509certfile "$PEM.crt" --x509keyfile "$PEM.key" --priority NORMAL:-VERS-ALL:+VERS-TLS1.2
spawn "$B" redis-server --port 6379 --save '' --appendonly no --protected-mode no --dir "$TMP" --bind 0.0.0.0
for port in 443 8441 8442 8443 8444 8445 8446 1443 1444 4433 5556 5557 6379; do wait_port "$B" $port; done

https() { # port name [curl-arguments…]
    local port=$1 name=$2
    shift 2
    get "$C" --resolve "$name:$port:$S" "https://$name:$port/" "$@"
}
offers() { # port s_client-arguments…     OpenSSL's client, with old versions allowed
    local port=$1
    shift
    on "$C" timeout 5 openssl s_client -connect "$S:$port" -servername "$NAME" "$@" </dev/null >/dev/null 2>&1
}
from_two() { "$@" --interface 203.0.113.7; sleep 0.1; "$@" --interface 203.0.113.8; }
seen() { record "$B" eth0 "$OUT/$1.pcap" tcp "${@:2}"; }

if wants version; then
    T=tls-version-mismatch
    beside() { from_two https 443 $NAME --tls-max 1.2; https 443 $NAME --interface 203.0.113.9; }
    seen $T/nginx-only-13-beside-a-control beside
    seen $T/haproxy-only-13 https 8443 $NAME --tls-max 1.2
    seen $T/old-client-at-gnutls offers 5557 -tls1_1 -cipher DEFAULT@SECLEVEL=0
    seen $T/client-refuses-what-gnutls-chose offers 5556 -min_protocol TLSv1.2
    scan() {
        local version
        for version in -tls1 -tls1_1 -tls1_2; do
            offers 443 $version -cipher DEFAULT@SECLEVEL=0
            offers 443 $version -cipher AES128-SHA@SECLEVEL=0
        done
        https 443 $NAME --interface 203.0.113.8
    }
    seen $T/scanner-is-a-notice scan
    seen $T/not-in-common https 443 $NAME
    seen $T/not-no-cipher offers 8441 -tls1_2 -cipher AES128-SHA
    seen $T/not-older-version-is-taken https 5557 $NAME
fi
if wants cipher; then
    T=tls-no-shared-cipher
    rsa() { offers "$1" -tls1_2 -cipher AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256; }
    beside() { rsa 8441; https 8441 $NAME; }
    seen $T/nginx-beside-a-control beside
    seen $T/go-has-no-rsa-certificate rsa 1443
    seen $T/gnutls rsa 5557
    seen $T/go-no-group offers 1443 -tls1_3 -curves X448
    seen $T/not-one-in-common offers 8441 -tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384:AES128-SHA
    seen $T/not-no-version offers 443 -tls1_2
fi
if wants name; then
    T=tls-sni-unrecognized
    beside() { from_two https 8442 shop.example.net; https 8442 $NAME; }
    seen $T/nginx-beside-a-control beside
    seen $T/haproxy-strict-sni from_two https 8444 shop.example.net
    nameless() { on "$C" timeout 5 openssl s_client -connect "$S:8442" -noservername </dev/null >/dev/null 2>&1; }
    seen $T/no-name-is-a-notice nameless
    seen $T/not-known https 8442 $NAME
    seen $T/not-default-certificate https 1443 shop.example.net
fi
if wants alpn; then
    T=tls-alpn-mismatch
    nginx_both() { offers 8446 -alpn grpc-exp; https 8446 $NAME; }
    seen $T/go-tls12 offers 1444 -tls1_2 -alpn grpc-exp
    seen $T/nginx-beside-a-control nginx_both
    seen $T/openssl offers 4433 -alpn http/1.1,grpc-exp
    seen $T/acme-probe-is-a-notice offers 4433 -alpn acme-tls/1
    seen $T/sealed-go-tls13 offers 1444 -alpn grpc-exp
    seen $T/not-in-common offers 1444 -alpn h2,http/1.1
    seen $T/not-none-offered offers 1444
    seen $T/not-ignored offers 5557 -alpn h2
fi
if wants stalled; then
    T=tls-handshake-stalled
    seen $T/redis-waits-for-ever get "$C" -m 13 --resolve "$NAME:6379:$S" "https://$NAME:6379/"
    seen $T/given-up-after-3s get "$C" -m 3 --resolve "$NAME:6379:$S" "https://$NAME:6379/"
    late() { https 8445 $NAME; }
    seen $T/not-answered-after-5s late
    seen $T/not-given-up-at-once get "$C" -m 0.4 --resolve "$NAME:6379:$S" "https://$NAME:6379/"
fi
