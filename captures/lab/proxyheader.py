"""Writes PROXY protocol headers, good and broken, each into its own file: proxyheader.py DIRECTORY

Source 203.0.113.7:53002, destination 35.229.69.78:443. The names are those of catalogue section 1.4."""
import os
import socket
import struct
import sys

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ADDRESSES4 = socket.inet_aton("203.0.113.7") + socket.inet_aton("35.229.69.78") + struct.pack("!HH", 53002, 443)
ADDRESSES6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8:c::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8:c::1")
    + struct.pack("!HH", 53002, 443)
)


def crc32c(data):
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def v2(command=0x21, family=0x11, body=ADDRESSES4, tlvs=b"", length=None):
    if length is None:
        length = len(body) + len(tlvs)
    return SIGNATURE + struct.pack("!BBH", command, family, length) + body + tlvs


def with_crc(tlvs=b"", wrong=False):
    header = v2(tlvs=tlv(0x03, bytes(4)) + tlvs)
    crc = crc32c(header) ^ (0x01000000 if wrong else 0)
    return v2(tlvs=tlv(0x03, struct.pack("!I", crc)) + tlvs)


SSL = tlv(
    0x20,
    struct.pack("!BI", 0x07, 0) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"client.example.com") + tlv(0x23, b"TLS_AES_256_GCM_SHA384"),
)
HEADERS = {
    # valid
    "v1-ok": b"PROXY TCP4 203.0.113.7 35.229.69.78 53002 443\r\n",
    "v1-ok6": b"PROXY TCP6 2001:db8:c::7 2001:db8:c::1 53002 443\r\n",
    "v1-unknown": b"PROXY UNKNOWN\r\n",
    "v1-unknown-addresses": b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    "v2-ok": v2(),
    "v2-ok6": v2(family=0x21, body=ADDRESSES6),
    "v2-local": v2(command=0x20, family=0x00, body=b""),
    "v2-unspec": v2(family=0x00, body=b""),
    "v2-unix": v2(family=0x31, body=b"/run/client.sock".ljust(108, b"\0") + b"/run/server.sock".ljust(108, b"\0")),
    "v2-noop": v2(tlvs=tlv(0x04, bytes(13))),
    "v2-crc": with_crc(),
    "v2-many-tlvs": with_crc(
        tlv(0x01, b"h2") + tlv(0x02, b"www.example.com") + tlv(0x05, b"b7e3c1f0-4d5a-4c1b-9a40") + tlv(0x04, bytes(4)) + SSL
    ),
    "v2-aws": v2(tlvs=tlv(0xEA, b"\x01vpce-08d2bf15fac5001c9") + tlv(0x03, bytes(4))[:0]),
    "v2-ssl": v2(tlvs=SSL),
    # broken
    "v2-version-1": v2(command=0x11),
    "v2-command-2": v2(command=0x22),
    "v2-family-0x91": v2(family=0x91),
    "v2-length-9": v2(body=ADDRESSES4[:9]),
    "v2-truncated": v2(length=84),
    "v2-tlv-overrun": v2(tlvs=struct.pack("!BH", 0x04, 200) + bytes(5)),
    "v2-wrong-crc": with_crc(wrong=True),
    "v1-lf-only": b"PROXY TCP4 203.0.113.7 35.229.69.78 53002 443\n",
    "v1-address-1.2.3": b"PROXY TCP4 1.2.3 35.229.69.78 53002 443\r\n",
    "v1-too-long": b"PROXY TCP6 " + b"2001:db8:c::7 " * 8 + b"53002 443\r\n",
    "v1-lower-case": b"proxy TCP4 203.0.113.7 35.229.69.78 53002 443\r\n",
    "v1-double-space": b"PROXY TCP4  203.0.113.7 35.229.69.78 53002 443\r\n",
    "v1-port-70000": b"PROXY TCP4 203.0.113.7 35.229.69.78 70000 443\r\n",
    "v1-port-leading-zero": b"PROXY TCP4 203.0.113.7 35.229.69.78 053002 443\r\n",
    "v1-family-mismatch": b"PROXY TCP4 2001:db8:c::7 2001:db8:c::1 53002 443\r\n",
    "v1-missing-port": b"PROXY TCP4 203.0.113.7 35.229.69.78 53002\r\n",
}
for name, header in HEADERS.items():
    with open(os.path.join(sys.argv[1], name), "wb") as file:
        file.write(header)
