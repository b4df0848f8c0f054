"""HTTP patterns that no stock server of the lab shows by itself: web.py PORT

/poll long poll (answers after 20 s) · /events server-sent events (one each 7 s) · /ws WebSocket (101, a ping each 20 s) ·
/nocontent 204 · /cached 304 · /chunked · /close (length given by close, HTTP/1.0) · anything else 200"""
import base64
import hashlib
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.answer(200, b"x" * 5000, [("Content-Type", "text/plain")])

    def do_GET(self):
        if self.path == "/poll":
            time.sleep(20)
            self.answer(200, b'{"messages":[]}', [("Content-Type", "application/json")])
        elif self.path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-cache")
            self.end_headers()
            for number in range(6):
                self.wfile.write(b"data: %d\n\n" % number)
                time.sleep(7)
            self.close_connection = True
        elif self.path == "/ws":
            key = self.headers["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key).digest()).decode())
            self.end_headers()
            for _ in range(2):
                time.sleep(20)
                self.wfile.write(b"\x89\x00")
                self.connection.recv(64)
            self.wfile.write(b"\x88\x02\x03\xe8")
            self.connection.recv(64)
            self.close_connection = True
        elif self.path == "/nocontent":
            self.answer(204)
        elif self.path == "/cached":
            self.answer(304, headers=[("ETag", '"1"')])
        elif self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(3):
                self.wfile.write(b"5\r\nhello\r\n")
                time.sleep(0.05)
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/close":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"until the end " * 200)
            self.close_connection = True
        else:
            self.answer(200, b"hello\n", [("Content-Type", "text/plain")])


ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
