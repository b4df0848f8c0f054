"""What a capture looks like whose queues were read out of order: queues.py CAPTURE OUTPUT

CAPTURE is Ethernet and in order. Every tenth segment of the server with payload is recorded behind the acknowledgment that covers it, with
the time of that place: the network delivered it in order, the capture did not."""
import sys

from pcap import Packet, read, write

source, output = sys.argv[1:3]
link, snaplen, records = read(source)
packets = [Packet(link, octets) for _, _, octets in records]
ports = {}
for packet in packets:
    if packet.proto == 6 and packet.flags & 2 and not packet.flags & 16:
        ports[packet.key()] = packet.dport
order, moved, count = [], [], 0
for place, packet in enumerate(packets):
    data = packet.proto == 6 and packet.sport == ports.get(packet.key()) and packet.payload
    count += bool(data)
    if data and count % 10 == 0:
        moved.append(place)
        continue
    order.append(place)
    for late in [late for late in moved if packet.proto == 6 and packet.key() == packets[late].key() and packet.dport == packets[late].sport]:
        behind = packets[late].seq + len(packets[late].payload)
        if (packet.ack - behind) % 2**32 < 2**31:
            order.append(late)
            moved.remove(late)
order += moved
times = sorted(at for at, _, _ in records)
write(output, link, [(at, *records[place][1:]) for at, place in zip(times, order)], snaplen)
