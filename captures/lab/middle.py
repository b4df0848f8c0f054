"""The middle between two ends: a router in user space that breaks what its plan says and writes down what became of every frame.

middle.py CLIENT-TAP SERVER-TAP LOG PLAN      begins two TAP devices, prints "ready", ends on SIGTERM

It takes frames from one TAP, has a hop count of its own (4 hops on the client's side, 8 on the server's), a delay each way, and puts them out on the other. Each
line of LOG is one frame, as JSON: who handed it over (client, server, or middle for what it made itself), its octets' digest as handed over, its
fate (delivered, dropped, delayed, duplicated, altered, made), why, and the digests of what was put out at each end, in that order. Plans are in faults.py."""
import fcntl
import hashlib
import heapq
import json
import os
import select
import signal
import struct
import sys
import time

import faults

TUNSETIFF, TAP, NO_PI = 0x400454CA, 0x0002, 0x1000
HOPS = {"client": 4, "server": 8}
MAC = {"client": bytes.fromhex("02cb00710701"), "server": bytes.fromhex("020ae01a0201")}
HOST = {"client": bytes.fromhex("02cb00710707"), "server": bytes.fromhex("020ae01a0202")}
OTHER = {"client": "server", "server": "client"}


def tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP | NO_PI))
    return fd


def digest(raw):
    return hashlib.sha256(raw).hexdigest()[:16]


def summed(octets):
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets[: len(octets) & ~1])) + (octets[-1] << 8 if len(octets) & 1 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(source, destination, protocol, body, ttl=64, ident=0):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), ident, 0, ttl, protocol, 0, source, destination)
    return head[:10] + struct.pack("!H", summed(head)) + head[12:] + body


def onward(packet, hops):
    """The packet after so many hops."""
    head = bytearray(packet[:20])
    head[8] -= hops
    head[10:12] = b"\0\0"
    head[10:12] = struct.pack("!H", summed(bytes(head)))
    return bytes(head) + packet[20:]


def reset(seq, source, destination):
    """A RST as a firewall makes it: `source` and `destination` are (address, port)."""
    segment = struct.pack("!HHIIBBHHH", source[1], destination[1], seq, 0, 0x50, 4, 0, 0, 0)
    pseudo = source[0] + destination[0] + struct.pack("!BBH", 0, 6, 20)
    segment = segment[:16] + struct.pack("!H", summed(pseudo + segment)) + segment[18:]
    return ip_packet(source[0], destination[0], 6, segment)


def too_big(packet, mtu):
    """ICMP "fragmentation needed" (RFC 1191) about this packet, from the router on its sender's side."""
    quote = packet[:28]
    body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quote
    body = body[:2] + struct.pack("!H", summed(body)) + body[4:]
    return ip_packet(bytes([192, 0, 2, 1]), packet[12:16], 1, body, ident=77)


class Frame:
    """One TCP segment as it was handed over."""

    def __init__(self, side, raw, now):
        self.side, self.raw, self.now = side, raw, now
        self.packet = raw[14:]
        self.source, self.destination = self.packet[12:16], self.packet[16:20]
        segment = self.packet[20:]
        self.sport, self.dport, self.seq, self.ack, offset, self.flags = struct.unpack("!HHIIBB", segment[:14])
        self.payload = segment[(offset >> 4) * 4 :]
        self.end = (self.seq + len(self.payload)) & 0xFFFFFFFF
        self.port = self.sport if side == "client" else self.dport

    def resets(self, both=("client", "server")):
        """RSTs to the ends named that fit what this segment says: [(end, packet)]."""
        here, there = (self.source, self.sport), (self.destination, self.dport)
        made = {self.side: reset(self.ack, there, here), OTHER[self.side]: reset(self.seq, here, there)}
        return [(end, made[end]) for end in both]


class Middle:
    def __init__(self, names, log, plan):
        self.taps = {"client": tap(names[0]), "server": tap(names[1])}
        self.log, self.plan, self.queue, self.order = log, plan, [], 0
        self.pending = {}
        self.out = 0

    def put(self, number, end, packet, delay, now):
        heapq.heappush(self.queue, (now + delay, self.order, number, end, HOST[end] + MAC[end] + b"\x08\x00" + packet))
        self.order += 1
        self.pending[number]["waits"] += 1

    def entry(self, number, origin, raw, fate, why):
        self.pending[number] = {"from": origin, "in": digest(raw) if raw else None, "fate": fate, "why": why, "out": [], "waits": 0, "time": time.time()}

    def take(self, side, raw):
        if len(raw) < 54 or raw[12:14] != b"\x08\x00" or raw[23] != 6:
            return
        now = time.monotonic()
        frame = Frame(side, raw, now)
        verdict = self.plan.judge(frame)
        number = self.out
        self.out += 1
        self.entry(number, side, raw, verdict.fate, verdict.why)
        for delay in verdict.delays:
            self.put(number, OTHER[side], onward(verdict.packet or frame.packet, HOPS["client"] + HOPS["server"]), delay, now)
        self.done(number)
        for end, packet in verdict.made:
            number = self.out
            self.out += 1
            self.entry(number, "middle", None, "made", verdict.why)
            self.put(number, end, onward(packet, HOPS[end]), verdict.soon or self.plan.delay, now)

    def done(self, number):
        entry = self.pending[number]
        if not entry["waits"]:
            del entry["waits"]
            self.log.write(json.dumps({"n": number, **entry}) + "\n")
            del self.pending[number]

    def run(self):
        sides = {fd: side for side, fd in self.taps.items()}
        while not stopped:
            wait = max(0.0, self.queue[0][0] - time.monotonic()) if self.queue else 0.2
            readable, _, _ = select.select(list(sides), [], [], min(wait, 0.2))
            for fd in readable:
                try:
                    self.take(sides[fd], os.read(fd, 70000))
                except BlockingIOError:
                    pass
            while self.queue and self.queue[0][0] <= time.monotonic():
                _, _, number, end, raw = heapq.heappop(self.queue)
                os.write(self.taps[end], raw)
                self.pending[number]["out"].append([end, digest(raw)])
                self.pending[number]["waits"] -= 1
                self.done(number)
        for number in sorted(self.pending):
            self.pending[number]["waits"] = 0
            self.done(number)
        self.log.flush()


stopped = []

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    with open(sys.argv[3], "w") as log:
        middle = Middle(sys.argv[1:3], log, faults.PLANS[sys.argv[4]]())
        print("ready", flush=True)
        middle.run()
