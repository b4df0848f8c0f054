"""Re-wrap the IP packets of an Ethernet capture in other link types and tunnels: python3 rewrap.py IN.pcap OUTDIR

The packets are those of a real capture; only what stands in front of them is made. Times are kept. For IPv6 the addresses are
translated (64:ff9b::a.b.c.d) and the TCP checksum is made anew. `fragments*` cut packets into pieces and put the last piece first."""
import struct
import sys
from pathlib import Path

CLIENT_MAC = bytes.fromhex("020000000001")
SERVER_MAC = bytes.fromhex("020000000002")
IPV4, IPV6, VLAN, QINQ, PPPOE, MPLS = 0x0800, 0x86DD, 0x8100, 0x88A8, 0x8864, 0x8847


def read(path):
    """Yields (seconds, microseconds, IPv4 packet without Ethernet padding) of a little-endian microsecond pcap."""
    data = Path(path).read_bytes()
    assert data[:4] == b"\xd4\xc3\xb2\xa1" and data[20] == 1, "a little-endian Ethernet pcap is wanted"
    at = 24
    while at < len(data):
        seconds, micros, kept, _ = struct.unpack_from("<IIII", data, at)
        frame = data[at + 16:at + 16 + kept]
        at += 16 + kept
        if frame[12:14] == b"\x08\x00":
            yield seconds, micros, frame[14:14 + struct.unpack_from(">H", frame, 16)[0]]


def write(path, link, packets):
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)
    for seconds, micros, frame in packets:
        out += struct.pack("<IIII", seconds, micros, len(frame), len(frame)) + frame
    path.write_bytes(out)


def write_pcapng(path, links, packets):
    """`packets`: (seconds, micros, frame, interface)."""
    def block(kind, body):
        body += bytes(-len(body) % 4)
        return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)
    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    for link in links:
        out += block(1, struct.pack("<HHI", link, 0, 0))
    for seconds, micros, frame, interface in packets:
        time = seconds * 1_000_000 + micros
        out += block(6, struct.pack("<IIIII", interface, time >> 32, time & 0xFFFFFFFF, len(frame), len(frame)) + frame)
    path.write_bytes(out)


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, payload, source="192.0.2.1", destination="192.0.2.2", ident=0, fragment=0):
    address = lambda text: bytes(int(part) for part in text.split("."))
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, fragment, 64, protocol, 0,
                       address(source) if isinstance(source, str) else source,
                       address(destination) if isinstance(destination, str) else destination)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ipv6(protocol, payload, source, destination):
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + source + destination + payload


OUTER6 = [bytes.fromhex("20010db8" + "00" * 11 + end) for end in ("01", "02")]


def translate(packet):
    """The IPv4 packet as IPv6, addresses below 64:ff9b::/96."""
    source, destination = (bytes.fromhex("0064ff9b") + bytes(8) + packet[at:at + 4] for at in (12, 16))
    tcp = packet[(packet[0] & 15) * 4:]
    pseudo = source + destination + struct.pack(">II", len(tcp), 6)
    tcp = tcp[:16] + struct.pack(">H", checksum(pseudo + tcp[:16] + b"\0\0" + tcp[18:])) + tcp[18:]
    return ipv6(6, tcp, source, destination)


def from_client(packet):
    """Whether the sender has the higher port, as clients do."""
    source, destination = struct.unpack_from(">HH", packet, (packet[0] & 15) * 4)
    return source > destination


def ethernet(packet, kind, client):
    addresses = SERVER_MAC + CLIENT_MAC if client else CLIENT_MAC + SERVER_MAC
    return (addresses + struct.pack(">H", kind) + packet).ljust(60, b"\0")


def udp(port, payload):
    return struct.pack(">HHHH", 54321, port, 8 + len(payload), 0) + payload


def fragments4(packet, size=280):
    head = (packet[0] & 15) * 4
    pieces = []
    for start in range(head, len(packet), size):
        more = 0x2000 if start + size < len(packet) else 0
        pieces.append(ipv4(packet[9], packet[start:start + size], packet[12:16], packet[16:20],
                           struct.unpack_from(">H", packet, 4)[0], more | (start - head) // 8))
    return pieces[-1:] + pieces[:-1]


def fragments6(packet, ident, size=280):
    body = packet[40:]
    pieces = []
    for start in range(0, len(body), size):
        more = int(start + size < len(body))
        piece = struct.pack(">BBHI", 6, 0, start | more, ident) + body[start:start + size]
        pieces.append(ipv6(44, piece, packet[8:24], packet[24:40]))
    return pieces[-1:] + pieces[:-1]


def sll(packet, kind, client):
    return struct.pack(">HHH8sH", 4 if client else 0, 1, 6, CLIENT_MAC if client else SERVER_MAC, kind) + packet


def sll2(packet, kind, client):
    return struct.pack(">HHIHBB8s", kind, 0, 2, 1, 4 if client else 0, 6, CLIENT_MAC if client else SERVER_MAC) + packet


def with_extensions(packet):
    """Hop-by-hop options, a routing header with nothing left to do, destination options."""
    options = bytes([43, 0, 1, 4, 0, 0, 0, 0]) + bytes([60, 0, 253, 0, 0, 0, 0, 0]) + bytes([6, 0, 1, 4, 0, 0, 0, 0])
    return ipv6(0, options + packet[40:], packet[8:24], packet[24:40])


# name: (link type, function of (IPv4 packet, is from the client) giving the frame)
WRAPPINGS = {
    "ethernet": (1, lambda p, c: ethernet(p, IPV4, c)),
    "ethernet-ipv6": (1, lambda p, c: ethernet(translate(p), IPV6, c)),
    "ethernet-ipv6-extensions": (1, lambda p, c: ethernet(with_extensions(translate(p)), IPV6, c)),
    "ethernet-ipv6-atomic-fragment": (1, lambda p, c: ethernet(
        ipv6(44, struct.pack(">BBHI", 6, 0, 0, 7) + translate(p)[40:], *OUTER6), IPV6, c)),
    "ethernet-length-0": (1, lambda p, c: SERVER_MAC + CLIENT_MAC + b"\x08\x00" + p[:2] + b"\0\0" + p[4:]),
    "vlan": (1, lambda p, c: ethernet(struct.pack(">HH", 0x2064, IPV4) + p, VLAN, c)),
    "qinq": (1, lambda p, c: ethernet(struct.pack(">HHHH", 200, VLAN, 100, IPV4) + p, QINQ, c)),
    "snap": (1, lambda p, c: ethernet(bytes.fromhex("aaaa03000000") + struct.pack(">H", IPV4) + p, len(p) + 8, c)),
    "pppoe": (1, lambda p, c: ethernet(struct.pack(">BBHHH", 0x11, 0, 1, len(p) + 2, 0x0021) + p, PPPOE, c)),
    "mpls": (1, lambda p, c: ethernet(struct.pack(">II", 16 << 12 | 64, 17 << 12 | 0x100 | 64) + p, MPLS, c)),
    "mpls-pseudowire": (1, lambda p, c: ethernet(
        struct.pack(">III", 16 << 12 | 64, 17 << 12 | 0x100 | 64, 5) + ethernet(p, IPV4, c), MPLS, c)),
    # Without control word, and to addresses that begin as IPv4 and IPv6 do.
    "mpls-pseudowire-no-word": (1, lambda p, c: ethernet(
        struct.pack(">I", 17 << 12 | 0x100 | 64) + bytes([0x45 if c else 0x60]) + ethernet(p, IPV4, c)[1:], MPLS, c)),
    "pppoe-ipv6": (1, lambda p, c: ethernet(
        struct.pack(">HH", 0x2007, PPPOE) + struct.pack(">BBHHH", 0x11, 0, 1, len(translate(p)) + 2, 0x0057) + translate(p),
        VLAN, c)),
    "vxlan": (1, lambda p, c: ethernet(
        ipv4(17, udp(4789, bytes.fromhex("0800000000002a00") + ethernet(p, IPV4, c))), IPV4, c)),
    "vxlan-8472": (1, lambda p, c: ethernet(
        ipv4(17, udp(8472, bytes.fromhex("0800000000002a00") + ethernet(p, IPV4, c))), IPV4, c)),
    "geneve": (1, lambda p, c: ethernet(
        ipv4(17, udp(6081, bytes.fromhex("0100655800002a00") + b"\x01\x02\x03\x00" + ethernet(p, IPV4, c))), IPV4, c)),
    "geneve-ipv6": (1, lambda p, c: ethernet(
        ipv6(17, udp(6081, bytes.fromhex("044086dd00002a00") + bytes(range(16)) + translate(p)), *OUTER6), IPV6, c)),
    "geneve-in-vxlan": (1, lambda p, c: ethernet(ipv4(17, udp(4789, bytes.fromhex("0800000000002a00") + ethernet(
        ipv4(17, udp(6081, bytes.fromhex("0000655800002b00") + ethernet(p, IPV4, c))), IPV4, c))), IPV4, c)),
    "gre": (1, lambda p, c: ethernet(ipv4(47, struct.pack(">HHI", 0x2000, IPV4, 7) + p), IPV4, c)),
    "gre-ethernet": (1, lambda p, c: ethernet(ipv4(47, b"\0\0\x65\x58" + ethernet(p, IPV4, c)), IPV4, c)),
    "erspan": (1, lambda p, c: ethernet(
        ipv4(47, struct.pack(">HHIII", 0x1000, 0x88BE, 1, 0x10000001, 0) + ethernet(p, IPV4, c)), IPV4, c)),
    "gre-all": (1, lambda p, c: ethernet(
        ipv4(47, struct.pack(">HHIII", 0xB000, IPV6, 0, 7, 1) + translate(p)), IPV4, c)),
    "gre-mpls": (1, lambda p, c: ethernet(
        ipv4(47, struct.pack(">HHI", 0, MPLS, 17 << 12 | 0x100 | 64) + p), IPV4, c)),
    "gre-ipv6": (1, lambda p, c: ethernet(ipv6(47, struct.pack(">HHI", 0x2000, 0x6558, 0x2A00) + ethernet(p, IPV4, c), *OUTER6),
                                           IPV6, c)),
    "gre-in-udp": (1, lambda p, c: ethernet(ipv4(17, udp(4754, struct.pack(">HH", 0, IPV4) + p)), IPV4, c)),
    # With a sequence number, an extension header (PDU session container) and a second one.
    "gtp": (1, lambda p, c: ethernet(ipv4(17, udp(2152, struct.pack(">BBHIHBB", 0x36, 255, len(p) + 16, 7, 1, 0, 0x85)
                                                  + bytes([1, 0x10, 9, 0xC0, 2, 0, 1, 0, 0, 0, 0, 0]) + p)), IPV4, c)),
    "erspan-1": (1, lambda p, c: ethernet(ipv4(47, struct.pack(">HH", 0, 0x88BE) + ethernet(p, IPV4, c)), IPV4, c)),
    # Version 2, session 1, granularity 100 us without and with a platform header.
    "erspan-3": (1, lambda p, c: ethernet(ipv4(47, struct.pack(">HHIIIHH", 0x1000, 0x22EB, 1, 0x20000001, 0, 0, 0)
                                               + ethernet(p, IPV4, c)), IPV4, c)),
    "erspan-3-platform": (1, lambda p, c: ethernet(
        ipv4(47, struct.pack(">HHIIIHHQ", 0x1000, 0x22EB, 1, 0x20000001, 0, 0, 1, 0) + ethernet(p, IPV4, c)), IPV4, c)),
    "ipip": (1, lambda p, c: ethernet(ipv4(4, p), IPV4, c)),
    "6in4": (1, lambda p, c: ethernet(ipv4(41, translate(p)), IPV4, c)),
    "6in6": (1, lambda p, c: ethernet(ipv6(41, translate(p), *OUTER6), IPV6, c)),
    "4in6": (1, lambda p, c: ethernet(ipv6(4, p, *OUTER6), IPV6, c)),
    "sll": (113, lambda p, c: sll(p, IPV4, c)),
    "sll-ipv6": (113, lambda p, c: sll(translate(p), IPV6, c)),
    "sll2": (276, lambda p, c: sll2(p, IPV4, c)),
    "sll2-vlan": (276, lambda p, c: sll2(struct.pack(">HH", 100, IPV4) + p, VLAN, c)),
    "null": (0, lambda p, c: struct.pack("<I", 2) + p),
    "null-big-endian": (0, lambda p, c: struct.pack(">I", 2) + p),
    "null-ipv6-darwin": (0, lambda p, c: struct.pack("<I", 30) + translate(p)),
    "null-ipv6-freebsd": (0, lambda p, c: struct.pack("<I", 28) + translate(p)),
    "loop": (108, lambda p, c: struct.pack(">I", 2) + p),
    "raw": (101, lambda p, c: p),
    "raw-ipv6": (101, lambda p, c: translate(p)),
    "raw-12": (12, lambda p, c: p),
    "ipv4": (228, lambda p, c: p),
    "ipv6": (229, lambda p, c: translate(p)),
    "ppp": (9, lambda p, c: b"\xff\x03\x00\x21" + p),
    "ppp-short": (9, lambda p, c: b"\x21" + p),
    "ppp-ipv6": (9, lambda p, c: b"\x00\x57" + translate(p)),
    "ppp-hdlc": (50, lambda p, c: b"\xff\x03\x00\x21" + p),
    "cisco-hdlc": (104, lambda p, c: b"\x0f\x00\x08\x00" + p),
}


def main(source, folder):
    folder = Path(folder)
    packets = list(read(source))
    for name, (link, wrap) in WRAPPINGS.items():
        write(folder / f"{name}.pcap", link, [(s, u, wrap(p, from_client(p))) for s, u, p in packets])
    pieces4 = [(s, u, ethernet(piece, IPV4, from_client(p))) for s, u, p in packets for piece in fragments4(p)]
    write(folder / "fragments.pcap", 1, pieces4)
    pieces6 = [(s, u, ethernet(piece, IPV6, from_client(p)))
               for number, (s, u, p) in enumerate(packets) for piece in fragments6(translate(p), 0x10000 + number)]
    write(folder / "fragments-ipv6.pcap", 1, pieces6)
    in_tunnel = [(s, u, ethernet(ipv4(4, piece), IPV4, from_client(p))) for s, u, p in packets for piece in fragments4(p)]
    write(folder / "fragments-in-ipip.pcap", 1, in_tunnel)
    of_tunnel = [(s, u, ethernet(outer, IPV4, from_client(p))) for number, (s, u, p) in enumerate(packets)
                 for outer in fragments4(ipv4(4, p, ident=number))]
    write(folder / "fragments-of-ipip.pcap", 1, of_tunnel)
    both = [(s, u, wrap(p, IPV4, from_client(p)), n % 2)
            for n, (s, u, p) in enumerate(packets) for wrap in [(ethernet, sll2)[n % 2]]]
    write_pcapng(folder / "mixed.pcapng", [1, 276], both)


if __name__ == "__main__":
    main(*sys.argv[1:3])
