"""connect-slow/not-high-rtt.pcap: connections over a path of 0.7 s, nothing is repeated (this kernel has no delay queue)."""
import os
import sys

from pcap import ETHERNET, Connection, Host, write

client = Host("203.0.113.7", "02:00:cb:00:71:07")
server = Host("10.224.26.2", "02:00:cb:00:71:01", ttl=63)
out = []
for number in range(3):
    flow = Connection(out, 1795000000 * 10**9 + number * 4 * 10**9, client, 41000 + number, server, 80, rtt=0.7, isn=(10**6 * (number + 1), 10**7 * (number + 2)))
    flow.open()
    flow.data(0, b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n").data(1, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").wait(0.01).close(0)
directory = os.path.join(sys.argv[1], "connect-slow")
os.makedirs(directory, exist_ok=True)
write(os.path.join(directory, "not-high-rtt.pcap"), ETHERNET, sorted(out, key=lambda record: record[0]))
