"""An HTTP server that accepts and acknowledges everything, but answers only while fewer than LIMIT requests are open.

hungcrl.py ADDRESS PORT LIMIT [DELAY]      DELAY: seconds until an answer, 0.04 without it. A request that came as number LIMIT + 1 is never answered;
it counts as open until the other side closes."""
import asyncio
import sys

address, port, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
delay = float(sys.argv[4]) if len(sys.argv) > 4 else 0.04
body = bytes(range(256)) * 3
answer = b"HTTP/1.1 200 OK\r\nServer: crl\r\nContent-Type: application/pkix-crl\r\nContent-Length: %d\r\n\r\n" % len(body) + body
active = 0


async def serve(reader, writer):
    global active
    try:
        while True:
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            hangs = active >= limit
            active += 1
            try:
                if hangs:
                    await reader.read()
                    return
                await asyncio.sleep(delay)
            finally:
                active -= 1
            writer.write(answer)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main():
    async with await asyncio.start_server(serve, address, port, backlog=256) as server:
        await server.serve_forever()


asyncio.run(main())
