"""A very small pcap reader and writer, standard library only, for the scripts of the lab."""
import socket
import struct

ETHERNET, SLL2 = 1, 276
FIN, SYN, RST, PSH, ACK, ECE, CWR = 1, 2, 4, 8, 16, 64, 128


def read(path):
    """Returns (link type, snaplen, [(seconds as int nanoseconds, wire length, octets)])."""
    with open(path, "rb") as file:
        data = file.read()
    magic, _, _, _, _, snaplen, link = struct.unpack("<IHHiIII", data[:24])
    unit = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}[magic]
    records, at = [], 24
    while at + 16 <= len(data):
        sec, sub, caplen, length = struct.unpack("<IIII", data[at : at + 16])
        records.append((sec * 10**9 + sub * unit, length, data[at + 16 : at + 16 + caplen]))
        at += 16 + caplen
    return link, snaplen, records


def write(path, link, records, snaplen=262144):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen, link))
        for at, length, octets in records:
            file.write(struct.pack("<IIII", at // 10**9, at % 10**9 // 1000, len(octets), length) + octets)


class Packet:
    """What the lab needs to know of one frame: addresses, ports, flags, numbers, payload."""

    def __init__(self, link, frame):
        self.proto = self.payload = self.flags = None
        self.interface = 0
        if link == ETHERNET:
            self.offset, kind = 14, struct.unpack("!H", frame[12:14])[0]
        else:
            self.offset, kind = 20, struct.unpack("!H", frame[:2])[0]
            self.interface = struct.unpack("!I", frame[4:8])[0]
            self.pkttype = frame[10]
        self.kind = kind
        ip = frame[self.offset :]
        if kind == 0x0800:
            header = (ip[0] & 15) * 4
            total = struct.unpack("!H", ip[2:4])[0]
            self.proto = ip[9]
            self.src, self.dst = socket.inet_ntoa(ip[12:16]), socket.inet_ntoa(ip[16:20])
            end = total or len(ip)
        elif kind == 0x86DD:
            header, self.proto = 40, ip[6]
            self.src = socket.inet_ntop(socket.AF_INET6, ip[8:24])
            self.dst = socket.inet_ntop(socket.AF_INET6, ip[24:40])
            end = 40 + struct.unpack("!H", ip[4:6])[0]
        else:
            return
        self.l4 = self.offset + header
        l4 = ip[header:end]
        if self.proto == 6 and len(l4) >= 20:
            self.sport, self.dport, self.seq, self.ack, off, self.flags = struct.unpack("!HHIIBB", l4[:14])
            self.window = struct.unpack("!H", l4[14:16])[0]
            self.payload = l4[(off >> 4) * 4 :]
            self.wire_payload = end - header - (off >> 4) * 4
        elif self.proto == 17:
            self.sport, self.dport = struct.unpack("!HH", l4[:4])
            self.payload = l4[8:]

    def key(self):
        return tuple(sorted([(self.src, self.sport), (self.dst, self.dport)]))


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Host:
    """One end of generated traffic."""

    def __init__(self, address, mac, ttl=64):
        self.address, self.mac, self.ttl, self.ident = address, bytes.fromhex(mac.replace(":", "")), ttl, 0x1000


def ip_frame(src, dst, proto, l4, ident=None, df=True, ttl=None):
    if ":" in src.address:
        head = struct.pack("!IHBB", 6 << 28, len(l4), proto, ttl or src.ttl)
        head += socket.inet_pton(socket.AF_INET6, src.address) + socket.inet_pton(socket.AF_INET6, dst.address)
        return dst.mac + src.mac + b"\x86\xdd" + head + l4
    if ident is None:
        src.ident = (src.ident + 1) & 0xFFFF
        ident = src.ident
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), ident, 0x4000 if df else 0, ttl or src.ttl, proto, 0)
    head += socket.inet_aton(src.address) + socket.inet_aton(dst.address)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return dst.mac + src.mac + b"\x08\x00" + head + l4


def pseudo(src, dst, proto, length):
    if ":" in src.address:
        return socket.inet_pton(socket.AF_INET6, src.address) + socket.inet_pton(socket.AF_INET6, dst.address) + struct.pack("!IHBB", length, 0, 0, proto)
    return socket.inet_aton(src.address) + socket.inet_aton(dst.address) + struct.pack("!BBH", 0, proto, length)


def tcp_frame(src, sport, dst, dport, seq, ack, flags, payload=b"", window=502, options=b"", ttl=None):
    options += b"\1" * (-len(options) % 4)
    l4 = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, (5 + len(options) // 4) << 4, flags, window, 0, 0)
    l4 += options + payload
    value = checksum(pseudo(src, dst, 6, len(l4)) + l4)
    return ip_frame(src, dst, 6, l4[:16] + struct.pack("!H", value) + l4[18:], ttl=ttl)


def udp_frame(src, sport, dst, dport, payload):
    l4 = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    value = checksum(pseudo(src, dst, 17, len(l4)) + l4) or 0xFFFF
    return ip_frame(src, dst, 17, l4[:6] + struct.pack("!H", value) + payload)


class Connection:
    """A generated TCP connection: call the methods in order, each adds frames to `out` at the running time `at` (ns)."""

    def __init__(self, out, at, client, cport, server, sport, rtt=0.02, isn=(1000000, 9000000), mss=1460, near="client"):
        self.out, self.at, self.rtt = out, at, rtt
        self.ends = [(client, cport), (server, sport)]
        self.seq = list(isn)
        self.acked = [0, 0]
        self.mss = mss
        self.near = 0 if near == "client" else 1
        self.ts = [700000, 300000]
        self.start = at

    def options(self, side, syn=False):
        stamp = (self.at - self.start) // 10**6 % 2**32
        self.ts[side] = [700000, 300000][side] + stamp
        times = struct.pack("!BBII", 8, 10, self.ts[side], self.ts[1 - side] if self.acked[side] else 0)
        if syn:
            return struct.pack("!BBH", 2, 4, self.mss) + b"\4\2" + times + b"\1\3\3\7"
        return b"\1\1" + times

    def wait(self, seconds):
        self.at += int(seconds * 10**9)
        return self

    def send(self, side, flags, payload=b"", syn=False, window=502, advance=True, seq=None, record=True):
        (src, sport), (dst, dport) = self.ends[side], self.ends[1 - side]
        ack = self.acked[side] if flags & ACK else 0
        options = b"" if flags & RST else self.options(side, syn)
        frame = tcp_frame(src, sport, dst, dport, self.seq[side] if seq is None else seq, ack, flags, payload, 64240 if syn else window, options)
        if record:
            self.out.append((self.at, len(frame), frame))
        if advance and seq is None:
            self.seq[side] = (self.seq[side] + len(payload) + bool(flags & SYN) + bool(flags & FIN)) & 0xFFFFFFFF
            self.acked[1 - side] = self.seq[side]
        return self

    def cross(self, side):
        """The time until the other side's reaction to a packet of `side` is seen here."""
        return self.wait(0.00005 if side != self.near else self.rtt)

    def open(self):
        self.send(0, SYN, syn=True).cross(0).send(1, SYN | ACK, syn=True).cross(1).send(0, ACK)
        return self.wait(0.0001)

    def data(self, side, payload, ack=True):
        for at in range(0, len(payload), 1448):
            self.send(side, ACK | PSH, payload[at : at + 1448])
        if ack:
            self.cross(side).send(1 - side, ACK)
        return self

    def close(self, side):
        return self.send(side, FIN | ACK).cross(side).send(1 - side, FIN | ACK).cross(1 - side).send(side, ACK)
