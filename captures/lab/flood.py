"""SYNs from made-up sources, for a capture in a network namespace only; bounded in number.    flood.py HOST PORT COUNT RATE"""
import random
import socket
import struct
import sys
import time

host, port, count, rate = sys.argv[1], int(sys.argv[2]), min(int(sys.argv[3]), 5000), int(sys.argv[4])
random.seed(4987)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def checksum(octets):
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


for n in range(count):
    # 192.0.2.0/24 and 198.51.100.0/24 are for documentation: nobody is there
    source = f"{random.choice(['192.0.2', '198.51.100'])}.{random.randrange(1, 255)}"
    ends = socket.inet_aton(source) + socket.inet_aton(host)
    head = struct.pack("!HHIIBBHHH", random.randrange(1024, 65535), port, random.getrandbits(32), 0, 5 << 4, 2, 64240, 0, 0)
    check = checksum(ends + struct.pack("!HH", 6, len(head)) + head)
    segment = head[:16] + struct.pack("!H", check) + head[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, n & 0xFFFF, 0, 64, 6, 0) + ends
    raw.sendto(ip + segment, (host, 0))
    time.sleep(1 / rate)
