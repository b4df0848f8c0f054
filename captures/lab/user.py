"""A user who asks twice a second on one connection, and again on a new one when it breaks.    user.py FROM SERVER PORT"""
import socket
import sys
import time

source, server, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
while True:
    try:
        with socket.create_connection((server, port), 4, (source, 0)) as connection:
            connection.settimeout(40)
            while True:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
                if not connection.recv(65536):
                    break
                time.sleep(0.5)
    except OSError:
        time.sleep(0.5)
