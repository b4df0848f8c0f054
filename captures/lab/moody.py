"""An HTTP/1.1 server whose mood stands in a file: well, hangs, fails, slow, resets, or asks (a database at 10.224.26.1:6379).

moody.py ADDRESS PORT FILE"""
import http.server
import socket
import struct
import sys
import time

address, port, mood_file = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open(mood_file) as file:
            mood = file.read().strip()
        if mood == "hangs":
            time.sleep(30)
        if mood == "slow":
            time.sleep(2.2)
        if mood == "resets":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if mood == "asks":
            try:
                socket.create_connection(("10.224.26.1", 6379), 2).close()
            except OSError:
                mood = "fails"
        body = b"hello\n" * 9
        self.send_response(500 if mood == "fails" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except (OSError, ValueError):
            pass

    def finish(self):
        try:
            super().finish()
        except (OSError, ValueError):
            pass


http.server.ThreadingHTTPServer.request_queue_size = 64
http.server.ThreadingHTTPServer((address, port), Handler).serve_forever()
