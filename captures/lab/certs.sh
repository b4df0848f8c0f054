# Certificates with chosen dates, and real TLS clients. Source it after lib.sh and call these after lab_begin.

authority() { # name subject             a root of its own: $TMP/NAME.pem (certificate) and $TMP/NAME.key
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "$2" \
        -keyout "$TMP/$1.key" -out "$TMP/$1.pem" 2>/dev/null
}

# issue FILE AUTHORITY SUBJECT START END [extension…]     START and END as GNU date reads them; makes $TMP/FILE.key and FILE.crt.
# AUTHORITY "self" signs with its own key. `openssl ca` is used because `openssl x509` learned dates only in 3.4.
issue() {
    local file=$1 by=$2 subject=$3 start end sign=()
    start=$(date -u -d "$4" +%Y%m%d%H%M%SZ) end=$(date -u -d "$5" +%Y%m%d%H%M%SZ)
    shift 5
    local dir="$TMP/ca-$file"
    mkdir "$dir"
    : >"$dir/index.txt"
    printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index.txt\nnew_certs_dir=%s\nrand_serial=yes\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=optional\norganizationName=optional\n[e]\n' \
        "$dir" "$dir" >"$dir/ca.cnf"
    printf '%s\n' "$@" >>"$dir/ca.cnf"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$subject" -keyout "$TMP/$file.key" -out "$dir/csr" 2>/dev/null
    if [ "$by" = self ]; then sign=(-selfsign -keyfile "$TMP/$file.key"); else sign=(-cert "$TMP/$by.pem" -keyfile "$TMP/$by.key"); fi
    openssl ca -batch -notext -config "$dir/ca.cnf" "${sign[@]}" -startdate "$start" -enddate "$end" -in "$dir/csr" \
        -out "$TMP/$file.crt" 2>>"$TMP/ca.log" || { cat "$TMP/ca.log" >&2; exit 1; }
    chmod 644 "$TMP/$file.key" "$TMP/$file.crt"
}

tls_clients_build() { # the Go and the Java client
    (cd "$LAB_DIR/tlsclient" && GO111MODULE=off go build -p 1 -o "$TMP/goclient" client.go) || exit 1
    javac -d "$TMP" "$LAB_DIR/tlsclient/Client.java" || exit 1
}

from_address() { # the client's next connections come from this address
    ip -n "$C" route replace default via 203.0.113.1 src "$1"
}

# tls_client NAMESPACE KIND ADDRESS PORT NAME VERSION     one HTTPS request; KIND is curl, go, openssl, java or node, VERSION 12 or 13
tls_client() {
    local ns=$1 kind=$2 address=$3 port=$4 name=$5 version=$6 dotted=1.${6#1}
    case $kind in
    curl) on "$ns" curl -s -m 8 -o /dev/null -w 'curl: %{http_code} %{errormsg}\n' --cacert "$TMP/ca.pem" --tlsv1.2 --tls-max "$dotted" \
        --resolve "$name:$port:$address" "https://$name:$port/" </dev/null ;;
    go) on "$ns" "$TMP/goclient" "$address:$port" "$name" "$TMP/ca.pem" "$version" </dev/null ;;
    openssl)
        printf 'GET / HTTP/1.0\r\nHost: %s\r\n\r\n' "$name" | on "$ns" timeout 8 openssl s_client -connect "$address:$port" -servername "$name" \
            -CAfile "$TMP/ca.pem" -verify_return_error -verify_hostname "$name" "-tls1_${version#1}" -ign_eof 2>&1 |
            grep -m1 -oE 'verify error.*|HTTP/1.1 [0-9]+' | sed 's/^/openssl: /' ;;
    java)
        echo "$address $name" >"$TMP/java-hosts"
        on "$ns" java -Xshare:auto -XX:TieredStopAtLevel=1 -cp "$TMP" "-Djdk.net.hosts.file=$TMP/java-hosts" "-Djdk.tls.client.protocols=TLSv$dotted" \
            Client "$name" "$port" "$TMP/ca.pem" </dev/null ;;
    node) on "$ns" node "$LAB_DIR/tlsclient/client.js" "$address" "$port" "$name" "$TMP/ca.pem" "$version" </dev/null ;;
    esac
}
