"""A gRPC server and its client, without generated code: every message is a plain string of octets.

  grpcpeer.py serve PORT [name=value…]          channel arguments, e.g. grpc.max_connection_age_ms=1000
  grpcpeer.py call HOST:PORT [name=value…] STEP…

Methods of /shop.Cart/: Add (answers), Down (UNAVAILABLE), Slow (answers after 30 s), Crash (the handler raises), NotFound, Deny
(UNAUTHENTICATED), Busy (RESOURCE_EXHAUSTED); Watch (a stream: one message after 0.5 s, then every 0.5 s). Others are UNIMPLEMENTED.
Steps of a client: METHOD[:TIMEOUT]   /SERVICE/METHOD   watch:SECONDS (cancels then)   sleep:SECONDS"""
import sys
import time
from concurrent import futures

import grpc

NAME = "/shop.Cart/"


def end(code, words):
    def handler(request, context):
        context.abort(code, words)

    return handler


def crash(request, context):
    raise ValueError("no such item")


def slow(request, context):
    for _ in range(300):
        if not context.is_active():
            break
        time.sleep(0.1)
    return b"late"


def watch(request, context):
    while context.is_active():
        time.sleep(0.5)
        yield b"changed"


UNARY = {
    "Add": lambda request, context: b"added " + request,
    "Down": end(grpc.StatusCode.UNAVAILABLE, "no backend for shop.Stock"),
    "Slow": slow,
    "Crash": crash,
    "NotFound": end(grpc.StatusCode.NOT_FOUND, "no such cart"),
    "Deny": end(grpc.StatusCode.UNAUTHENTICATED, "token expired"),
    "Busy": end(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota of the tenant is used up"),
}


class Service(grpc.GenericRpcHandler):
    def service(self, call):
        method = call.method.removeprefix(NAME)
        if method == "Watch":
            return grpc.unary_stream_rpc_method_handler(watch)
        if call.method.startswith(NAME) and method in UNARY:
            return grpc.unary_unary_rpc_method_handler(UNARY[method])
        return None


def options(words):
    pairs = (word.split("=", 1) for word in words)
    return [(name, int(value) if value.isdigit() else value) for name, value in pairs]


def serve(port, words):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=options(words))
    server.add_generic_rpc_handlers((Service(),))
    server.add_insecure_port("0.0.0.0:" + port)
    server.start()
    server.wait_for_termination()


def call(target, words):
    given = [word for word in words if "=" in word]
    with grpc.insecure_channel(target, options=options(given + ["grpc.enable_http_proxy=0"])) as channel:
        for step in (word for word in words if "=" not in word):
            name, _, value = step.partition(":")
            if name == "sleep":
                time.sleep(float(value))
            elif name == "watch":
                stream = channel.unary_stream(NAME + "Watch")(b"cart 7")
                try:
                    deadline = time.time() + float(value)
                    for _ in stream:
                        if time.time() > deadline:
                            break
                    stream.cancel()
                except grpc.RpcError as error:
                    print(step, error.code(), error.details())
            else:
                method = name if name.startswith("/") else NAME + name
                try:
                    print(step, channel.unary_unary(method)(b"7", timeout=float(value) if value else 10))
                except grpc.RpcError as error:
                    print(step, error.code(), error.details())
        time.sleep(0.2)


if sys.argv[1] == "serve":
    serve(sys.argv[2], sys.argv[3:])
else:
    call(sys.argv[2], sys.argv[3:])
