#!/bin/bash
# ip-fragments-lost: answers of a DNS server that need three packets, and a router that drops all but the first. About 45 s.
# fragments.sh [OUTPUT]
. "$(dirname "$0")/lib.sh"
lab_need iptables dig
OUT=${1:-$CAPTURES/rules}
R=$OUT/ip-fragments-lost
S=10.224.26.2
lab_begin
cat >"$TMP/large.py" <<'END'
"""Answers every question with 3,000 octets of TXT."""
import socket
import struct

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 53))
while True:
    query, sender = sock.recvfrom(4096)
    end = 12 + query[12:].index(b"\0") + 5
    record = b"\xc0\x0c" + struct.pack("!HHIH", 16, 1, 60, 241) + b"\xf0" + b"v" * 240
    sock.sendto(query[:2] + struct.pack("!HHHHH", 0x8580, 1, 12, 0, 0) + query[12:end] + 12 * record, sender)
END
spawn "$B" python3 "$TMP/large.py"
sleep 0.5
ask() { on "$C" dig +ignore +bufsize=4096 +tries=1 +time=2 "$1.example.com" TXT @$S >/dev/null 2>&1; }
mend() { on "$P" iptables -F FORWARD; }
lost() { # the first answer arrives whole, then a rule appears
    ask first
    on "$P" iptables -A FORWARD -f -j DROP
    local name
    for name in second third fourth fifth; do ask "$name"; done
    sleep 1.5
    mend
}
record "$C" eth0 "$R/all-but-the-first-dropped.pcap" "" lost
told() { # the client's kernel gives up after 30 s, and says so (ICMP 11/1)
    on "$P" iptables -A FORWARD -f -j DROP
    local name
    for name in first second third; do ask "$name"; done
    sleep 31
    mend
}
record "$C" eth0 "$R/time-exceeded.pcap" "" told
whole() { ask first; ask second; ask third; ask fourth; }
record "$C" eth0 "$R/not-arrived-whole.pcap" "" whole
record "$C" eth0 "$R/not-a-filter-on-ports.pcap" "port 53" whole
