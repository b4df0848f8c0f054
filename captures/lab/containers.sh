#!/usr/bin/env bash
# Pods as a node's tcpdump sees them: a service address that the node translates (kube-proxy), and a sidecar that takes what is meant for
# the application: containers.sh [OUTPUT-DIR]. Real HAProxy, nginx, curl and the kernel's NAT; needs root.
#
#   the node     namespace N: bridge cni0 10.244.0.1/24; service address 10.96.0.10:80, dealt out to the pods by DNAT
#   pod A        10.244.0.2, the client
#   pods B, C, D 10.244.0.3, .4 and .5, the endpoints, port 8080
# The sidecar is HAProxy in pod B: what comes in for 8080 is turned to 15006 (REDIRECT), from where it asks 127.0.0.1:8081.
set -u
. "$(dirname "$0")/lib.sh"
lab_need iptables haproxy nginx curl
OUT=${1:-$CAPTURES}
HEALTHY=$OUT/healthy RULES=$OUT/rules
mkdir -p "$HEALTHY" "$RULES"
lab_begin
N=$P A=$LAB-pa PB=$LAB-pb PC=$LAB-pc PD=$LAB-pd
LAB_MORE_NS="$A $PB $PC $PD"
ip -n "$N" link add cni0 type bridge
lab_address "$N" cni0 10.244.0.1/24
last=2
for ns in $A $PB $PC $PD; do
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    ip link add eth0 netns "$ns" type veth peer name "v${ns##*-}" netns "$N"
    ip -n "$N" link set "v${ns##*-}" master cni0 up
    # As the bridge plug-in does it, so that a pod that asks itself through the service is answered
    on "$N" sh -c "echo 1 >/sys/class/net/v${ns##*-}/brport/hairpin_mode"
    lab_address "$ns" eth0 10.244.0.$last/24
    ip -n "$ns" route add default via 10.244.0.1
    on "$N" python3 "$LAB_DIR/offload.py" "v${ns##*-}"
    on "$ns" python3 "$LAB_DIR/offload.py" eth0
    last=$((last + 1))
done
# Bridged packets must pass the node's NAT on their way back (kube-proxy asks for the same)
on "$N" sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null
BRIDGE_NF=$?

service() { # endpoint...       the service address is dealt out to these, in turn
    local n=$# i=0 end
    on "$N" iptables -t nat -F
    for end in "$@"; do
        local chance=()
        [ $((n - i)) -gt 1 ] && chance=(-m statistic --mode nth --every $((n - i)) --packet 0)
        on "$N" iptables -t nat -A PREROUTING -d 10.96.0.10 -p tcp --dport 80 "${chance[@]}" -j DNAT --to-destination "$end"
        i=$((i + 1))
    done
    # Without bridge netfilter the way back would miss the NAT: the node's address goes in front, as with an external policy "Cluster"
    on "$N" iptables -t nat -A POSTROUTING -d 10.244.0.0/24 -s 10.244.0.0/24 -p tcp --dport 8080 -j MASQUERADE
}

ask() { # times [seconds]     pod A asks the service, with so much patience
    local i
    for i in $(seq "$1"); do
        on "$A" curl -s -o /dev/null -m "${2:-3}" "http://10.96.0.10/page/$i"
        sleep 0.05
    done
}

record() { # file command...
    local file=$1
    shift
    capture "$N" any "$file.pcap" "tcp or arp or icmp"
    local tcpdump=$LAST
    "$@"
    sleep 1.2
    capture_end "$tcpdump"
}

app() { # namespace port        a small application
    spawn "$1" python3 -m http.server "$2" --directory "$TMP/www" --bind 0.0.0.0
    wait_port "$1" "$2"
}

mkdir -p "$TMP/www/page"
for i in $(seq 20); do echo "page $i" >"$TMP/www/page/$i"; done
app "$PB" 8080
SERVER_B=$LAST
app "$PC" 8080
service 10.244.0.3:8080 10.244.0.4:8080
record "$HEALTHY/93-kubernetes-service" ask 8

# One endpoint's program has ended, the node still deals connections out to it
stop "$SERVER_B"
record "$RULES/connect-refused/kubernetes-endpoint" ask 8

# A pod that is there and answers for its link address, while its own firewall says "host unreachable"
app "$PD" 8080
service 10.244.0.4:8080 10.244.0.5:8080
on "$PD" iptables -A INPUT -p tcp --dport 8080 -j REJECT --reject-with icmp-host-unreachable
on "$N" ip neigh flush dev cni0
record "$RULES/neighbor-unresolved/not-pod-rejects" ask 8 5

# The pod is gone with its interface, and the node still deals connections out to it. It asks for the link address in vain, and tells the
# client after 3 s; the NAT puts the service address in the place of its own.
on "$N" ip link del vpd
on "$N" ip neigh flush dev cni0
record "$RULES/neighbor-unresolved/pod-gone" ask 8 5

# A sidecar in front of the application
cat >"$TMP/sidecar.cfg" <<X
global
    maxconn 100
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend inbound
    bind 0.0.0.0:15006
    default_backend application
backend application
    server app 127.0.0.1:8081
X
app "$PB" 8081
APP=$LAST
spawn "$PB" haproxy -db -f "$TMP/sidecar.cfg"
wait_port "$PB" 15006
on "$PB" iptables -t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 15006
service 10.244.0.3:8080
inside() { # file command...   the capture is made inside pod B
    local file=$1
    shift
    capture "$PB" any "$file.pcap" "tcp"
    local tcpdump=$LAST
    "$@"
    sleep 0.5
    capture_end "$tcpdump"
}
inside "$HEALTHY/94-sidecar" ask 5
stop "$APP"
inside "$RULES/proxy-upstream-connect-failed/sidecar" ask 5
[ "$BRIDGE_NF" = 0 ] || echo "bridge netfilter is off here: the node's address stands in front of pod A's"
