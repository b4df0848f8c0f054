"""The steps that talk.py and serve.py understand.

  send:TEXT    TEXT with Python escapes (\\r\\n, \\x16 …); @FILE sends a file     (one send() = one segment, Nagle is off)
  zeros:N      N octets of 'x'
  recv         wait for some octets (10 s at most)     recv:TEXT  until TEXT was seen
  eof          read until the other side closes
  sleep:S      wait S seconds
  fin          shutdown(SHUT_WR)        close  close()        rst  close with SO_LINGER 0 (aborts with RST)
  vanish       forget the connection without a word (TCP_REPAIR), as a restarted host does
  again:N:STEP do STEP N times, 5 s apart
  keepalive:S  SO_KEEPALIVE with idle and interval S          rcvbuf:N  small receive buffer
"""
import socket
import struct
import time


def setup(sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def octets(text):
    if text.startswith("@"):
        with open(text[1:], "rb") as file:
            return file.read()
    return text.encode("latin1").decode("unicode_escape").encode("latin1")


def run(sock, steps):
    seen = b""
    for step in steps:
        what, _, value = step.partition(":")
        try:
            if what == "send":
                sock.sendall(octets(value))
            elif what == "zeros":
                sock.sendall(b"x" * int(value))
            elif what == "recv" and not value:
                sock.settimeout(10)
                seen += sock.recv(65536)
            elif what == "recv":
                sock.settimeout(10)
                wanted = octets(value)
                while wanted not in seen:
                    more = sock.recv(65536)
                    if not more:
                        break
                    seen += more
                seen = seen.partition(wanted)[2]
            elif what == "eof":
                sock.settimeout(float(value or 10))
                while sock.recv(65536):
                    pass
            elif what == "sleep":
                time.sleep(float(value))
            elif what == "fin":
                sock.shutdown(socket.SHUT_WR)
            elif what == "close":
                sock.close()
            elif what == "rst":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
            elif what == "vanish":
                sock.setsockopt(socket.IPPROTO_TCP, 19, 1)
                sock.close()
            elif what == "again":
                count, _, inner = value.partition(":")
                for _ in range(int(count)):
                    time.sleep(5)
                    run(sock, [inner])
            elif what == "keepalive":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(value))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(value))
            elif what == "rcvbuf":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(value))
            else:
                raise SystemExit(f"unknown step {step!r}")
        except OSError as error:
            print(f"{step}: {error}", flush=True)
