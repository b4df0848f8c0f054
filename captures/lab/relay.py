"""TCP relay that damages what passes: relay.py LISTEN-PORT HOST PORT c2s|s2c NTH

Flips one bit near the end of the NTH chunk (from 1) in the named direction; everything else passes untouched."""
import socket
import sys
import threading

listen, host, port, direction, nth = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])


def copy(source, target, damaged):
    count = 0
    while True:
        try:
            chunk = source.recv(65536)
        except OSError:
            break
        if not chunk:
            break
        count += 1
        if damaged and count == nth:
            chunk = bytearray(chunk)
            chunk[-12] ^= 1
        target.sendall(chunk)
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", listen))
listener.listen(8)
while True:
    near, _ = listener.accept()
    far = socket.create_connection((host, port))
    for sock in near, far:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=copy, args=(near, far, direction == "c2s"), daemon=True).start()
    threading.Thread(target=copy, args=(far, near, direction == "s2c"), daemon=True).start()
