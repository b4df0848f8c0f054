#!/bin/bash
# Family M: name resolution that is silent, late, refused, or wrong. Resolvers are dnsmasq and Unbound, clients glibc's stub (getent), dig and
# curl. About 1.5 minutes.    dns-faults.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need dnsmasq unbound dig curl nginx getent iptables
R=${1:-$CAPTURES/rules}
lab_begin
mkdir -p "/etc/netns/$C" "/etc/netns/$P"
trap 'rm -rf "/etc/netns/$C" "/etc/netns/$P"; lab_end' EXIT
S=10.224.26.2 T2=10.224.26.3
mask() { on "$1" iptables "${@:2}"; }

resolv() { printf '%s\n' "$@" >"/etc/netns/$C/resolv.conf"; }
look() { ip netns exec "$C" getent "${2:-ahostsv4}" "$1" >/dev/null 2>&1; }
# no hosts file, no upstream unless one is given, answers of its own
masq() { # namespace address options...
    spawn "$1" dnsmasq --keep-in-foreground --no-hosts --no-resolv --conf-file=/dev/null --pid-file= --user=root --bind-interfaces --listen-address="$2" --local-ttl=60 "${@:3}"
}
answering() { # namespace address           until it answers (3 s at most)
    local i
    for i in $(seq 30); do
        on "$C" dig +tries=1 +time=1 +short x.ready.example "@$2" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
}
names() { for n in a b c d e f www backend; do printf -- '--address=/%s.example.com/%s ' $n 10.224.26.4; done; }
masq "$B" $S $(names) --local=/example.com/ --local=/corp.example/ --address=/x.ready.example/10.224.26.4
masq "$B" $T2 $(names) --local=/example.com/ --address=/x.ready.example/10.224.26.4
nginx_start "$B" "server { listen 10.224.26.4:80; }"
wait_port "$B" 80
answering "$B" $S
answering "$B" $T2
drop() { mask "$B" -I INPUT -p udp -d "$1" --dport 53 -j DROP; }
pass() { mask "$B" -D INPUT -p udp -d "$1" --dport 53 -j DROP; }

T=dns-no-answer
resolv "nameserver $S" "options timeout:2 attempts:2"
silent() { look www.example.com; drop $S; look a.example.com; pass $S; look b.example.com; }
record "$C" eth0 "$R/$T/glibc-retries.pcap" "port 53 or icmp or arp" silent
once() { drop $S; on "$C" dig +tries=2 +time=3 c.example.com @$S >/dev/null; pass $S; on "$C" dig +tries=1 +time=1 d.example.com @$S >/dev/null; }
record "$C" eth0 "$R/$T/dig.pcap" "port 53 or icmp or arp" once
race() { # one of two questions from one port is lost: the repeat after 2 s is answered
    mask "$B" -I INPUT -p udp --dport 53 -m statistic --mode nth --every 50 --packet 1 -j DROP
    look www.example.com ahosts
    mask "$B" -D INPUT -p udp --dport 53 -m statistic --mode nth --every 50 --packet 1 -j DROP
}
record "$C" eth0 "$R/$T/not-one-of-two-lost.pcap" "port 53 or icmp or arp" race
both() { # both servers are asked at once, one is dead
    drop $S
    on "$C" dig +tries=1 +time=6 a.example.com @$S >/dev/null & local one=$!
    on "$C" dig +tries=1 +time=6 a.example.com @$T2 >/dev/null
    wait $one
    pass $S
}
record "$C" eth0 "$R/$T/not-two-servers-at-once.pcap" "port 53 or icmp or arp" both

T=dns-resolver-failover
resolv "nameserver $S" "nameserver $T2" "options timeout:1 attempts:2"
failover() { drop $S; for n in a b c d; do look $n.example.com; get "$C" -m 3 "http://10.224.26.4/"; done; pass $S; }
record "$C" eth0 "$R/$T/first-server-dead.pcap" "port 53 or icmp or arp or tcp port 80" failover
alive() { for n in a b c d; do look $n.example.com; done; }
record "$C" eth0 "$R/$T/not-first-server-alive.pcap" "port 53 or icmp or arp" alive

T=dns-outage
resolv "nameserver $S" "nameserver $T2" "options timeout:2 attempts:1"
outage() {
    look www.example.com
    drop $S; drop $T2
    for n in a b c d e f; do look $n.example.com; done
    pass $S; pass $T2
    look www.example.com
}
record "$C" eth0 "$R/$T/both-servers-dead.pcap" "port 53 or icmp or arp" outage
T3=10.224.26.4
masq "$B" $T3 $(names) --address=/x.ready.example/10.224.26.4 --server=/broken.example.net/127.0.0.9
one_name() { # one zone cannot be reached, others resolve
    resolv "nameserver $T3" "options timeout:1 attempts:1"
    local i
    for i in 1 2 3 4 5 6; do look www.broken.example.net; look a.example.com; sleep 1; done
}
record "$C" eth0 "$R/$T/not-one-zone.pcap" "port 53 or icmp or arp" one_name

T=dns-servfail
# Unbound, whose forwarder refuses everything but its own names; a local zone answers
cat >"$TMP/unbound.conf" <<X
server:
  directory: "$TMP"
  chroot: ""
  username: ""
  pidfile: "$TMP/unbound.pid"
  use-syslog: no
  interface: 203.0.113.1
  do-not-query-localhost: no
  access-control: 203.0.113.7/32 allow
  access-control: 203.0.113.8/32 refuse
  access-control: 203.0.113.9/32 allow
  module-config: "iterator"
  ede: yes
  local-zone: "example.org." static
  local-data: "www.example.org. 60 IN A 10.224.26.4"
forward-zone:
  name: "."
  forward-addr: 10.224.26.2
X
spawn "$P" unbound -d -c "$TMP/unbound.conf"
for i in $(seq 30); do on "$C" dig +tries=1 +time=1 +short www.example.org @203.0.113.1 2>/dev/null | grep -q . && break; sleep 0.2; done
resolv "nameserver 203.0.113.1" "options timeout:5 attempts:1"
broken() { look www.example.org; look www.broken.example.net; on "$C" dig +tries=1 +time=5 www.broken.example.net @203.0.113.1 >/dev/null; look www.example.org; }
record "$C" eth0 "$R/$T/unbound-forwarder-refuses.pcap" "port 53 or icmp or arp" broken
masq "$P" 35.229.69.78 --address=/x.ready.example/10.224.26.4 --address=/www.broken.example.net/10.224.26.4
sleep 0.5
resolv "nameserver 203.0.113.1" "nameserver 35.229.69.78" "options timeout:5 attempts:1"
second() { look www.broken.example.net; }
record "$C" eth0 "$R/$T/not-second-server-knows.pcap" "port 53 or icmp or arp" second

T=dns-refused
refused() { on "$C" dig +tries=1 +time=3 -b 203.0.113.8 www.example.org @203.0.113.1 >/dev/null; on "$C" dig +tries=1 +time=3 -b 203.0.113.9 www.example.org @203.0.113.1 >/dev/null; }
record "$C" eth0 "$R/$T/unbound-access-control.pcap" "port 53 or icmp or arp" refused
allowed() { on "$C" dig +tries=1 +time=3 -b 203.0.113.9 www.example.org @203.0.113.1 >/dev/null; }
record "$C" eth0 "$R/$T/not-allowed.pcap" "port 53 or icmp or arp" allowed

T=dns-nxdomain
resolv "nameserver $S"
unknown() { look bakcend.example.com; get "$C" -m 3 "http://bakcend.example.com/"; look backend.example.com; }
record "$C" eth0 "$R/$T/misspelt.pcap" "port 53 or icmp or arp" unknown
resolv "nameserver $S" "search corp.example example.com" "options ndots:2"
search() { look www; look www.example.com; }
record "$C" eth0 "$R/$T/not-search-list.pcap" "port 53 or icmp or arp" search
blocklist() { on "$C" dig +tries=1 +time=3 4.3.2.1.list.example.com @$S >/dev/null; on "$C" dig +tries=1 +time=3 -x 10.224.26.77 @$S >/dev/null; }
record "$C" eth0 "$R/$T/not-block-list.pcap" "port 53 or icmp or arp" blocklist

T=dns-port-unreachable
closed() { on "$C" dig +tries=1 +time=2 www.example.com @10.224.26.1 >/dev/null; ip netns exec "$C" python3 -c "
import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.connect(('10.224.26.1',53))
s.send(bytes.fromhex('1234010000010000000000000377777707657861 6d706c6503636f6d0000010001'.replace(' ','')))
s.settimeout(1)
try: s.recv(512)
except OSError: pass"; }
record "$C" eth0 "$R/$T/no-server.pcap" "port 53 or icmp or arp" closed

T=dns-slow
# dns.py answers late.example.com after 1.3 s
ip -n "$B" addr add 10.224.26.5/24 dev eth0
spawn "$B" python3 "$LAB_DIR/dns.py" 53 1.3 10.224.26.5
sleep 0.5
resolv "nameserver 10.224.26.5" "options timeout:5"
slow() { get "$C" -m 5 "http://late.example.com/"; get "$C" -m 5 "http://www.example.com/"; }
nginx_start "$B" "server { listen 10.224.26.2:80; }"
wait_port "$B" 80
record "$C" eth0 "$R/$T/curl-waits.pcap" "port 53 or icmp or arp or tcp port 80" slow
fast() { get "$C" -m 5 "http://www.example.com/"; }
record "$C" eth0 "$R/$T/not-fast.pcap" "port 53 or icmp or arp or tcp port 80" fast
late() { # a client that gives up before the answer comes: ICMP for the late answer
    on "$C" dig +tries=1 +time=1 late.example.com @10.224.26.5 >/dev/null; sleep 1
}
record "$C" eth0 "$R/dns-port-unreachable/not-late-answer.pcap" "port 53 or icmp or arp" late

T=dns-stale-address
# nginx resolves the name in proxy_pass once, when it starts; then the name moves and the old address goes
printf 'nameserver 10.224.26.6\noptions timeout:2\n' >"/etc/netns/$P/resolv.conf"
ip -n "$B" addr add 10.224.26.6/24 dev eth0
ip -n "$B" addr add 10.224.26.7/24 dev eth0
nginx_start "$B" "server { listen 10.224.26.3:8088; listen 10.224.26.7:8088; }"
wait_port "$B" 8088
moving() { # address        the DNS server gives this one from now on
    [ -n "${MOVING:-}" ] && stop "$MOVING"
    masq "$B" 10.224.26.6 --address=/backend.example.com/"$1" --local=/example.com/
    MOVING=$LAST
    sleep 0.5
}
drop_web() { on "$B" iptables "$1" INPUT -p tcp -d 10.224.26.3 --dport 8088 -j DROP; }
fresh() { get "$P" -m 3 "http://backend.example.com:8088/"; }
via() { get "$C" -m 8 "http://203.0.113.1:8081/"; }
proxy() { nginx_start "$P" "proxy_connect_timeout 4s; server { listen 203.0.113.1:8081; location / { proxy_pass http://backend.example.com:8088; } }"; PROXY=$LAST; wait_port "$P" 8081; }
stale() { proxy; via; moving 10.224.26.7; drop_web -I; fresh; via; via; fresh; drop_web -D; stop "$PROXY"; }
moving 10.224.26.3
record "$P" any "$R/$T/nginx-keeps-the-old-address.pcap" "port 53 or tcp port 8081 or tcp port 8088 or icmp or arp" stale
valid() { proxy; via; drop_web -I; fresh; via; drop_web -D; stop "$PROXY"; }
moving 10.224.26.3
record "$P" any "$R/$T/not-valid-target.pcap" "port 53 or tcp port 8081 or tcp port 8088 or icmp or arp" valid
