"""Requests whose answer is meant to take long, and connections that are kept: what a hang is easily taken for.

waits.py serve ADDRESS PORT SECONDS         GET /poll is answered after SECONDS; GET /events is a stream (text/event-stream) with one event at once and
                                            one every 2 * SECONDS; GET /socket is 101 Switching Protocols, then silence
waits.py poll ADDRESS PORT COUNT            COUNT long polls, one after the other
waits.py open ADDRESS PORT PATH SECONDS     one request, then reads for SECONDS
waits.py keep ADDRESS PORT COUNT SECONDS [IDLE]   COUNT connections: one request each, a pause of 3 s, another request each, then SECONDS of waiting.
                                            With IDLE: no second request, keep-alive probes after IDLE seconds, 3 of them, every second"""
import asyncio
import socket
import sys

kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
rest = sys.argv[4:]


def request(path):
    return f"GET {path} HTTP/1.1\r\nHost: events.example.com\r\nAccept: */*\r\n\r\n".encode()


async def serve(reader, writer):
    try:
        while True:
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            if path == b"/poll":
                await asyncio.sleep(float(rest[0]))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            elif path == b"/events":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\ndata: hello\n\n")
                while True:
                    await asyncio.sleep(2 * float(rest[0]))
                    writer.write(b"data: again\n\n")
            elif path == b"/socket":
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
                await reader.read()
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def talk():
    reader, writer = await asyncio.open_connection(address, port)
    if kind == "poll":
        for _ in range(int(rest[0])):
            writer.write(request("/poll"))
            await reader.readuntil(b"{}")
    else:
        writer.write(request(rest[0]))
        try:
            while await asyncio.wait_for(reader.read(4096), float(rest[1])):
                pass
        except asyncio.TimeoutError:
            pass
    writer.close()


async def kept():
    reader, writer = await asyncio.open_connection(address, port)
    sock = writer.get_extra_info("socket")
    if len(rest) > 2:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, int(rest[2])), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3)):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    writer.write(request("/page"))
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(3)
    try:
        if len(rest) < 3:
            writer.write(request("/page"))
        await asyncio.wait_for(reader.read(4096), float(rest[1]))
        await asyncio.wait_for(reader.read(4096), float(rest[1]))
    except (asyncio.TimeoutError, OSError):
        pass
    writer.close()


async def main():
    if kind == "serve":
        async with await asyncio.start_server(serve, address, port) as server:
            await server.serve_forever()
    elif kind == "keep":
        await asyncio.gather(*(kept() for _ in range(int(rest[0]))))
    else:
        await talk()


asyncio.run(main())
