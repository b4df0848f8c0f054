"""Makes a way longer: what the kernel routes into a TUN device comes out of it again some time later, in order.

delay.py DEVICE MILLISECONDS [PERIOD]    with a PERIOD in milliseconds only in every second one"""
import collections
import fcntl
import os
import select
import struct
import sys
import time

device, delay = sys.argv[1], float(sys.argv[2]) / 1000
period = float(sys.argv[3]) / 1000 if len(sys.argv) > 3 else 0
last = 0
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
waiting = collections.deque()
while True:
    now = time.monotonic()
    while waiting and waiting[0][0] <= now:
        os.write(tun, waiting.popleft()[1])
    pause = max(waiting[0][0] - time.monotonic(), 0) if waiting else None
    if select.select([tun], [], [], pause)[0]:
        try:
            while True:
                packet, now = os.read(tun, 65536), time.monotonic()
                late = not period or int(now / period) % 2
                last = max(now + delay * late, last)
                waiting.append((last, packet))
        except BlockingIOError:
            pass
