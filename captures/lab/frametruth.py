"""Writes truth.tsv of one scenario of two-ends.sh: frametruth.py RUN-DIRECTORY OUTPUT-DIRECTORY SCENARIO

sent: first, again or partly, by what its sender had sent before. had: what the other end had of it when it left: acked (it had acknowledged every octet),
all, part, none (of what was put out there, whether its kernel took it or not). kernel: why it was sent again.

RUN-DIRECTORY holds the middle's log, the kernel's counters of both ends and the kernel's trace. One line per frame, in the order in which the middle
got or made them; frames are found in the captures by their octets, and one that is in the log but not in its capture stops the script."""
import json
import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "generate"))
import pcap
from middle import digest

COLUMNS = "n from client server fate why flow what seq len sent had kernel".split()
COUNTED = "RetransSegs TCPTimeouts TCPLossProbes TCPFastRetrans TCPSlowStartRetrans TCPSpuriousRTOs TCPDSACKRecv TCPDSACKOldSent TCPSynRetrans InCsumErrors"
SPACE = 1 << 32


def numbers(path):
    """Digest -> the numbers of the frames with these octets, in order; and all frames by number."""
    _, _, records = pcap.read(path)
    found, frames = {}, {}
    for number, (at, _, octets) in enumerate(records, 1):
        found.setdefault(digest(octets), []).append(number)
        frames[number] = (at, octets)
    return found, frames


def what(packet):
    if packet.proto == 1:
        return "ICMP"
    flags, words = packet.flags, []
    for flag, name in ((pcap.SYN, "SYN"), (pcap.FIN, "FIN"), (pcap.RST, "RST")):
        words += [name] * bool(flags & flag)
    words += ["data"] * bool(packet.payload)
    return "+".join(words + ["ACK"] * bool(flags & pcap.ACK and words in ([], ["SYN"])))


class Octets:
    """Which octets of one direction were seen, as a list of ranges that grows (relative numbers)."""

    def __init__(self):
        self.ranges = []

    def covers(self, start, end):
        """"all", "none" or "part" of start..end."""
        inside = sum(max(0, min(end, b) - max(start, a)) for a, b in self.ranges)
        return "all" if inside >= end - start else "part" if inside else "none"

    def add(self, start, end):
        merged = []
        for a, b in sorted([*self.ranges, (start, end)]):
            if merged and a <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
            else:
                merged.append((a, b))
        self.ranges = merged


def kernel_events(path):
    """(source port, destination port) -> [(time of day, caller)] of tcp_retransmit_skb."""
    found, last = {}, None
    offset = time.time() - time.monotonic()
    if not os.path.exists(path):
        return None
    for line in open(path, errors="replace"):
        event = re.search(r"\s(\d+\.\d+): tcp_retransmit_skb: .*sport=(\d+) dport=(\d+)", line)
        if event:
            last = [float(event[1]) + offset, "?"]
            found.setdefault((int(event[2]), int(event[3])), []).append(last)
        elif last and last[1] == "?":
            for caller, kind in (("tcp_send_loss_probe", "probe"), ("tcp_retransmit_timer", "timeout"), ("tcp_xmit_retransmit_queue", "queue"), ("tcp_simple_retransmit", "queue")):
                if caller in line:
                    last[1] = kind
    return found


def caller(events, key, at):
    """Who asked for the retransmission that left at this time: the kernel tells right after it handed it over."""
    if events is None:
        return "-"
    after = [kind for when, kind in events.get(key, []) if at - 0.00005 <= when < at + 0.05]
    return after[0] if after else "?"


def counters(path):
    lines = open(path).read().splitlines()
    values = {}
    for names, row in zip(lines[::2], lines[1::2]):
        # InCsumErrors stands there for IP, TCP, UDP and ICMP each.
        if names.startswith("Tcp"):
            values.update(zip(names.split()[1:], row.split()[1:]))
    return {name: values[name] for name in COUNTED.split()}


def main(run, out, scenario):
    ends = {end: numbers(os.path.join(out, f"{end}.pcap")) for end in ("client", "server")}
    events = kernel_events(os.path.join(run, "trace"))
    log = sorted((json.loads(line) for line in open(os.path.join(run, "log"))), key=lambda entry: entry["n"])
    take = lambda end, print_: ends[end][0][print_].pop(0)
    flows, base, sent, got, rows, acked, answered, recovering = {}, {}, {}, {}, [], {}, {}, {}
    for entry in log:
        side, places = entry["from"], {"client": [], "server": []}
        if side != "middle":
            places[side].append(take(side, entry["in"]))
        for end, print_ in entry["out"]:
            places[end].append(take(end, print_))
        here = side if side != "middle" else next((end for end in places if places[end]), None)
        if here is None:
            continue
        at, octets = ends[here][1][places[here][0]]
        packet = pcap.Packet(pcap.ETHERNET, octets)
        row = dict.fromkeys(COLUMNS, "-")
        row.update({"n": len(rows) + 1, "from": side, "fate": entry["fate"], "why": entry["why"] or "-", "what": what(packet)})
        row.update({end: ",".join(map(str, places[end])) or "-" for end in places})
        rows.append(row)
        if packet.proto != 6:
            continue
        port = packet.sport if packet.dst == "10.224.26.2" else packet.dport
        row["flow"] = flows.setdefault(port, len(flows) + 1)
        if side == "middle":
            continue
        key = (port, side)
        first = base.setdefault(key, packet.seq)
        start = (packet.seq - first + SPACE // 2) % SPACE - SPACE // 2
        row.update({"seq": start, "len": len(packet.payload)})
        far = "server" if side == "client" else "client"
        if packet.flags & pcap.ACK and places[far] and entry["fate"] != "altered" and (port, far) in base:
            acked.setdefault((port, far), []).append((ends[far][1][places[far][0]][0], (packet.ack - base[port, far]) % SPACE))
        if packet.flags & pcap.ACK and (port, far) in base:
            answered.setdefault((port, far), []).append((at, (packet.ack - base[port, far]) % SPACE))
        length = len(packet.payload) + bool(packet.flags & pcap.SYN) + bool(packet.flags & pcap.FIN)
        if not length or packet.flags & pcap.RST:
            continue
        end = start + length
        known, arrived = sent.setdefault(key, Octets()), got.setdefault(key, [])
        row["sent"] = {"all": "again", "none": "first", "part": "partly"}[known.covers(start, end)]
        if row["sent"] != "first":
            there = Octets()
            for when, a, b in arrived:
                if when <= at:
                    there.add(a, b)
            told = max((number for when, number in answered.get(key, []) if when <= at), default=0)
            row["had"] = "acked" if told >= end else there.covers(start, end)
            row["kernel"] = caller(events, (packet.sport, packet.dport), at / 1e9)
            una = max((number for when, number in acked.get(key, []) if when <= at), default=0)
            if row["kernel"] == "timeout":
                recovering[key] = max(b for _, b in known.ranges)
            elif row["kernel"] == "queue":
                row["kernel"] = "after-timeout" if una < recovering.get(key, 0) else "fast"
        known.add(start, end)
        if entry["fate"] != "altered":
            arrived += [(ends[far][1][number][0], start, end) for number in places[far]]
    left = {end: sum(map(len, found.values())) for end, (found, _) in ends.items()}
    with open(os.path.join(out, "truth.tsv"), "w") as file:
        file.write("\t".join(COLUMNS) + "\n")
        for row in rows:
            file.write("\t".join(str(row[column]) for column in COLUMNS) + "\n")
    told = {end: counters(os.path.join(run, f"{end}.counters")) for end in ends}
    with open(os.path.join(out, "counters.tsv"), "w") as file:
        file.write("counter\tclient\tserver\n")
        for name in COUNTED.split():
            file.write(f"{name}\t{told['client'][name]}\t{told['server'][name]}\n")
    again = sum(row["sent"] == "again" for row in rows)
    print(f"{scenario}: {len(rows)} frames, {len(ends['client'][1])} and {len(ends['server'][1])} captured ({left['client']} and {left['server']} unmatched), {again} sent again")


main(*sys.argv[1:])
