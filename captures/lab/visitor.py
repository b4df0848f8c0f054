"""A visitor of the shop: from one address a keep-alive connection in the clear, a new one for each request in the clear, and one inside TLS.

visitor.py ADDRESS SECONDS"""
import http.client
import ssl
import sys
import threading
import time

address, until = sys.argv[1], time.monotonic() + float(sys.argv[2])
PATHS = ["/", "/api/cart", "/static/app.js"]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE


def connection(sealed):
    if sealed:
        return http.client.HTTPSConnection("203.0.113.1", 443, timeout=9, context=context, source_address=(address, 0))
    return http.client.HTTPConnection("203.0.113.1", 80, timeout=9, source_address=(address, 0))


def visit(sealed, keeps, pause):
    one, number = None, 0
    while time.monotonic() < until:
        try:
            one = one or connection(sealed)
            one.request("GET", PATHS[number % len(PATHS)], headers={"Host": "www.example.com", "User-Agent": "visitor"})
            one.getresponse().read()
        except (OSError, http.client.HTTPException):
            one.close()
            one = None
        if one and not keeps:
            one.close()
            one = None
        number += 1
        time.sleep(pause)


threads = [threading.Thread(target=visit, args=way) for way in [(False, True, 0.2), (False, False, 0.25), (True, False, 0.3)]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
