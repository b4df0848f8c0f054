"""Scripted TCP client: talk.py [--from ADDRESS[:PORT]] HOST PORT STEP…   (steps.py lists the steps)"""
import socket
import sys

import steps

arguments = sys.argv[1:]
source = None
if arguments[0] == "--from":
    address, _, port = arguments[1].partition("#")
    source = (address, int(port or 0))
    arguments = arguments[2:]
host, port, todo = arguments[0], int(arguments[1]), arguments[2:]
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
for step in todo:
    if step.startswith("rcvbuf:"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(step[7:]))
if source:
    sock.bind(source)
sock.settimeout(30)
sock.connect((host, port))
steps.setup(sock)
steps.run(sock, todo)
