"""Scripted TCP server: serve.py PORT STEP…   every connection runs the steps in its own thread (steps.py lists them).

Before the steps: backlog:N (listen queue, default 64), no-accept (never call accept)."""
import socket
import sys
import threading
import time

import steps

port, todo = int(sys.argv[1]), sys.argv[2:]
backlog, accept = 64, True
while todo and (todo[0].startswith("backlog:") or todo[0] == "no-accept"):
    first = todo.pop(0)
    if first == "no-accept":
        accept = False
    else:
        backlog = int(first[8:])
listener = socket.socket(socket.AF_INET6)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind(("::", port))
listener.listen(backlog)
while not accept:
    time.sleep(60)
while True:
    connection, _ = listener.accept()
    steps.setup(connection)
    threading.Thread(target=steps.run, args=(connection, todo), daemon=True).start()
