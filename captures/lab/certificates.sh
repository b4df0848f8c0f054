#!/bin/bash
# Certificates that clients refuse, and look-alikes: one nginx, five clients, TLS 1.2 and 1.3. About 3 minutes.
# certificates.sh [OUTPUT [group…]]      groups: each together client alike rules
# The group rules writes into captures/rules (or $RULES): what the rules need beside copies of the captures above.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/certs.sh"
lab_need nginx haproxy apache2 go javac java node curl faketime
OUT=${1:-$CAPTURES/incidents/certificates}
shift
WANTED=${*:-each together client alike rules}
RULES=${RULES:-$CAPTURES/rules}
wants() { [[ " $WANTED " == *" $1 "* ]]; }
mkdir -p "$OUT"
lab_begin
tls_clients_build
NAME=www.example.com
S=10.224.26.2
SAN=subjectAltName=DNS:$NAME
authority ca "/O=tcpwhy lab/CN=tcpwhy lab CA"
authority other "/O=somebody else/CN=an authority nobody knows"
issue inter ca "/O=tcpwhy lab/CN=tcpwhy lab intermediate" "-30 days" "+1000 days" basicConstraints=critical,CA:true keyUsage=keyCertSign
cp "$TMP/inter.crt" "$TMP/inter.pem"
issue old-inter ca "/O=tcpwhy lab/CN=tcpwhy lab intermediate of last year" "-400 days" "-35 days" basicConstraints=critical,CA:true keyUsage=keyCertSign
cp "$TMP/old-inter.crt" "$TMP/old-inter.pem"
issue good ca "/CN=$NAME" "-10 days" "+80 days" "$SAN"
issue expired ca "/CN=$NAME" "-90 days" "-2 hours" "$SAN"
issue soon ca "/CN=$NAME" "-85 days" "+5 days" "$SAN"
issue very-soon ca "/CN=$NAME" "-89 days" "+1 day" "$SAN"
issue short-lived ca "/CN=$NAME" "-1 day" "+5 days" "$SAN"
issue future ca "/CN=$NAME" "+2 days" "+92 days" "$SAN"
issue self self "/CN=$NAME" "-10 days" "+80 days" "$SAN"
issue unknown other "/CN=$NAME" "-10 days" "+80 days" "$SAN"
issue name ca "/CN=shop.example.net" "-10 days" "+80 days" subjectAltName=DNS:shop.example.net,DNS:*.shop.example.net
issue chain inter "/CN=$NAME" "-10 days" "+80 days" "$SAN"
cp "$TMP/chain.crt" "$TMP/chain-leaf.crt"
cp "$TMP/chain.key" "$TMP/chain-full.key"
cat "$TMP/chain.crt" "$TMP/inter.crt" >"$TMP/chain-full.crt"
issue old-chain old-inter "/CN=$NAME" "-10 days" "+80 days" "$SAN"
cat "$TMP/old-inter.crt" >>"$TMP/old-chain.crt"

cat "$TMP/good.crt" "$TMP/good.key" >"$TMP/good.both.pem"
issue user ca "/CN=user" "-10 days" "+80 days" extendedKeyUsage=clientAuth
issue user-expired ca "/CN=user" "-90 days" "-1 hour" extendedKeyUsage=clientAuth
issue user-unknown other "/CN=user" "-10 days" "+80 days" extendedKeyUsage=clientAuth

declare -A PORT=([good]=443 [expired]=4431 [soon]=4432 [very-soon]=4433 [short-lived]=4434 [future]=4435 [self]=4436 [unknown]=4437 [name]=4438
    [chain]=4439 [chain-full]=4440 [old-chain]=4441)
SERVERS=
for cert in "${!PORT[@]}"; do
    SERVERS+="server { listen ${PORT[$cert]} ssl; ssl_certificate $TMP/$cert.crt; ssl_certificate_key $TMP/$cert.key; }
  "
done
nginx_start "$B" "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets off;
  $SERVERS"
wait_port "$B" 443
haproxy_start "$B" "defaults
  mode http
  $HAPROXY_TIMES
frontend mutual
  bind :4450 ssl crt $TMP/good.both.pem ca-file $TMP/ca.pem verify required
  http-request return status 200 content-type text/plain string hello
frontend optional
  bind :4451 ssl crt $TMP/good.both.pem ca-file $TMP/ca.pem verify optional
  http-request return status 200 content-type text/plain string hello"
wait_port "$B" 4450
PORT[mutual]=4450 PORT[optional]=4451

FROM=(203.0.113.7 203.0.113.8 203.0.113.9)
TURN=0
many() { # certificate version client…    one after the other, from three addresses in turn
    local cert=$1 version=$2 client
    shift 2
    for client in "$@"; do
        from_address "${FROM[TURN++ % 3]}"
        tls_client "$C" "$client" "$S" "${PORT[$cert]}" "$NAME" "$version"
    done
}
seen() { # file command…                  captured on the server
    local file=$1
    shift
    record "$B" eth0 "$OUT/$file.pcap" "tcp" "$@"
}

knowing() { # certificate authority    a curl that knows this authority too
    cat "$TMP/ca.pem" "$TMP/$2.pem" >"$TMP/both.pem"
    on "$C" curl -s -m 8 -o /dev/null -w 'curl that knows it: %{http_code} %{errormsg}\n' --cacert "$TMP/both.pem" --tls-max 1.2 \
        --resolve "$NAME:${PORT[$1]}:$S" "https://$NAME:${PORT[$1]}/" </dev/null
}
tls_client_with_intermediate() { knowing chain inter; } # as browsers do

if wants each; then
    for fault in expired future self unknown name chain old-chain; do
        for version in 12 13; do
            for client in curl go openssl java node; do seen "$fault-$client-$version" many "$fault" "$version" "$client"; done
        done
    done
fi
if wants together; then
    # a good answer on another port of the host, then every client is refused
    together() { many good "$2" curl go; many "$1" "$2" curl go openssl java node; }
    for fault in expired future unknown; do
        for version in 12 13; do seen "all-$fault-$version" together "$fault" "$version"; done
    done
    both() { many expired 12 curl; many expired 13 go java; many expired 12 openssl; many expired 13 node; }
    seen all-expired-mixed both
    encrypted() { many expired 13 go java node go java; }
    seen all-expired-13-no-reason encrypted
    some() { many chain 12 curl go; tls_client_with_intermediate; many chain 12 java; }
    seen all-chain-12-one-knows-the-intermediate some
fi
if wants client; then
    with() { # version [client certificate]  HAProxy wants one
        local own=()
        [ -n "${2:-}" ] && own=(--cert "$TMP/$2.crt" --key "$TMP/$2.key")
        on "$C" curl -s -m 8 -o /dev/null -w 'curl: %{http_code} %{errormsg}\n' --cacert "$TMP/ca.pem" --tls-max "1.${1#1}" "${own[@]}" \
            --resolve "$NAME:4450:$S" "https://$NAME:4450/" </dev/null
    }
    for version in 12 13; do
        seen "client-cert-missing-$version" with "$version"
        seen "client-cert-expired-$version" with "$version" user-expired
        seen "client-cert-unknown-$version" with "$version" user-unknown
        seen "not-client-cert-good-$version" with "$version" user
    done
fi
if wants alike; then
    ignoring() { # monitoring that does not look at the certificate
        for version in 12 13; do
            get "$C" --tls-max "1.${version#1}" --resolve "$NAME:${PORT[$1]}:$S" "https://$NAME:${PORT[$1]}/"
        done
    }
    for fault in expired self name future; do seen "not-$fault-clients-accept" ignoring "$fault"; done
    for cert in soon very-soon short-lived; do
        for version in 12 13; do seen "$cert-$version" many "$cert" "$version" curl go openssl; done
    done
    seen not-good-12 many good 12 curl go openssl java node
    seen not-good-13 many good 13 curl go openssl java node
    seen not-chain-full-12 many chain-full 12 curl go openssl java node
    clock() { # the client's clock is 100 days fast, the certificate is good
        on "$C" faketime '+100 days' curl -s -m 8 -o /dev/null -w 'curl: %{http_code} %{errormsg}\n' --cacert "$TMP/ca.pem" --tls-max "1.$1" \
            --resolve "$NAME:443:$S" "https://$NAME/" </dev/null
    }
    clocks() { many good 12 go; clock 2; many good 12 openssl; clock 2; }
    seen client-clock-fast-12 clocks
    slow() {
        on "$C" faketime '-100 days' curl -s -m 8 -o /dev/null -w 'curl: %{http_code} %{errormsg}\n' --cacert "$TMP/ca.pem" --tls-max 1.2 \
            --resolve "$NAME:443:$S" "https://$NAME/" </dev/null
    }
    seen client-clock-slow-12 slow
fi
if wants rules; then
    rule() { # rule/case command…
        local file=$1
        shift
        record "$B" eth0 "$RULES/$file.pcap" "tcp" "$@"
    }
    copy() { # capture rule/case
        mkdir -p "$RULES/${2%/*}"
        cp "$OUT/$1.pcap" "$RULES/$2.pcap"
    }
    renewed() { # an nginx of its own: the certificate on its disk is replaced, and loaded by a restart
        local pid
        cp "$TMP/expired.crt" "$TMP/site.crt" && cp "$TMP/expired.key" "$TMP/site.key"
        nginx_start "$B" "server { listen 4442 ssl; ssl_certificate $TMP/site.crt; ssl_certificate_key $TMP/site.key; }"
        pid=$LAST
        wait_port "$B" 4442
        many site 12 curl go openssl java
        cp "$TMP/good.crt" "$TMP/site.crt" && cp "$TMP/good.key" "$TMP/site.key"
        stop "$pid"
        nginx_start "$B" "server { listen 4442 ssl; ssl_certificate $TMP/site.crt; ssl_certificate_key $TMP/site.key; }"
        wait_port "$B" 4442
        many site 12 curl go
    }
    PORT[site]=4442
    rule cert-outage/renewed-in-the-end renewed
    nodes() { # two nodes of one name send the same certificate
        S=10.224.26.3 many expired 12 curl go
        S=10.224.26.4 many expired 12 openssl java
    }
    rule cert-outage/two-nodes nodes
    alone() { FROM=(203.0.113.7 203.0.113.7 203.0.113.7) && many expired 12 curl go openssl java curl; }
    rule cert-outage/not-one-client alone
    FROM=(203.0.113.7 203.0.113.8 203.0.113.9)
    beside() { many chain 12 curl go; tls_client_with_intermediate; many chain 12 java; many chain-full 12 openssl; }
    rule tls-chain-incomplete/beside-a-server-that-sends-it beside
    private() { many unknown 12 curl curl; knowing unknown other; many unknown 12 curl; }
    rule tls-chain-incomplete/not-one-kind-lacks-the-authority private
    go_build
    spawn "$B" "$TMP/goserver" -mutual "$TMP/ca.pem" -cert "$TMP/good.crt" -key "$TMP/good.key" -https :4452
    wait_port "$B" 4452
    apache_start "$B" "Listen 4453
<VirtualHost *:4453>
  ServerName $NAME
  SSLEngine on
  SSLCertificateFile $TMP/good.crt
  SSLCertificateKeyFile $TMP/good.key
  SSLCACertificateFile $TMP/ca.pem
  SSLVerifyClient require
</VirtualHost>"
    wait_port "$B" 4453
    to_port() { # port version [client certificate]    curl
        local own=()
        [ -n "${3:-}" ] && own=(--cert "$TMP/$3.crt" --key "$TMP/$3.key")
        on "$C" curl -s -m 8 -o /dev/null -w 'curl: %{http_code} %{errormsg}\n' --cacert "$TMP/ca.pem" --tls-max "1.${2#1}" "${own[@]}" \
            --resolve "$NAME:$1:$S" "https://$NAME:$1/" </dev/null
    }
    for version in 12 13; do
        rule "tls-client-cert-required/at-go-tls$version" to_port 4452 "$version"
        rule "tls-client-cert-required/at-apache-tls$version" to_port 4453 "$version"
        rule "tls-client-cert-rejected/at-go-tls$version" to_port 4452 "$version" user-unknown
        rule "tls-client-cert-rejected/at-apache-tls$version" to_port 4453 "$version" user-expired
        good_one() { to_port 4452 "$version" user; to_port 4453 "$version" user; }
        rule "tls-client-cert-rejected/not-good-at-others-tls$version" good_one
    done
    without() { many mutual 13 go java; }
    rule tls-client-cert-required/go-and-java-tls13 without
    optional() { many optional 12 curl go; many optional 13 curl go openssl java; }
    rule tls-client-cert-required/not-optional optional
    copy all-expired-12 cert-outage/every-client-expired
    copy all-expired-mixed cert-outage/sealed-beside-readable
    copy all-unknown-13 cert-outage/issuer-unknown-tls13
    copy all-expired-13-no-reason cert-outage/not-without-a-reason
    copy all-chain-12-one-knows-the-intermediate cert-outage/not-one-knows-the-intermediate
    copy client-clock-fast-12 cert-outage/not-a-clock
    copy all-chain-12-one-knows-the-intermediate tls-chain-incomplete/one-knows-the-intermediate
    copy all-unknown-12 tls-chain-incomplete/not-nobody-knows-the-issuer
    copy not-chain-full-12 tls-chain-incomplete/not-full
    for version in 12 13; do
        copy "client-cert-missing-$version" "tls-client-cert-required/curl-tls$version"
        copy "not-client-cert-good-$version" "tls-client-cert-required/not-good-tls$version"
        for fault in expired unknown; do copy "client-cert-$fault-$version" "tls-client-cert-rejected/$fault-tls$version"; done
        copy "not-client-cert-good-$version" "tls-client-cert-rejected/not-good-tls$version"
        copy "client-cert-missing-$version" "tls-client-cert-rejected/not-missing-tls$version"
    done
fi
ls -l "$OUT" | wc -l
