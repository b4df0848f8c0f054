"""What a quiet network says: background.py OWN-ADDRESS NTP-SERVER   or   background.py ntp (the NTP server, port 123)

NTP asked and answered; mDNS, LLMNR, SSDP and NetBIOS names asked into the segment, where nobody answers."""
import socket
import struct
import sys
import time


def name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def serve_time():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", 123))
    while True:
        asked, peer = sock.recvfrom(512)
        now = struct.pack("!II", int(time.time()) + 2208988800, 0)
        sock.sendto(struct.pack("!BBbb11I", 0x24, 2, 6, -20, 0, 0, 0x7F000001, 0, 0, 0, 0, 0, 0, 0, 0)[:24] + asked[40:48] + now + now, peer)


def ask(own, server):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
    sock.bind((own, 0))
    sock.settimeout(1)
    sock.sendto(bytes([0x23]) + bytes(39) + struct.pack("!II", int(time.time()) + 2208988800, 0), (server, 123))
    sock.recv(512)
    question = b"\0\0\0\0\0\1\0\0\0\0\0\0" + name("_ipp._tcp.local") + b"\0\x0c\0\1"
    for _ in range(2):
        sock.sendto(question, ("224.0.0.251", 5353))
        sock.sendto(b"\x12\x34" + b"\0\0\0\1\0\0\0\0\0\0" + name("printer") + b"\0\1\0\1", ("224.0.0.252", 5355))
        sock.sendto(b"\x56\x78\1\x10\0\1\0\0\0\0\0\0\x20" + b"FACACACACACACACACACACACACACACACA" + b"\0\0\x20\0\1", ("10.224.26.255", 137))
        sock.sendto(b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n", ("239.255.255.250", 1900))
        time.sleep(1)


if sys.argv[1] == "ntp":
    serve_time()
else:
    ask(*sys.argv[1:])
