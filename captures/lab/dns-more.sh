#!/bin/bash
# Family M, second part: answers that do not fit, IPv6 addresses that are dead, expired records. dnsmasq, Unbound, dig, curl and Python's own
# resolver loop. About 1.5 minutes.    dns-more.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need dnsmasq unbound dig curl nginx iptables ip6tables
R=${1:-$CAPTURES/rules}
lab_begin
mkdir -p "/etc/netns/$C"
trap 'rm -rf "/etc/netns/$C"; lab_end' EXIT
S=10.224.26.2 SIX=2001:db8:b::2
printf 'nameserver %s\noptions timeout:2 attempts:2\n' $S >"/etc/netns/$C/resolv.conf"
masq() { # address options...
    spawn "$B" dnsmasq --keep-in-foreground --no-hosts --no-resolv --conf-file=/dev/null --pid-file= --user=root --bind-interfaces --listen-address="$1" --local-ttl="${TTL:-60}" "${@:2}"
}
answering() { # address
    local i
    for i in $(seq 30); do
        on "$C" dig +tries=1 +time=1 +short x.ready.example "@$1" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
}
part() { head -c 200 /dev/zero | tr '\0' "$1"; }
masq $S --local=/example.com/ --address=/x.ready.example/$S --address=/www.example.com/$S --address=/www.example.com/$SIX \
    --edns-packet-max=4096 $(for n in a b c d e f; do echo "--txt-record=big.example.com,$(part $n)"; done)
answering $S
nginx_start "$B" "server { listen 80; listen [::]:80; listen [::]:8080 ipv6only=on; } server { listen $S:8080; }"
wait_port "$B" 80
FILTER="port 53 or icmp or arp or tcp"

T=dns-truncated-no-tcp
big() { on "$C" dig +tries=1 +time=2 "$@" big.example.com TXT @$S >/dev/null 2>&1; }
tcp53() { on "$B" iptables "$1" INPUT -p tcp --dport 53 -j "${@:2}"; }
refused() { tcp53 -I REJECT --reject-with tcp-reset; big; tcp53 -D REJECT --reject-with tcp-reset; }
record "$C" eth0 "$R/$T/tcp-is-refused.pcap" "$FILTER" refused
dropped() { tcp53 -I DROP; big +time=4; tcp53 -D DROP; }
record "$C" eth0 "$R/$T/tcp-is-dropped.pcap" "$FILTER" dropped
ignored() { get "$C" "http://$S/"; big +ignore; sleep 5.5; get "$C" "http://$S/"; }
record "$C" eth0 "$R/$T/tcp-is-never-tried.pcap" "$FILTER" ignored
works() { big; }
record "$C" eth0 "$R/$T/not-over-tcp-it-works.pcap" "$FILTER" works
larger() { big +ignore; big +bufsize=4096 +ignore; sleep 5.5; get "$C" "http://$S/"; }
record "$C" eth0 "$R/$T/not-a-larger-buffer.pcap" "$FILTER" larger

T=dns-broken-aaaa
three() { local n; for n in 1 2 3; do get "$C" "http://www.example.com/"; sleep 0.7; done; }
dead() { on "$B" ip6tables -I INPUT -p tcp --dport 80 -j DROP; "$@"; sleep 3.2; on "$B" ip6tables -D INPUT -p tcp --dport 80 -j DROP; }
record "$C" eth0 "$R/$T/curl-happy-eyeballs.pcap" "$FILTER" dead three
slowly() { # one address after the other, 3 s each
    local n
    for n in 1 2; do on "$C" python3 -c "import socket; socket.create_connection(('www.example.com', 80), timeout=3).close()" 2>/dev/null; done
}
record "$C" eth0 "$R/$T/python-one-after-the-other.pcap" "$FILTER" dead slowly
record "$C" eth0 "$R/$T/not-alive.pcap" "$FILTER" three
once() { get "$C" "http://www.example.com/"; }
record "$C" eth0 "$R/$T/not-once.pcap" "$FILTER" dead once

T=dns-serve-stale
ip -n "$B" addr add 10.224.26.5/24 dev eth0
TTL=1 masq 10.224.26.3 --local=/old.example/ --address=/www.old.example/10.224.26.4
AUTHORITY=$LAST
cat >"$TMP/unbound.conf" <<X
server:
  interface: 10.224.26.5
  access-control: 0.0.0.0/0 allow
  username: ""
  chroot: ""
  directory: "$TMP"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  module-config: "iterator"
  do-not-query-localhost: no
  serve-expired: yes
  serve-expired-ttl: 3600
  ede: yes
  ede-serve-expired: yes
  local-zone: "ready.example." static
  local-data: "x.ready.example. A 10.224.26.5"
forward-zone:
  name: "."
  forward-addr: 10.224.26.3
X
spawn "$B" unbound -c "$TMP/unbound.conf"
answering 10.224.26.5
old() { on "$C" dig +tries=1 +time=3 www.old.example A @10.224.26.5 >/dev/null 2>&1; }
stale() { old; sleep 1.5; old; }
fresh() { old; old; }
record "$C" eth0 "$R/$T/not-fresh.pcap" "port 53 or icmp or arp" fresh
old
stop "$AUTHORITY"
sleep 2
record "$C" eth0 "$R/$T/unbound.pcap" "port 53 or icmp or arp" stale

T=dns-search-amplification
printf 'nameserver %s\nsearch shop.svc.cluster.local svc.cluster.local cluster.local example.net\noptions ndots:5\n' $S >"/etc/netns/$C/resolv.conf"
masq 10.224.26.4 --local=/cluster.local/ --local=/example.net/ --local=/example.com/ --local=/nowhere/ --address=/db.shop.example.com/$S --address=/x.ready.example/$S --address=/cache.example.com/$S
sed -i 's/^nameserver.*/nameserver 10.224.26.4/' "/etc/netns/$C/resolv.conf"
answering 10.224.26.4
names() { ip netns exec "$C" getent ahosts db.shop.example.com >/dev/null; ip netns exec "$C" getent ahosts cache.example.com >/dev/null; }
record "$C" eth0 "$R/$T/glibc-ndots-5.pcap" "port 53 or icmp or arp" names
complete() { ip netns exec "$C" getent ahosts db.shop.example.com. >/dev/null; ip netns exec "$C" getent ahosts cache.example.com. >/dev/null; }
record "$C" eth0 "$R/$T/not-with-a-final-dot.pcap" "port 53 or icmp or arp" complete
missing() { ip netns exec "$C" getent ahosts nowhere >/dev/null; ip netns exec "$C" getent ahosts db.shop.example.com. >/dev/null; }
record "$C" eth0 "$R/$T/not-a-name-that-does-not-exist.pcap" "port 53 or icmp or arp" missing

T=dns-no-answer
# Two resolvers stop on one machine, which is there as it was: it answers ARP
for address in 3 6; do
    ip -n "$B" addr add "10.224.26.$address/24" dev eth0 2>/dev/null
    masq "10.224.26.$address" --address=/app.internal/$S --address=/x.ready.example/$S
    STOPPED+=("$LAST")
    answering "10.224.26.$address"
done
many() { # how many names, one every fifth of a second
    local n asked=()
    for n in $(seq "$1"); do
        on "$P" dig +tries=2 +time=2 "app.internal" A @10.224.26.$((n % 2 ? 3 : 6)) >/dev/null 2>&1 &
        asked+=($!)
        sleep 0.2
    done
    wait "${asked[@]}"
}
stopped() {
    many 30
    local pid
    for pid in "${STOPPED[@]}"; do kill -STOP "$pid"; done
    ip -n "$P" neigh flush dev eth1
    many 60
}
record "$P" eth1 "$R/$T/both-stopped-on-a-host-that-lives.pcap" "port 53 or icmp or arp" stopped
