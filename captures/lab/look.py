"""One line per TCP flow of a pcap file, to check that a capture shows what its name says: look.py FILE…

  >  client to server   <  server to client     S SYN  F FIN  R RST (r: RST with ACK)  a a bare ACK   12"text" 12 octets"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "generate"))
import pcap

for path in sys.argv[1:]:
    link, snaplen, records = pcap.read(path)
    print(f"== {path}: {len(records)} packets, {(records[-1][0] - records[0][0]) / 1e9 if records else 0:.3f} s")
    flows, other = {}, {}
    for number, (at, length, octets) in enumerate(records, 1):
        packet = pcap.Packet(link, octets)
        if packet.flags is None:
            name = {0x0806: "arp"}.get(packet.kind, f"{packet.kind:04x}/{packet.proto}")
            other[name] = other.get(name, 0) + 1
            continue
        key = packet.key()
        if key not in flows:
            flows[key] = [(packet.src, packet.sport), [], None, set(), at]
        flow = flows[key]
        side = ">" if (packet.src, packet.sport) == flow[0] else "<"
        word = "".join(letter for bit, letter in ((pcap.SYN, "S"), (pcap.FIN, "F")) if packet.flags & bit)
        if packet.flags & pcap.RST:
            word += "r" if packet.flags & pcap.ACK else "R"
        if packet.payload:
            excerpt = "".join(chr(c) if 32 <= c < 127 else "." for c in packet.payload[:14])
            word += f'{len(packet.payload)}"{excerpt}"'
            if packet.payload[0] < 32:
                word = word[: word.index('"')] + "[" + packet.payload[:6].hex() + "]"
        mark = (side, packet.seq, packet.flags, len(packet.payload))
        if mark in flow[3] and word:
            word = "again:" + word
        flow[3].add(mark)
        gap = "" if flow[2] is None or at - flow[2] < 3 * 10**8 else f"(+{(at - flow[2]) / 1e9:.1f}s) "
        if gap or word or os.environ.get("ACKS"):
            flow[1].append(f"{gap}{side}{word or 'a'}")
        flow[2] = at
    for key, (start, words, last, _, first) in flows.items():
        end = key[0] if key[1] == start else key[1]
        text = " ".join(words)
        print(f"{(first-records[0][0])/1e9:6.2f} {start[0]}:{start[1]}>{end[0]}:{end[1]}  {text[:int(os.environ.get('WIDTH', 330))]}")
    if other:
        print("       other:", other)
