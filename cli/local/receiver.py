"""A receiver of webhooks on a free port of loopback. It does not know what a delivery means: its caller does."""

from collections.abc import Awaitable, Callable
from typing import Self

from aiohttp import web

from cli.local.service import HOST

# Connections that wait in the kernel while the receiver is busy.
BACKLOG = 1024

type TakeDelivery = Callable[[web.Request], Awaitable[int]]
"""A function that takes one delivery and returns the HTTP status of the response."""


class WebhookReceiver:
    """An HTTP server that calls the function of the path for each POST. It runs for the length of its `async with`."""

    def __init__(self, take_by_path: dict[str, TakeDelivery]) -> None:
        self._take_by_path = take_by_path
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The URL that the receiver listens on, without a path. Raises RuntimeError outside of the `async with`."""
        if self._runner is None:
            raise RuntimeError("The receiver does not run. Enter it with `async with` first.")
        return f"http://{HOST}:{self._runner.addresses[0][1]}"

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.add_routes([web.post(path, _handler(take)) for path, take in self._take_by_path.items()])
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0, backlog=BACKLOG).start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


def _handler(take: TakeDelivery) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=await take(request))

    return handle
