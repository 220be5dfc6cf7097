"""The receiver: a process of its own that takes webhooks, notes when each came, and serves its notes to the bench."""

import asyncio
import sys
from time import time

import orjson
from aiohttp import web

NOTES_MAX = 1_000_000


async def serve(port: int) -> None:
    """Serve until killed: `POST /hook` takes a delivery, `GET /notes` answers what came since the last time."""
    notes: dict[str, float] = {}

    async def hook(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if len(notes) < NOTES_MAX:
            notes[body["data"]["payment"]["id"]] = time()
        return web.Response(status=204)

    async def tell(_request: web.Request) -> web.Response:
        told = orjson.dumps(notes)
        notes.clear()
        return web.Response(body=told)

    async def count(_request: web.Request) -> web.Response:
        return web.Response(text=str(len(notes)))

    app = web.Application()
    app.add_routes([web.post("/hook", hook), web.get("/notes", tell), web.get("/count", count)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1])))
