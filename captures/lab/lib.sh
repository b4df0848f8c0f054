# Shared by every script of the capture lab. Source it, then call lab_begin.
#
# The lab is three network namespaces, made for one run and removed at its end:
#
#   client  eth0 203.0.113.7 .8 .9, 198.51.100.23, 2001:db8:c::7 .8     the users
#   proxy   eth0 203.0.113.1, 2001:db8:c::1 (to the client)             the load balancer; routes for the others
#           eth1 10.224.26.1, 2001:db8:b::1 (to the backend)
#           lo   35.229.69.78 (a public address of the load balancer)
#   backend eth0 10.224.26.2 .3 .4, 2001:db8:b::2 .3                    the servers
#
# Everything a script starts is remembered by its process id and ended by it.

LAB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CAPTURES=$(cd "$LAB_DIR/.." && pwd)

lab_need() {
    [ "$(id -u)" = 0 ] || { echo "SKIPPED $0: network namespaces need root"; exit 0; }
    local program
    for program in ip tcpdump python3 openssl "$@"; do
        command -v "$program" >/dev/null || { echo "SKIPPED $0: $program is not installed"; exit 0; }
    done
}

lab_begin() {
    TMP=$(mktemp -d /tmp/tcpwhy-lab.XXXXXX)
    chmod 755 "$TMP"
    LAB=tw$$
    C=$LAB-c P=$LAB-p B=$LAB-b
    PIDS=()
    trap lab_end EXIT
    trap 'exit 130' INT TERM
    local ns
    for ns in $C $P $B; do
        ip netns add "$ns"
        ip -n "$ns" link set lo up
        ip netns exec "$ns" sysctl -qw net.ipv4.tcp_timestamps=1 net.ipv6.conf.all.accept_dad=0 \
            net.ipv6.conf.default.accept_dad=0 net.ipv4.tcp_no_metrics_save=1 net.ipv4.ip_local_port_range="40000 60999"
    done
    ip link add eth0 netns "$C" type veth peer name eth0 netns "$P"
    ip link add eth1 netns "$P" type veth peer name eth0 netns "$B"
    lab_address "$C" eth0 203.0.113.7/24 203.0.113.8/24 203.0.113.9/24 198.51.100.23/32 2001:db8:c::7/64 2001:db8:c::8/64
    lab_address "$P" eth0 203.0.113.1/24 2001:db8:c::1/64
    lab_address "$P" eth1 10.224.26.1/24 2001:db8:b::1/64
    lab_address "$B" eth0 10.224.26.2/24 10.224.26.3/24 10.224.26.4/24 2001:db8:b::2/64 2001:db8:b::3/64
    ip -n "$P" addr add 35.229.69.78/32 dev lo
    ip -n "$P" route add 198.51.100.0/24 dev eth0
    ip -n "$C" route add default via 203.0.113.1
    ip -n "$C" -6 route add default via 2001:db8:c::1
    ip -n "$B" route add default via 10.224.26.1
    ip -n "$B" -6 route add default via 2001:db8:b::1
    ip netns exec "$P" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    if [ -z "${LAB_KEEP_OFFLOAD:-}" ]; then
        ip netns exec "$C" python3 "$LAB_DIR/offload.py" eth0
        ip netns exec "$P" python3 "$LAB_DIR/offload.py" eth0 eth1
        ip netns exec "$B" python3 "$LAB_DIR/offload.py" eth0
    fi
    # neighbours are known before the first capture, so that only captures about ARP show it
    ip netns exec "$C" ping -qc1 -W1 203.0.113.1 >/dev/null 2>&1
    ip netns exec "$P" ping -qc1 -W1 10.224.26.2 >/dev/null 2>&1
}

echo_request() { # namespace address     one ICMP echo request, as ping sends it
    ip netns exec "$1" python3 -c "
import socket, struct
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
sock.settimeout(1)
body = struct.pack('!HH', 77, 1) + bytes(range(48))
total = sum(struct.unpack('!26H', body)) + 0x0800
while total >> 16: total = (total & 0xffff) + (total >> 16)
sock.sendto(struct.pack('!BBH', 8, 0, ~total & 0xffff) + body, ('$2', 0))
sock.recv(512)" 2>/dev/null
}

lab_address() { # namespace interface address...
    local ns=$1 dev=$2 a
    shift 2
    for a in "$@"; do ip -n "$ns" addr add "$a" dev "$dev"; done
    ip -n "$ns" link set "$dev" up
}

lab_end() {
    local status=$? pid ns
    trap - EXIT
    disown -a
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null; done
    for ns in $C $P $B ${LAB_MORE_NS:-}; do
        for pid in $(ip netns pids "$ns" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
        ip netns del "$ns" 2>/dev/null
    done
    rm -rf "$TMP"
    exit $status
}

on() { # namespace command...            runs it there
    ip netns exec "$@"
}

spawn() { # namespace command...         runs it there in the background; $LAST is its process id
    ip netns exec "$@" >>"$TMP/spawn.log" 2>&1 </dev/null &
    LAST=$!
    PIDS+=("$LAST")
}

stop() { # pid [signal]                  ends one process of ours and waits for it
    kill "-${2:-TERM}" "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    return 0
}

wait_port() { # namespace port           until somebody listens there (3 s at most)
    local i
    for i in $(seq 60); do
        on "$1" ss -Hltn "sport = :$2" | grep -q . && return 0
        sleep 0.05
    done
    echo "nobody listens on $2 in $1:" >&2
    tail -5 "$TMP/spawn.log" >&2
    return 1
}

# -B: in immediate mode the ring holds one snapshot length (256 KiB) per packet; the default 2 MiB are eight packets,
# and a burst of nine loses one
# capture NAMESPACE INTERFACE FILE [filter...]   "any" is written as SLL2; $LAST is its process id
capture() {
    local ns=$1 dev=$2 file=$3 link=(-B 65536)
    shift 3
    mkdir -p "$(dirname "$file")"
    [ "$dev" = any ] && link+=(-y LINUX_SLL2)
    ip netns exec "$ns" tcpdump -Z root -U --immediate-mode -n -i "$dev" "${link[@]}" -s "${SNAPLEN:-0}" -w "$file" "$@" >>"$TMP/tcpdump.log" 2>&1 </dev/null &
    LAST=$!
    PIDS+=("$LAST")
    local i
    for i in $(seq 40); do
        [ -s "$file" ] && break
        sleep 0.05
    done
    sleep 0.25
}

capture_end() { # pid...
    sleep 0.5
    local pid
    for pid in "$@"; do stop "$pid" INT; done
}

# record NAMESPACE INTERFACE FILE 'filter' command...   one capture around one command
record() {
    local ns=$1 dev=$2 file=$3 filter=$4 pid
    shift 4
    capture "$ns" "$dev" "$file" $filter
    pid=$LAST
    sleep "${LAB_DELAY:-0}"
    "$@"
    capture_end "$pid"
    local packets
    packets=$(tcpdump -r "$file" -n 2>/dev/null | wc -l)
    [ "$packets" = 0 ] && grep -v -e listening -e captured -e 'by kernel' -e 'by filter' "$TMP/tcpdump.log" | tail -3
    echo "$packets packets  ${file#"$CAPTURES"/}"
}

certificates() { # makes $TMP/ca.pem and, for each name, $TMP/NAME.key NAME.crt NAME.pem (both)
    local name
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=tcpwhy lab CA" \
        -keyout "$TMP/ca.key" -out "$TMP/ca.pem" 2>/dev/null
    for name in "$@"; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$TMP/$name.key" \
            -out "$TMP/$name.csr" 2>/dev/null
        openssl x509 -req -days "${CERT_DAYS:-20}" -in "$TMP/$name.csr" -CA "$TMP/ca.pem" -CAkey "$TMP/ca.key" -CAcreateserial \
            -extfile <(printf 'subjectAltName=DNS:%s,DNS:*.%s' "$name" "$name") -out "$TMP/$name.crt" 2>/dev/null
        cat "$TMP/$name.crt" "$TMP/$name.key" >"$TMP/$name.pem"
    done
    chmod 644 "$TMP"/*.key "$TMP"/*.pem
}

# --- servers: each takes a namespace and a configuration fragment -------------------------------------------------

nginx_start() { # namespace 'server { … } server { … }' [main-level lines]
    local dir
    dir=$(mktemp -d "$TMP/nginx.XXXX")
    mkdir "$dir/html"
    chmod 755 "$dir"
    echo "hello from nginx" >"$dir/html/index.html"
    head -c 40000 /dev/zero | tr '\0' 'x' >"$dir/html/large.txt"
    cat >"$dir/nginx.conf" <<X
daemon off; master_process off; pid $dir/pid; error_log $dir/error.log info;
${3:-}
events { worker_connections 256; }
http {
  access_log $dir/access.log; client_body_temp_path $dir/b; proxy_temp_path $dir/p; fastcgi_temp_path $dir/f;
  uwsgi_temp_path $dir/u; scgi_temp_path $dir/s; root $dir/html; default_type text/plain;
  $2
}
X
    spawn "$1" nginx -e "$dir/error.log" -p "$dir" -c "$dir/nginx.conf"
    NGINX_DIR=$dir
}

apache_start() { # namespace 'configuration lines'
    local dir mods=/usr/lib/apache2/modules
    dir=$(mktemp -d "$TMP/apache.XXXX")
    mkdir "$dir/html"
    chmod 755 "$dir"
    echo "hello from apache" >"$dir/html/index.html"
    cat >"$dir/apache.conf" <<X
ServerRoot $dir
ServerName www.example.com
PidFile $dir/pid
LoadModule mpm_event_module $mods/mod_mpm_event.so
LoadModule authz_core_module $mods/mod_authz_core.so
LoadModule ssl_module $mods/mod_ssl.so
LoadModule remoteip_module $mods/mod_remoteip.so
LoadModule dir_module $mods/mod_dir.so
LoadModule reqtimeout_module $mods/mod_reqtimeout.so
StartServers 1
ServerLimit 1
ThreadsPerChild 8
MaxRequestWorkers 8
User www-data
Group www-data
ErrorLog $dir/error.log
LogLevel info
DocumentRoot $dir/html
Mutex file:$dir default
SSLSessionCache none
$2
X
    spawn "$1" apache2 -f "$dir/apache.conf" -DFOREGROUND
    APACHE_DIR=$dir
}

haproxy_start() { # namespace 'configuration lines' [more options]
    local dir ns=$1
    dir=$(mktemp -d "$TMP/haproxy.XXXX")
    printf '%s\n' "$2" >"$dir/haproxy.cfg"
    shift 2
    spawn "$ns" haproxy -db -f "$dir/haproxy.cfg" "$@"
}

postgres_start() { # namespace address       PostgreSQL for the user lab, who needs no password
    local bin
    bin=$(dirname "$(ls -d /usr/lib/postgresql/*/bin/postgres | head -n 1)")
    install -d -o postgres "$TMP/pg"
    on "$1" setpriv --reuid postgres --regid postgres --clear-groups "$bin/initdb" -D "$TMP/pg/data" -A trust -U lab >"$TMP/pg.log" 2>&1
    echo "host all all 0.0.0.0/0 trust" >>"$TMP/pg/data/pg_hba.conf"
    spawn "$1" setpriv --reuid postgres --regid postgres --clear-groups "$bin/postgres" -D "$TMP/pg/data" -h "$2" -k "$TMP/pg"
}

HAPROXY_TIMES='timeout connect 3s
  timeout client 30s
  timeout server 30s'

haproxy_with_state() { # configuration of incident S1: what a reload takes from $TMP/state, and the HTTPS frontend; backend pages_https is to follow
    cat <<X
global
  stats socket $TMP/admin.sock mode 600 level admin
  server-state-file $TMP/state
defaults
  mode tcp
  $HAPROXY_TIMES
  load-server-state-from-file global
frontend pages_https_in
  bind 35.229.69.78:443
  tcp-request inspect-delay 5s
  tcp-request content accept if { req.ssl_hello_type 1 }
  default_backend pages_https
X
}

go_build() { # builds captures/lab/goserver into $TMP/goserver
    (cd "$LAB_DIR/goserver" && GOFLAGS=-mod=mod GO111MODULE=off go build -p 1 -o "$TMP/goserver" main.go) || exit 1
}

serve() { # namespace port step...       scripted server, see serve.py
    spawn "$1" python3 "$LAB_DIR/serve.py" "${@:2}"
    wait_port "$1" "$2"
}

talk() { # namespace host port step...   scripted client, see talk.py
    on "$1" python3 "$LAB_DIR/talk.py" "${@:2}" >>"$TMP/talk.log" 2>&1 </dev/null
}

get() { # namespace curl-arguments...
    local ns=$1
    shift
    on "$ns" curl -sk -m 10 -o /dev/null "$@" </dev/null >>"$TMP/curl.log" 2>&1
}
