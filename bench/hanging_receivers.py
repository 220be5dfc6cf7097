"""Receivers of webhooks for the measures of shares, in their own process: quick ones, slow ones, and ones that hang.

It has a name server as well, which gives no answer for names below `slow.test`.
"""

import asyncio
import socket
import sys
from datetime import datetime
from time import time

import orjson
from aiohttp import web

from bench.name_server import open_name_server

# Seconds that a slow path takes.
SLOW_S = 10.0
# Loopback addresses on which nothing is ever answered: 127.0.1.1 and up.
HANGING_ADDRESSES = 200
HANGING_NETWORK = "127.0.1"
SILENT = ".slow.test"
BACKLOG = 2048


async def serve(quick_ports: list[int], hanging_port: int, name_port: int) -> None:
    """Serve until killed.

    A POST to a path that begins with `/slow` takes SLOW_S seconds, any other is answered at once. `GET /delays` on the
    first port returns the seconds from the end of a payment to its webhook on `/quick`, and forgets them;
    `GET /arrivals` the same with the Unix times of all webhooks that were answered at once.
    """
    delays: list[float] = []
    arrivals: list[float] = []

    async def hook(request: web.Request) -> web.Response:
        body = await request.read()
        if request.path.startswith("/slow"):
            await asyncio.sleep(SLOW_S)
        else:
            now = time()
            arrivals.append(now)
            if request.path.startswith("/quick"):
                ended_at = datetime.fromisoformat(orjson.loads(body)["data"]["payment"]["processed_at"])
                delays.append(now - ended_at.timestamp())
        return web.Response(status=204)

    def taking(values: list[float]) -> web.Response:
        answer = web.Response(body=orjson.dumps(values))
        values.clear()
        return answer

    async def take_delays(_request: web.Request) -> web.Response:
        return taking(delays)

    async def take_arrivals(_request: web.Request) -> web.Response:
        return taking(arrivals)

    app = web.Application()
    app.add_routes([web.get("/delays", take_delays), web.get("/arrivals", take_arrivals), web.post("/{path:.*}", hook)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for port in quick_ports:
        await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
    # These sockets are never read: the kernel takes the connections, and nobody answers.
    hanging = [
        socket.create_server((f"{HANGING_NETWORK}.{number}", hanging_port), backlog=BACKLOG)
        for number in range(1, HANGING_ADDRESSES + 1)
    ]
    transport, _ = await open_name_server(SILENT, name_port)
    try:
        await asyncio.Event().wait()
    finally:
        transport.close()
        for listener in hanging:
            listener.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(*orjson.loads(sys.argv[1])))
