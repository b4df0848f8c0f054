"""Damages real captures in known ways: quality.py RAW-DIRECTORY RULES-DIRECTORY BROKEN-DIRECTORY

RAW holds loads.pcap (three downloads) and long.pcap (three slow conversations), both Ethernet, both directions, complete."""
import os
import struct
import sys

from pcap import ETHERNET, FIN, SYN, Packet, read, write

raw, rules, broken = sys.argv[1:4]
link, _, loads = read(os.path.join(raw, "loads.pcap"))
_, _, long = read(os.path.join(raw, "long.pcap"))


def put(name, records, snaplen=262144):
    path = os.path.join(rules, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write(path, link, records, snaplen)


# capture-packet-loss: data frames that the receiver acknowledged are missing
kept, number = [], 0
for record in loads:
    packet = Packet(link, record[2])
    if packet.flags is not None and packet.payload and packet.src == "10.224.26.2":
        number += 1
        if number % 7 == 3:
            continue
    kept.append(record)
put("capture-packet-loss/data-dropped-acks-kept.pcap", kept)

# capture-one-sided: one flow of many packets, one direction
put(
    "capture-one-sided/one-download-data-only.pcap",
    [r for r in loads if (p := Packet(link, r[2])).flags is not None and p.dst == "203.0.113.7"],
)

# capture-starts-mid-stream: the first quarter of the file is missing
put("capture-starts-mid-stream/head-cut-off.pcap", loads[len(loads) // 6 :])

# capture-clock-jump
middle = len(long) // 2
put("capture-clock-jump/backwards-2s.pcap", [(t - (2 * 10**9 if n >= middle else 0), w, o) for n, (t, w, o) in enumerate(long)])
put("capture-clock-jump/forwards-1h.pcap", [(t + (3600 * 10**9 if n >= middle else 0), w, o) for n, (t, w, o) in enumerate(long)])
start = long[0][0]
put("capture-clock-jump/clock-runs-double.pcap", [(start + (t - start) * 2, w, o) for t, w, o in long])
swapped = list(long)
for at in range(10, len(swapped) - 1, 12):  # neighbours within 0.9 ms change places, as on a multi-queue card
    if swapped[at + 1][0] - swapped[at][0] < 900_000:
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
put("capture-clock-jump/not-order-off-by-microseconds.pcap", swapped)
put("capture-clock-jump/not-steady.pcap", long)

# capture-offload-artifacts: only what this host (the client) sent has an unfinished checksum
unfinished = []
for t, w, o in loads:
    packet = Packet(link, o)
    if packet.flags is not None and packet.src.startswith("203.0.113."):
        at = packet.l4 + 16
        o = o[:at] + struct.pack("!H", struct.unpack("!H", o[at : at + 2])[0] ^ 0x5A5A) + o[at + 2 :]
    unfinished.append((t, w, o))
put("capture-offload-artifacts/checksums-unfinished-on-sent.pcap", unfinished)

# capture-ends-early: the file stops in the middle of a download
put("capture-ends-early/rotated-away.pcap", loads[: len(loads) // 3 * 2 - 7])


# capture-file-damaged and broken/
def octets(records, snaplen=262144):
    path = os.path.join(raw, "t.pcap")
    write(path, link, records, snaplen)
    with open(path, "rb") as file:
        return file.read()


good = octets(long)
offsets, at = [], 24
for _, _, o in long:
    offsets.append(at)
    at += 16 + len(o)
half = offsets[len(offsets) // 2]
insane = bytearray(good)
insane[half + 8 : half + 12] = struct.pack("<I", 0x7FFFFFF0)
zeroed = bytearray(good)
zeroed[half : half + 400] = bytes(400)


def block(kind, body):
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))


def pcapng(records, extra=b"", interface_first=True):
    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    interface = block(1, struct.pack("<HHI", link, 0, 262144))
    if interface_first:
        out += interface
    for number, (t, w, o) in enumerate(records):
        if number == len(records) // 2:
            out += extra
        stamp = t // 1000
        out += block(6, struct.pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(o), w) + o)
    return out


ng = pcapng(long)
bad_length = bytearray(ng)
place = ng.index(struct.pack("<I", 6), len(ng) // 2)
bad_length[place + 4 : place + 8] = struct.pack("<I", 13)
files = {
    "cut-inside-a-record.pcap": good[: half + 16 + 20],
    "cut-inside-a-record-header.pcap": good[: half + 9],
    "insane-record-length.pcap": bytes(insane),
    "zeros-in-the-middle.pcap": bytes(zeroed),
    "unknown-link-type.pcap": good[:20] + struct.pack("<I", 9999) + good[24:],
    "pcapng-unknown-block.pcapng": pcapng(long, block(0x0BADF00D, b"nobody knows this block")),
    "pcapng-cut.pcapng": ng[: len(ng) // 2 + 5],
    "pcapng-bad-block-length.pcapng": bytes(bad_length),
    "pcapng-packet-before-interface.pcapng": pcapng(long[:6], interface_first=False),
    "empty-file.pcap": b"",
    "header-only.pcap": good[:24],
    "half-a-header.pcap": good[:11],
    "text-file.pcap": b"tcpdump: eth0: You don't have permission to capture on that device\n(socket: Operation not permitted)\n",
    "frames-too-short.pcap": octets([(t, 60, o[: n % 40]) for n, (t, w, o) in enumerate(long)]),
}
os.makedirs(broken, exist_ok=True)
for name, data in files.items():
    with open(os.path.join(broken, name), "wb") as file:
        file.write(data)
for name in ("cut-inside-a-record.pcap", "insane-record-length.pcap", "zeros-in-the-middle.pcap", "pcapng-cut.pcapng"):
    path = os.path.join(rules, "capture-file-damaged", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(files[name])
directory = os.path.join(rules, "capture-file-damaged")
for name, data in {
    "not-ends-on-a-record-border.pcap": good[: offsets[-5]],
    "not-whole.pcap": good,
    "not-pcapng-unknown-block.pcapng": files["pcapng-unknown-block.pcapng"],
}.items():
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)
