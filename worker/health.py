"""What a worker serves on METRICS_PORT: its metrics, whether it is alive, and whether it can work."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from shared import metrics
from shared.database.health import database_answers
from shared.errors import ConfigurationError
from shared.runtime import Runtime


@contextlib.asynccontextmanager
async def serving_health(runtime: Runtime, is_healthy: Callable[[], bool]) -> AsyncIterator[None]:
    """Serve /metrics, /health and /health/ready on METRICS_PORT for the length of the block, if the port is set.

    Raises ConfigurationError if the port is in use.
    """
    host, port = runtime.settings.host, runtime.settings.metrics_port
    if port == 0:
        yield
        return

    async def exposition(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def health(_request: web.Request) -> web.Response:
        healthy = is_healthy()
        return web.json_response({"healthy": healthy}, status=200 if healthy else 503)

    async def ready(_request: web.Request) -> web.Response:
        database, redis = await asyncio.gather(database_answers(runtime.database), runtime.broker.ping())
        checks = {"database": _readiness(is_ready=database), "redis": _readiness(is_ready=redis)}
        can_work = database and redis
        return web.json_response({"ready": can_work, "checks": checks}, status=200 if can_work else 503)

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


def _readiness(*, is_ready: bool) -> str:
    return "ready" if is_ready else "not_ready"
