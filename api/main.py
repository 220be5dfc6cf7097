"""Puts the API together and serves it. What it needs comes from a runtime; signals are the business of `cli`."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import structlog
import uvicorn
from fastapi import FastAPI

from api import errors, openapi
from api.middleware import Envelope
from api.rate_limits import RateLimited
from api.routes import (
    callback_secret,
    health,
    payment_methods,
    payments,
    stats,
    verify,
    webhook_deliveries,
    webhook_endpoints,
)
from api.state import Api
from shared.errors import ConfigurationError
from shared.runtime import Runtime
from shared.version import VERSION

log = structlog.get_logger(__name__)

PREFIX = "/api/v1"
PLATFORM_PREFIX = "/api"
BACKLOG = 2048  # connections that the kernel holds while we are busy
KEEP_ALIVE_S = 75  # longer than clients and proxies keep idle connections: they close first, and no request is lost
DOORS = 16  # uvloop takes one connection from each in a round of its loop, which in a flood takes long
DRAIN_S = 10  # what an open request may still take at shutdown

DESCRIPTION = """A simulated payment processor: it behaves like the real thing and moves no money.

An intent is accepted at once (202) and processed by a worker; poll it, hold the answer with `Prefer: wait=N`, or be
called back. Amounts are integers in minor units. Every error is a problem document (RFC 9457) with a stable `code`.
Every POST may carry an `Idempotency-Key`: repeat it with the same key, and it is done once.
"""


def create_app(api: Api) -> FastAPI:
    """The ASGI application over the parts in `api`, which must be running to answer."""
    app = FastAPI(
        title="Payment service",
        version=VERSION,
        description=DESCRIPTION,
        redirect_slashes=False,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # /metrics has them; looking for providers costs
    )
    app.state.api = api
    app.state.doorkeeper = api.doorkeeper
    app.include_router(health.router)
    app.include_router(payment_methods.router, prefix=f"{PREFIX}/payment-methods")
    for noun in (payments, webhook_endpoints, webhook_deliveries, callback_secret, stats, verify):
        app.include_router(noun.router, prefix=PREFIX)
    # The platform's gateway forwards /api/payments/* as it came. Methods first: "methods" is no payment's id.
    app.include_router(payment_methods.router, prefix=f"{PLATFORM_PREFIX}/payments/methods")
    app.include_router(payments.router, prefix=PLATFORM_PREFIX)
    errors.install(app)
    if api.rate_limits is not None:
        app.add_middleware(RateLimited, limits=api.rate_limits, doorkeeper=api.doorkeeper)
    app.add_middleware(Envelope, admission=api.admission)
    app.openapi = lambda: openapi.describe(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigurationError naming PORT if somebody else has it."""
    try:
        return socket.create_server((host, port), family=_family(host), backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"PORT: cannot listen on {host}:{port}: {error.strerror}") from error


def doors(listener: socket.socket) -> list[socket.socket]:
    """The same listener several times over: so many connections come in at once."""
    return [listener, *(listener.dup() for _ in range(DOORS - 1))]


async def serve(runtime: Runtime, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serve until `stop`, then finish open requests, commit and publish what is queued, and return."""
    api = Api(runtime)
    server = _Server(
        uvicorn.Config(
            create_app(api),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # uvicorn would believe X-Forwarded-For of whoever comes from loopback
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )
    async with api.running(), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=doors(listener)))
        stopping = tasks.create_task(_stop(api, server, stop))
        log.info("api.listening", address="{}:{}".format(*listener.getsockname()[:2]))
        await serving
        stopping.cancel()
    log.info("api.stopped")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would raise the signal again when it returns, before others drained."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _stop(api: Api, server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    api.waiting.drain()
    server.should_exit = True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
