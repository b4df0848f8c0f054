"""Half-open scan: halfopen.py SOURCE HOST PORT…    one SYN from a raw socket to each port; the kernel refuses what is accepted."""
import socket
import struct
import sys

source, host, ports = sys.argv[1], sys.argv[2], [int(port) for port in sys.argv[3:]]
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw.bind((source, 0))
ends = socket.inet_aton(source) + socket.inet_aton(host)
for number, port in enumerate(ports):
    head = struct.pack("!HHIIBBHHHBBH", 36000 + number, port, 7_000_000 + number * 1000, 0, 6 << 4, 2, 1024, 0, 0, 2, 4, 1460)
    words = ends + struct.pack("!HH", socket.IPPROTO_TCP, len(head)) + head
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    raw.sendto(head[:16] + struct.pack("!H", ~total & 0xFFFF) + head[18:], (host, port))
