"""The receiver of webhooks, in its own process: it notes when each one came, and the benchmark reads its notes."""

import asyncio
import sys
from time import time

import orjson
from aiohttp import web

NOTES_MAX = 1_000_000


async def serve(port: int) -> None:
    """Serve on `port` until killed.

    `POST /hook` takes a delivery. `GET /notes` returns the Unix time of the last webhook of each payment, and clears
    the notes. `GET /count` returns the number of payments in the notes.
    """
    notes: dict[str, float] = {}

    async def hook(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        if len(notes) < NOTES_MAX:
            notes[body["data"]["payment"]["id"]] = time()
        return web.Response(status=204)

    async def take_notes(_request: web.Request) -> web.Response:
        body = orjson.dumps(notes)
        notes.clear()
        return web.Response(body=body)

    async def count(_request: web.Request) -> web.Response:
        return web.Response(text=str(len(notes)))

    app = web.Application()
    app.add_routes([web.post("/hook", hook), web.get("/notes", take_notes), web.get("/count", count)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1])))
