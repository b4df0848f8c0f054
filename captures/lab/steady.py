"""Asks one server again and again, each time over a new connection: steady.py HOST PORT PER_SECOND SECONDS."""

import socket
import sys
import time

host, port, rate, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
begin = time.monotonic()
n = 0
while (now := time.monotonic()) < begin + seconds:
    try:
        with socket.create_connection((host, port), timeout=5) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
            while sock.recv(65536):
                pass
    except OSError as error:
        print(f"steady: {error}", file=sys.stderr)
    n += 1
    time.sleep(max(0, begin + n / rate - time.monotonic()))
