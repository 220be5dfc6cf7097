"""Liveness, readiness and metrics of a worker, served on METRICS_PORT.

Liveness says whether the process should be replaced. Readiness says whether it can do its work, which another process
in its place could not do either while the database or Redis is away.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from shared import metrics
from shared.errors import ConfigurationError

type Check = Callable[[], Awaitable[bool]]


@contextlib.asynccontextmanager
async def serving_health(
    host: str, port: int, *, is_healthy: Callable[[], bool], checks: dict[str, Check]
) -> AsyncIterator[None]:
    """Serve /metrics, /health and /health/ready on `port` for the length of the block; nothing if it is 0.

    The worker is ready if every one of `checks` is true. Raises ConfigurationError if the port is in use.
    """
    if port == 0:
        yield
        return

    async def exposition(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def health(_request: web.Request) -> web.Response:
        healthy = is_healthy()
        return web.json_response({"healthy": healthy}, status=200 if healthy else 503)

    async def ready(_request: web.Request) -> web.Response:
        answers = dict(zip(checks, await asyncio.gather(*(check() for check in checks.values())), strict=True))
        words = {name: "ready" if answer else "not_ready" for name, answer in answers.items()}
        is_ready = all(answers.values())
        return web.json_response({"ready": is_ready, "checks": words}, status=200 if is_ready else 503)

    app = web.Application()
    app.add_routes([web.get("/metrics", exposition), web.get("/health", health), web.get("/health/ready", ready)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigurationError(f"METRICS_PORT: cannot listen on {host}:{port}: {error.strerror}") from error
        yield
    finally:
        await runner.cleanup()
