"""A DNS server whose answer can be changed: movingdns.py ADDRESS FILE TTL   FILE holds the A record of every *.example.com; AAAA is empty."""
import socket
import struct
import sys

where, file, ttl = sys.argv[1], sys.argv[2], int(sys.argv[3])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((where, 53))
while True:
    query, sender = sock.recvfrom(4096)
    at = 12
    while query[at]:
        at += 1 + query[at]
    question = query[12 : at + 5]
    kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
    known = question[:-4].endswith(b"\x07example\x03com\0")
    records = b""
    if known and kind == 1:
        with open(file) as text:
            address = text.read().strip()
        records = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, ttl, 4) + socket.inet_aton(address)
    flags = 0x8580 | (0 if known else 3)
    sock.sendto(query[:2] + struct.pack("!HHHHH", flags, 1, bool(records), 0, 0) + question + records, sender)
