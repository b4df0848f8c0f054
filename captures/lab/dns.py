"""A DNS server for the lab: dns.py PORT [DELAY [ADDRESS]]   *.example.com A 10.224.26.2; AAAA is empty; other names NXDOMAIN; late.* after DELAY,
servfail.* SERVFAIL, silent.* never"""
import socket
import struct
import sys
import threading
import time

port, delay = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[3] if len(sys.argv) > 3 else "0.0.0.0", port))


def answer(query, sender):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]])
        at += 1 + query[at]
    question = query[12 : at + 5]
    kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
    known = labels[-2:] == [b"example", b"com"]
    records = b""
    if known and kind == 1:
        records = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton("10.224.26.2")
    flags = 0x8580 | (0 if known else 3)
    if labels[0] == b"servfail":
        flags, records = 0x8582, b""
    if labels[0] == b"silent":
        return
    if labels[0] == b"late":
        time.sleep(delay)
    sock.sendto(query[:2] + struct.pack("!HHHHH", flags, 1, bool(records), 0, 0) + question + records, sender)


while True:
    query, sender = sock.recvfrom(4096)
    threading.Thread(target=answer, args=(query, sender), daemon=True).start()
