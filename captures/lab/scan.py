"""Connects to every port of a range, one after the other, and says nothing.    scan.py HOST FIRST LAST"""
import socket
import sys

host, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for port in range(first, last + 1):
    with socket.socket() as probe:
        probe.settimeout(0.5)
        probe.connect_ex((host, port))
