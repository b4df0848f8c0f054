"""Takes a good ClientHello and breaks it: tlsbroken.py GOOD DIRECTORY

decode-error: an extension is longer than the message · duplicate-extension: server_name twice · no-null-compression"""
import os
import struct
import sys

with open(sys.argv[1], "rb") as file:
    hello = file.read()
version = hello[9:11]
at = 11 + 32
session = hello[at : at + 1 + hello[at]]
at += len(session)
length = struct.unpack("!H", hello[at : at + 2])[0]
ciphers = hello[at : at + 2 + length]
at += len(ciphers)
compression = hello[at : at + 1 + hello[at]]
at += len(compression)
extensions = hello[at + 2 :]
first = extensions[: 4 + struct.unpack("!H", extensions[2:4])[0]]


def build(name, compression, extensions):
    body = version + hello[11:43] + session + ciphers + compression + struct.pack("!H", len(extensions)) + extensions
    message = b"\1" + struct.pack("!I", len(body))[1:] + body
    with open(os.path.join(sys.argv[2], name), "wb") as file:
        file.write(b"\x16\3\1" + struct.pack("!H", len(message)) + message)


build("duplicate-extension", compression, first + extensions)
build("decode-error", compression, extensions + b"\x00\x2b\x00\x40\x02")
build("no-null-compression", b"\1\1", extensions)
