"""An application with faults: faultyapp.py PORT   serves HTTP/1.1 with Python's http.server.

  /crash raises (500)   /busy 503 with Retry-After   /form 400 of the application's own   /missing 404   /login 401
  /short breaks off a body of known length   /chunks breaks off a chunked one   /close is ended by the close   /fat 12 kB of fields
  anything else 200"""
import http.server
import json
import sys
import traceback


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "shop/1.4"
    sys_version = ""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self.route(self.path.split("?")[0])
        except KeyError:
            traceback.print_exc()
            self.answer(500, {"error": "internal error"})

    do_HEAD = do_POST = do_GET

    def route(self, path):
        if path == "/crash":
            self.answer(200, {"price": {}["price"]})
        elif path == "/busy":
            self.answer(503, {"error": "maintenance"}, ("Retry-After", "120"))
        elif path == "/form":
            self.answer(400, {"error": "quantity must be a number"})
        elif path == "/missing":
            self.answer(404, {"error": "no such article"})
        elif path == "/login":
            self.answer(401, {"error": "who are you?"}, ("WWW-Authenticate", "Basic"))
        elif path == "/fat":
            self.answer(200, {"ok": True}, ("Set-Cookie", "basket=" + "b" * 12000))
        elif path in ("/short", "/chunks", "/close"):
            self.broken_off(path)
        else:
            self.answer(200, {"ok": True})

    def broken_off(self, path):
        self.send_response(200)
        if path == "/short":
            self.send_header("Content-Length", "50000")
        elif path == "/chunks":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            body = b"x" * 9000
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) if path == "/chunks" else body)
        self.close_connection = True

    def answer(self, status, document, *fields):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


http.server.ThreadingHTTPServer(("", int(sys.argv[1])), App).serve_forever()
