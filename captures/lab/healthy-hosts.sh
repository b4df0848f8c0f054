#!/bin/bash
# Healthy traffic that spans hosts: proxies with both legs, routers, bridges, address translation, takeovers, name services.
# Every capture here must stay without a finding above notice. About 3 minutes.     healthy-hosts.sh [OUTPUT [group…]]
# groups: proxy pools router container segment dns background
. "$(dirname "$0")/lib.sh"
lab_need nginx haproxy curl iptables dnsmasq dig ab traceroute keepalived arping dhclient
R=${1:-$CAPTURES/healthy}
shift
GROUPS_WANTED=${*:-proxy pools router container segment dns background}
wants() { [[ " $GROUPS_WANTED " == *" $1 "* ]]; }
S=10.224.26.2
S3=10.224.26.3
FRONT=203.0.113.1
NAME=www.example.com
mkdir -p "$R"
SNAPLEN=4000 # nothing here is longer, and the ring then holds 64 times as many packets in a burst
lab_begin
certificates $NAME
PEM=$TMP/$NAME
CERT="ssl_certificate $PEM.crt; ssl_certificate_key $PEM.key;"
# a site with every answer that is not 200 and no fault either
SITE="location = /private { auth_basic private; auth_basic_user_file $TMP/htpasswd; }
    location = /often { limit_req zone=often; } location = /moved { return 302 /; } location = /gone { return 410; }"
echo "ann:$(openssl passwd -apr1 secret)" >"$TMP/htpasswd"
chmod 644 "$TMP/htpasswd"
nginx_start "$B" "$CERT limit_req_zone \$server_name zone=often:1m rate=30r/m; limit_req_status 429; keepalive_timeout 75s;
  server { listen [::]:80 ipv6only=off; $SITE }
  server { listen 443 ssl; }
  server { listen 8080 proxy_protocol; $SITE }
  server { listen 8443 ssl proxy_protocol; }
  server { listen 9000; location = /healthz { return 200 'ok'; } }"
head -c 90000 /dev/zero | tr '\0' 'v' >"$NGINX_DIR/html/video"
wait_port "$B" 80
as() { get "$C" --interface "203.0.113.$1" "${@:2}"; } # one user
both() { record "$P" any "$R/$1.pcap" "$2" "${@:3}"; } # both legs, as the proxy sees them

if wants proxy; then
    nginx_start "$P" "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host \$host; proxy_connect_timeout 2s;
  proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for; proxy_set_header X-Request-ID \$request_id;
  upstream pool { server $S:80; keepalive 8; }
  upstream two { server $S:7601; server $S3:7602; }
  server { listen [::]:80 ipv6only=off; location / { proxy_pass http://pool; } }
  server { listen 81; location / { proxy_pass http://two; } }"
    haproxy_start "$P" "defaults
  mode http
  $HAPROXY_TIMES
  option forwardfor
  retries 3
  option redispatch 1
frontend pool
  bind :8001
  default_backend pool
backend pool
  http-reuse always
  server s $S:80
frontend two
  bind :8002
  default_backend two
backend two
  balance roundrobin
  server a $S:7603
  server b $S3:7604
frontend checked
  bind :8003
  default_backend checked
backend checked
  option httpchk GET /healthz
  server a $S:80 check port 9000 inter 1s
  server b $S3:80 check port 9000 inter 1s
frontend checked_tcp
  mode tcp
  bind :8004
  default_backend checked_tcp
backend checked_tcp
  mode tcp
  server a $S:80 check port 9000 inter 1s
frontend v2
  bind :8005
  default_backend v2
backend v2
  server a $S:8080 send-proxy-v2 check check-send-proxy inter 2s
frontend v2_tls
  mode tcp
  bind :8006
  default_backend v2_tls
backend v2_tls
  mode tcp
  server a $S:8443 send-proxy-v2"
    for port in 80 81 8001 8002 8003 8004 8005 8006; do wait_port "$P" $port; done
    visits() { # port     four users, keep-alive, with the answers that any site gives
        local url=http://$FRONT:$1
        as 7 "$url/" "$url/large.txt" "$url/missing" &
        local first=$!
        as 8 "$url/private" -u ann:secret "$url/private" "$url/moved" "$url/gone"
        wait $first
        as 9 "$url/often" "$url/often" "$url/often" "$url/"
        get "$C" --interface 198.51.100.23 -d a=b "$url/" -I "$url/"
        as 7 "$url/"
    }
    both 47-nginx-proxy-keepalive-pool "tcp port 80" visits 80
    both 48-haproxy-proxy-keepalive-pool "tcp port 8001 or (tcp port 80 and host $S)" visits 8001

    # one backend is restarted while users come: the proxy finds its port closed once and asks the other one
    OK='send:HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok'
    restart() { # front port, backend port that restarts, the other one
        local url=http://$FRONT:$1/ one i
        serve "$B" "$3" recv "$OK" close
        serve "$B" "$2" recv "$OK" close
        one=$LAST
        for i in 7 8 9; do as $i "$url"; done
        stop "$one"
        as 7 "$url"
        as 8 "$url"
        serve "$B" "$2" recv "$OK" close
        sleep 11
        for i in 7 8 9 7 8 9; do as $i "$url"; done
    }
    both 49-haproxy-redispatch "tcp port 8002 or port 7603 or port 7604" restart 8002 7603 7604
    both 50-nginx-next-upstream "tcp port 81 or port 7601 or port 7602" restart 81 7601 7602
    checked() { local i; for i in 7 8 9 7 8; do as $i "http://$FRONT:8003/"; as $i "http://$FRONT:8004/"; sleep 1; done; }
    both 51-health-checks-on-another-port "tcp port 8003 or port 8004 or port 9000 or (port 80 and net 10.224.26.0/24)" checked
    v2() {
        local i
        visits 8005
        for i in 7 8 9; do as $i --resolve "$NAME:8006:$FRONT" "https://$NAME:8006/"; done
        sleep 3
    }
    both 52-proxy-v2-accepted-both-legs "tcp port 8005 or port 8006 or port 8080 or port 8443" v2
    eyes() { # nobody listens on the proxy's IPv6 address, users fall back at once
        local i
        for i in 1 2 3 4; do get "$C" --resolve "$NAME:8001:[2001:db8:c::1],$FRONT" "http://$NAME:8001/"; done
    }
    both 53-happy-eyeballs-both-legs "tcp port 8001 or (tcp port 80 and host $S)" eyes
    navigations() { # a user who clicks on before pages are there
        local i
        for i in 1 2 3; do
            talk "$C" --from 203.0.113.8 $FRONT 80 rcvbuf:8000 'send:GET /video HTTP/1.1\r\nHost: www.example.com\r\n\r\n' recv sleep:0.05 rst
            as 8 "http://$FRONT/"
        done
        as 9 "http://$FRONT/video"
    }
    both 54-navigations-through-a-proxy "tcp port 80" navigations
    deploy() { # HAProxy hands its listener to a new process while users come; nobody notices
        local config="global
  stats socket $TMP/hand.sock expose-fd listeners
defaults
  mode http
  $HAPROXY_TIMES
frontend shop
  bind :8010
  default_backend shop
backend shop
  server s $S:80" old i
        haproxy_start "$P" "$config"
        old=$LAST
        wait_port "$P" 8010
        for i in 7 8 9; do as $i "http://$FRONT:8010/"; done
        talk "$C" $FRONT 8010 'send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n' recv eof:8 &
        local idle=$!
        sleep 0.3
        haproxy_start "$P" "$config" -x "$TMP/hand.sock" -sf "$old"
        for i in 7 8 9 7 8 9; do as $i "http://$FRONT:8010/large.txt"; sleep 0.15; done
        wait $idle
    }
    both 55-rolling-deploy "tcp port 8010 or (tcp port 80 and host $S)" deploy
    load() { on "$C" ab -q -n 100 -c 8 "http://$FRONT/" >/dev/null 2>&1; on "$C" ab -q -k -n 100 -c 4 "http://$FRONT/" >/dev/null 2>&1; }
    both 56-load-generator "tcp port 80" load
    for ns in $P; do for pid in $(ip netns pids "$ns"); do stop "$pid"; done; done
    sleep 1
fi

if wants pools; then
    # pools that idle: two users keep a connection, the proxy keeps two to its backend, all still open when the capture ends
    nginx_start "$P" "proxy_http_version 1.1; proxy_set_header Connection ''; keepalive_timeout 75s;
  upstream pool { server $S:80; keepalive 8; }
  server { listen 82; location / { proxy_pass http://pool; } }"
    wait_port "$P" 82
    idle() {
        local ask='send:GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n'
        talk "$C" --from 203.0.113.7 $FRONT 82 "$ask" recv sleep:18 "$ask" recv sleep:60 &
        PIDS+=($!)
        talk "$C" --from 203.0.113.8 $FRONT 82 keepalive:5 "$ask" recv sleep:60 &
        PIDS+=($!)
        sleep 35
    }
    both 57-pools-idle-through-the-end "tcp port 82 or (tcp port 80 and host $S)" idle
fi

if wants router; then
    # the proxy namespace is nothing but a router; its inner link is the narrower one
    spawn "$B" python3 "$LAB_DIR/dns.py" 53 0 $S
    sleep 0.5
    router() {
        ip -n "$P" link set eth1 mtu 1400
        ip -n "$B" link set eth0 mtu 1400
        local i
        for i in 7 8 9; do as $i "http://$S/" "http://$S/video" "http://$S/missing"; as $i --resolve "$NAME:443:$S" "https://$NAME/"; done
        on "$C" dig +tries=1 @$S www.example.com >/dev/null
        echo_request "$C" $S
        get "$C" -d "@$NGINX_DIR/html/large.txt" "http://$S/missing"
        on "$C" traceroute -n -q 1 -w 1 -m 3 $S >/dev/null 2>&1
        talk "$C" $S 80 'send:GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n' recv rst
        ip -n "$P" link set eth1 mtu 1500
        ip -n "$B" link set eth0 mtu 1500
    }
    both 58-router-both-sides "" router
    # PMTUD that works: the big segments draw "fragmentation needed" and come again in smaller ones
    narrow() {
        ip -n "$P" route add 203.0.113.7/32 dev eth0 mtu lock 1280
        get "$C" "http://$S/large.txt"
        ip -n "$P" route del 203.0.113.7/32
    }
    both 59-path-mtu-discovered "tcp or icmp" narrow
    lossy() { # 1 % of the data and their acknowledgments is lost in both directions and repeated in time
        on "$P" iptables -I FORWARD -p tcp ! --syn -m connbytes --connbytes 4: --connbytes-dir both --connbytes-mode packets -m statistic --mode random --probability 0.01 -j DROP
        local i
        for i in 7 8 9 7 8; do as $i "http://$S/video" "http://$S/video" "http://$S/" "http://$S/large.txt"; done
        on "$P" iptables -F FORWARD
    }
    record "$C" eth0 "$R/60-one-percent-lost.pcap" "" lossy
fi

if wants container; then
    # a container host: two containers behind a bridge, masquerade to the outside, one published port
    X=$LAB-x Y=$LAB-y
    LAB_MORE_NS="${LAB_MORE_NS:-} $X $Y"
    ip -n "$P" link add docker0 type bridge
    lab_address "$P" docker0 172.17.0.1/16
    for ns in $X $Y; do
        ip netns add "$ns"
        ip -n "$ns" link set lo up
        ip link add eth0 netns "$ns" type veth peer name "veth${ns##*-}" netns "$P"
        ip -n "$P" link set "veth${ns##*-}" master docker0 up
        on "$P" python3 "$LAB_DIR/offload.py" "veth${ns##*-}"
        on "$ns" python3 "$LAB_DIR/offload.py" eth0
    done
    lab_address "$X" eth0 172.17.0.2/16
    lab_address "$Y" eth0 172.17.0.3/16
    for ns in $X $Y; do ip -n "$ns" route add default via 172.17.0.1; done
    on "$P" iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    on "$P" iptables -t nat -A PREROUTING ! -i docker0 -p tcp --dport 8888 -j DNAT --to-destination 172.17.0.2:80
    nginx_start "$X" "server { listen 80; }"
    wait_port "$X" 80
    containers() {
        local i
        for i in 7 8 9; do as $i "http://$FRONT:8888/" "http://$FRONT:8888/large.txt"; done # published
        for i in 1 2 3; do get "$Y" "http://$S/"; get "$Y" --resolve "$NAME:443:$S" "https://$NAME/"; done # masqueraded
        for i in 1 2; do get "$Y" http://172.17.0.2/; get "$P" http://172.17.0.2/; done # across the bridge, and from the host
        echo_request "$Y" $S
        sleep 1
    }
    both 61-container-host "" containers
    on "$P" iptables -t nat -F
fi

if wants segment; then
    # one client and two servers, two routers between them: outer and inner segment are bridges in one namespace
    #   user 192.0.2.7 -- br1 -- R1 192.0.2.2 | 10.9.0.2 -- br2 -- server 10.9.0.10, 10.9.0.11
    #                         -- R2 192.0.2.3 | 10.9.0.3 --       (192.0.2.1 and 10.9.0.1 belong to VRRP)
    X=$LAB-s U=$LAB-u R1=$LAB-r R2=$LAB-q Z=$LAB-z Z2=$LAB-w
    LAB_MORE_NS="${LAB_MORE_NS:-} $X $U $R1 $R2 $Z $Z2"
    for ns in $X $U $R1 $R2 $Z $Z2; do
        ip netns add "$ns"
        ip -n "$ns" link set lo up
        on "$ns" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
    done
    ip -n "$X" link add br1 type bridge
    ip -n "$X" link add br2 type bridge
    ip -n "$X" link set br1 up
    ip -n "$X" link set br2 up
    plug() { # namespace interface bridge port
        ip link add "$2" netns "$1" type veth peer name "$4" netns "$X"
        ip -n "$X" link set "$4" master "$3" up
        on "$1" python3 "$LAB_DIR/offload.py" "$2"
        on "$X" python3 "$LAB_DIR/offload.py" "$4"
    }
    plug "$U" eth0 br1 user
    plug "$R1" out br1 r1out
    plug "$R2" out br1 r2out
    plug "$R1" in br2 r1in
    plug "$R2" in br2 r2in
    plug "$Z" eth0 br2 server
    plug "$Z2" eth0 br2 second
    lab_address "$U" eth0 192.0.2.7/24
    lab_address "$R1" out 192.0.2.2/24
    lab_address "$R1" in 10.9.0.2/24
    lab_address "$R2" out 192.0.2.3/24
    lab_address "$R2" in 10.9.0.3/24
    lab_address "$Z" eth0 10.9.0.10/24
    lab_address "$Z2" eth0 10.9.0.11/24
    for ns in $R1 $R2; do on "$ns" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.in.send_redirects=0 net.ipv4.conf.out.send_redirects=0; done
    nginx_start "$Z" "server { listen 80; listen 81; }"
    nginx_start "$Z2" "server { listen 80; }"
    wait_port "$Z" 80
    wait_port "$Z2" 80
    visit() { local i; for i in $(seq "$1"); do get "$U" -m 5 "http://10.9.0.10/" "http://10.9.0.10/large.txt"; sleep 0.3; done; }

    # in by one router, out by the other: asymmetric by design, everything works
    ip -n "$U" route add default via 192.0.2.2
    ip -n "$Z" route add default via 10.9.0.3
    ip -n "$Z2" route add default via 10.9.0.3
    record "$Z" eth0 "$R/62-asymmetric-by-design.pcap" "" visit 4
    several() { local i; for i in 1 2 3; do get "$U" http://10.9.0.10/; get "$Z2" http://10.9.0.10/; get "$Z" http://10.9.0.11/large.txt; get "$R1" http://10.9.0.11/; done; }
    record "$X" any "$R/63-bridge-many-ports.pcap" "" several
    # a router that forwards both directions of some flows and one of others
    ip -n "$Z2" route replace default via 10.9.0.2
    mixed() { visit 2; local i; for i in 1 2 3 4 5; do get "$U" http://10.9.0.11/; done; }
    record "$R1" any "$R/64-router-of-one-direction.pcap" "" mixed

    # a gateway address moves to the other router (VRRP), and a server's address to the other server (gratuitous ARP)
    ip -n "$U" route replace default via 192.0.2.1
    for ns in $Z $Z2; do ip -n "$ns" route replace default via 10.9.0.1; done
    vrrp() { # namespace priority     a real keepalived, its files apart
        local name=${1##*-}
        printf 'global_defs {\n router_id %s\n}\nvrrp_instance a {\n state BACKUP\n interface out\n virtual_router_id 7\n priority %s\n advert_int 1\n virtual_ipaddress { 192.0.2.1/24 }\n}\nvrrp_instance b {\n state BACKUP\n interface in\n virtual_router_id 8\n priority %s\n advert_int 1\n virtual_ipaddress { 10.9.0.1/24 }\n}\nvrrp_sync_group g {\n group { a b }\n}\n' "$name" "$2" "$2" >"$TMP/vrrp-$name.conf"
        spawn "$1" keepalived -n -P -f "$TMP/vrrp-$name.conf" -p "$TMP/vrrp-$name.pid" -r "$TMP/vrrp-$name.vpid"
    }
    vrrp "$R1" 150
    MASTER=$LAST
    vrrp "$R2" 100
    sleep 5
    takeover() {
        visit 3
        stop "$MASTER" # says goodbye with priority 0; the other router takes both addresses at once
        sleep 1.5
        visit 3
        sleep 2
    }
    record "$X" br2 "$R/65-vrrp-takeover.pcap" "" takeover
    moved() { # a service address goes over to the second server while nobody waits
        ip -n "$Z" addr add 10.9.0.50/24 dev eth0
        on "$Z" arping -q -c 1 -A -I eth0 10.9.0.50
        get "$U" http://10.9.0.50/
        get "$U" http://10.9.0.50/large.txt
        sleep 0.5
        ip -n "$Z" addr del 10.9.0.50/24 dev eth0
        ip -n "$Z2" addr add 10.9.0.50/24 dev eth0
        on "$Z2" arping -q -c 2 -w 1 -A -I eth0 10.9.0.50
        on "$Z2" arping -q -c 1 -U -I eth0 10.9.0.50
        get "$U" http://10.9.0.50/
        get "$U" http://10.9.0.50/large.txt
    }
    record "$X" br2 "$R/66-address-taken-over-by-gratuitous-arp.pcap" "" moved
fi

if wants dns; then
    { echo "host-record=www.example.com,$S"; echo "host-record=api.example.com,$S"; echo "host-record=db.dev.corp.test,$S"
      echo 'auth-zone=example.com'; echo 'auth-server=ns.example.com'
      for i in $(seq 40); do echo "txt-record=large.example.com,\"value number $i of a record set that no datagram holds, $i $i $i\""; done; } >"$TMP/zone"
    spawn "$B" dnsmasq -k -C "$TMP/zone" --port 53 --no-resolv --no-hosts --pid-file= --user=root --local=/test/ --local=/example.com/ --local=/corp/ --bogus-priv --edns-packet-max=1232
    sleep 0.5
    names() {
        printf 'nameserver %s\nsearch corp.test dev.corp.test\noptions ndots:3\n' $S >"$TMP/resolv.conf"
        on "$C" sh -c "mount --bind $TMP/resolv.conf /etc/resolv.conf; for name in www api www; do curl -s -m 5 -o /dev/null http://\$name.example.com/; done
            getent ahosts db; getent hosts 10.224.26.77; dig +tries=1 -x 192.0.2.9" >/dev/null
    }
    record "$C" eth0 "$R/67-dns-search-list-nodata-ptr.pcap" "" names
    truncated() { local i; for i in 1 2 3; do on "$C" dig +tries=1 @$S large.example.com TXT >/dev/null; done; on "$C" dig +tries=1 +bufsize=4096 @$S large.example.com TXT >/dev/null; }
    both 68-dns-truncated-then-tcp "" truncated
fi

if wants background; then
    # what is always there: DHCP, ARP for somebody who is away, mDNS and SSDP that nobody answers, NTP, a few probes from outside
    spawn "$P" dnsmasq -k -C /dev/null --port 0 --interface eth1 --dhcp-range=10.224.26.100,10.224.26.120,2m --leasefile-ro --pid-file= --user=root --no-ping
    spawn "$P" python3 "$LAB_DIR/background.py" ntp
    sleep 0.5
    printf '#!/bin/sh\n[ -n "$new_ip_address" ] && ip addr add "$new_ip_address/24" dev eth0\nexit 0\n' >"$TMP/dhclient-script"
    chmod 755 "$TMP/dhclient-script"
    background() {
        on "$B" timeout 15 dhclient -1 -d -sf "$TMP/dhclient-script" -lf "$TMP/leases" -pf "$TMP/dhclient.pid" eth0 >/dev/null 2>&1 &
        local dhcp=$!
        on "$B" python3 "$LAB_DIR/background.py" 10.224.26.2 10.224.26.1
        local i
        for i in 7 8 9; do as $i "http://$S/"; done
        for i in 2323 8291 445 5900; do on "$C" timeout 1 nc -z -s 198.51.100.23 $S $i; done # somebody outside looks for open ports,
        for i in 90 91 92 93 94; do (echo_request "$C" 10.224.26.$i) & done                  # and for hosts: the router asks for them in vain
        wait $dhcp
        for i in 7 8; do as $i "http://$S/"; done
    }
    record "$B" eth0 "$R/69-background.pcap" "" background
    night() { echo_request "$C" $S; sleep 12; on "$B" python3 "$LAB_DIR/background.py" 10.224.26.2 10.224.26.1; sleep 14; echo_request "$C" $S; }
    record "$B" eth0 "$R/70-quiet-night.pcap" "" night
fi
