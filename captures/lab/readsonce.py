"""A box that reads a ClientHello in one go, as if it were always one segment: readsonce.py PORT HOST PORT [OCTETS]

What came in the first read (OCTETS at most, default one segment) is all it looks at: a ClientHello that is not whole then is answered by a close. Whole
ones are passed on."""
import socket
import sys
import threading

port, host, target = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
size = int(sys.argv[4]) if len(sys.argv) > 4 else 1448


def copy(source, sink):
    try:
        while octets := source.recv(65536):
            sink.sendall(octets)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def handle(client):
    first = client.recv(size)
    whole = len(first) >= 5 and len(first) >= 5 + int.from_bytes(first[3:5], "big")
    if not whole:
        client.recv(65536)  # the rest is taken from the kernel, so that the close is a FIN
        client.close()
        return
    server = socket.create_connection((host, target))
    server.sendall(first)
    threading.Thread(target=copy, args=(server, client), daemon=True).start()
    copy(client, server)


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", port))
listener.listen(16)
while True:
    threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()
