"""Takes the webhooks of a stack of our own and counts the payments they tell of; it verifies no signature.

`payments demo` verifies every one. Here a load is to be shown, and this process has to send it as well.
"""

from typing import Self

import orjson
from aiohttp import web

from cli.demo_stage import HOST
from cli.load_client import Api, Unusable

BACKLOG = 1024


class Sink:
    """A receiver of webhooks on a free port of loopback."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._runner: web.AppRunner | None = None
        self.is_registered = False

    def told(self) -> int:
        """Of how many payments it was told."""
        return len(self._told)

    def forget(self) -> None:
        """Begin to count anew."""
        self._told.clear()

    async def register(self, api: Api, token: str) -> None:
        """Have the end of every payment delivered here. Raises NoAnswer or Unusable."""
        if self._runner is None:
            raise RuntimeError("the sink does not run")
        content = {"name": "payments load", "url": f"http://{HOST}:{self._runner.addresses[0][1]}/"}
        answer = await api.ask("POST", "/api/v1/webhook-endpoints", token, content=content)
        if not answer.is_success:
            raise Unusable(f"the webhook endpoint was refused: {answer.words}")
        self.is_registered = True

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.add_routes([web.post("/", self._take)])
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0, backlog=BACKLOG).start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self._told.add(orjson.loads(await request.read())["data"]["payment"]["id"])
        return web.Response(status=204)
