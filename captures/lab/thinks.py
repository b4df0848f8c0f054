"""A TLS client that thinks before it goes on, as one does that checks revocation: thinks.py HOST PORT NAME SECONDS"""
import socket
import ssl
import sys
import time

host, port, name, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
context = ssl._create_unverified_context()
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
session = context.wrap_bio(incoming, outgoing, server_hostname=name)
sock = socket.create_connection((host, port))


def step(todo, wait=0.0):
    while True:
        try:
            done = todo()
        except ssl.SSLWantReadError:
            done = None
        if outgoing.pending:
            sock.sendall(outgoing.read())
        if done is not None:
            return done
        octets = sock.recv(65536)
        time.sleep(wait)
        incoming.write(octets)


step(lambda: session.do_handshake() or True, seconds)
step(lambda: session.write(b"GET / HTTP/1.0\r\n\r\n"))
step(lambda: session.read(4096))
sock.close()
