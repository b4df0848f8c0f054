"""Messages in two small writes: smallwrites.py serve PORT | ask HOST PORT nagle|nodelay|whole MESSAGES

`nagle` writes head and body apart, as many programs do; `nodelay` does so with TCP_NODELAY; `whole` writes once."""
import socket
import sys

HEAD = b"POST /line HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 26\r\n\r\n"
BODY = b"abcdefghijklmnopqrstuvwxyz"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

if sys.argv[1] == "serve":
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", int(sys.argv[2])))
    listener.listen(8)
    while True:
        connection, _ = listener.accept()
        seen = b""
        while more := connection.recv(65536):
            seen += more
            while len(seen) >= len(HEAD + BODY):
                seen = seen[len(HEAD + BODY):]
                connection.sendall(ANSWER)
        connection.close()
host, port, how, messages = sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
sock = socket.create_connection((host, port), 10)
if how == "nodelay":
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for _ in range(messages):
    if how == "whole":
        sock.sendall(HEAD + BODY)
    else:
        sock.sendall(HEAD)
        sock.sendall(BODY)
    sock.recv(4096)
sock.close()
