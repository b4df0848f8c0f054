"""Writes the ClientHello that Python's OpenSSL would send: tlshello.py NAME FILE"""
import ssl
import sys

context = ssl.create_default_context()
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
session = context.wrap_bio(incoming, outgoing, server_hostname=sys.argv[1])
try:
    session.do_handshake()
except ssl.SSLWantReadError:
    pass
with open(sys.argv[2], "wb") as file:
    file.write(outgoing.read())
