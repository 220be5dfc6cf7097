"""The API process: builds the ASGI application over the parts of the API, and serves it.

It installs no signal handlers: `cli` does that, and asks for the end through an event.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from api import problem_handlers
from api.approval.pages import problem_page as approval_problem
from api.dashboard import routes as dashboard
from api.dashboard.problem_pages import problem_page as dashboard_problem
from api.edge.arrival import ArrivalMemory
from api.edge.connection_limits import WRITE_TIMEOUT_S, ConnectionLimits, connections_max
from api.edge.cors import CorsHeadersMiddleware, PreflightMiddleware
from api.edge.front import Front
from api.edge.middleware import RequestContextMiddleware
from api.edge.problem_pages import ProblemPages, ProblemPagesMiddleware
from api.edge.rate_limits import RateLimitMiddleware
from api.edge.refusals import RefusalMiddleware
from api.edge.signed_notifications import SignedNotificationMiddleware
from api.openapi.document import describe, operation_id
from api.paths import APPROVAL_PATHS, DASHBOARD
from api.route_table import all_routes
from api.state import Api
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.open_files import open_files_max
from shared.runtime import Runtime
from shared.version import VERSION

log = structlog.get_logger(__name__)

# Connections that the kernel queues while the event loop is busy.
BACKLOG = 2048
# Seconds; longer than clients and proxies keep idle connections. They close first, so no request is sent into a
# connection that this process is closing.
KEEP_ALIVE_S = 75
# Seconds that open requests may still take at shutdown.
DRAIN_S = 10

DESCRIPTION = """A simulated payment processor. It behaves like a real one and moves no money.

A payment intent is accepted at once (202) and processed by a worker afterwards. To learn its outcome, poll the payment,
hold the answer with `Prefer: wait=N`, or receive a webhook. Amounts are integers in minor units of their currency.
Every error is a problem document (RFC 9457) with a stable `code`. Every POST may carry an `Idempotency-Key`: a request
that is repeated with the same key is done only once.
"""

# In the order in which a newcomer reads them.
TAGS = [
    {"name": "payments", "description": "Pay for an order, and learn how the payment ends."},
    {"name": "refunds", "description": "Pay money back, and learn how that ends."},
    {"name": "payment methods", "description": "Cards and PayPal accounts of a user, and ready-made ones for tests."},
    {"name": "webhooks", "description": "Receive what happens to payments, and see what was sent."},
    {"name": "gateway notifications", "description": "For the gateways: report what was settled late."},
    {"name": "events", "description": "What is sent to webhook endpoints and callback URLs."},
    {"name": "api keys", "description": "Credentials of services and admins that need no auth service."},
    {"name": "simulation", "description": "Decide what the simulated gateway does, and what time it is."},
    {"name": "operation", "description": "For those who run the service."},
]


def create_app(api: Api) -> FastAPI:
    """Build the ASGI application over the parts in `api`, which must be running before the first request."""
    settings = api.runtime.settings
    app = FastAPI(
        title="Payment service",
        version=VERSION,
        description=DESCRIPTION,
        generate_unique_id_function=operation_id,
        redirect_slashes=False,
        openapi_tags=TAGS,
        # `api.routes.docs` has the document and a page for it.
        openapi_url=None,
        servers=_servers(settings),
        # /metrics has these figures already, and looking for OpenTelemetry providers costs time.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        routes=all_routes(has_dashboard=settings.is_dashboard_on),
    )
    app.state.api = api
    app.state.openapi_json = None
    if settings.is_dashboard_on:
        app.state.dashboard = dashboard.open_dashboard(api)
    problem_handlers.install(app)
    # What is added last is called first.
    app.add_middleware(RefusalMiddleware)
    if api.rate_limits is not None:
        app.add_middleware(RateLimitMiddleware, limits=api.rate_limits, authenticator=api.authenticator)
    app.add_middleware(SignedNotificationMiddleware, keyring=api.runtime.keyring)
    origins = frozenset(settings.cors_origins)
    if origins:
        app.add_middleware(PreflightMiddleware, origins=origins)
    app.add_middleware(
        RequestContextMiddleware,
        admission=api.admission,
        is_stopping=lambda: api.is_stopping,
        root_path=settings.root_path or "",
    )
    for pages in _problem_pages(settings):
        app.add_middleware(ProblemPagesMiddleware, pages=pages)
    if origins:
        app.add_middleware(CorsHeadersMiddleware, origins=origins)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _problem_pages(settings: Settings) -> tuple[ProblemPages, ...]:
    """Return where a problem is answered with a page, by the application or by the protocol."""
    approvals = ProblemPages(APPROVAL_PATHS, approval_problem)
    if not settings.is_dashboard_on:
        return (approvals,)
    make_page = partial(dashboard_problem, root_path=settings.root_path or "")
    return approvals, ProblemPages((DASHBOARD, f"{DASHBOARD}/"), make_page)


def _servers(settings: Settings) -> list[dict[str, Any]]:
    """Return where clients reach the API. A path alone is below the host from which the document came."""
    if settings.public_url:
        return [{"url": settings.public_url}]
    servers = [{"url": settings.root_path or "/"}]
    # For clients that are generated from a copy of the document.
    return [*servers, {"url": settings.link_base}] if settings.link_base and not settings.root_path else servers


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigurationError, which names PORT, if the address cannot be used."""
    try:
        return socket.create_server((host, port), family=_family(host), backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"PORT: cannot listen on {host}:{port}: {error.strerror}") from error


async def serve(
    runtime: Runtime, listener: socket.socket, stop: asyncio.Event, *, write_timeout_s: float = WRITE_TIMEOUT_S
) -> None:
    """Serve until `stop` is set. Then finish open requests, commit and publish what is queued, and return.

    A client has `write_timeout_s` seconds to read a response that fills the buffers of its connection.
    """
    api = Api(runtime)
    limits = ConnectionLimits(
        request_timeout_s=runtime.settings.request_timeout_s,
        write_timeout_s=write_timeout_s,
        memory=ArrivalMemory(),
        connections_max=connections_max(open_files_max()),
        root_path=runtime.settings.root_path or "",
        has_rate_limits=api.rate_limits is not None,
        varies_by_origin=bool(runtime.settings.cors_origins),
        pages=_problem_pages(runtime.settings),
    )
    app = create_app(api)
    server = _Server(
        uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # Uvicorn would trust X-Forwarded-For from every peer on loopback, not from TRUSTED_PROXIES.
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        ),
        listener,
        limits,
    )
    async with api.running(), asyncio.TaskGroup() as tasks:
        server_task = tasks.create_task(server.serve())
        stop_task = tasks.create_task(_stop(app, server, stop))
        log.info("api.listening", address="{}:{}".format(*listener.getsockname()[:2]))
        await server_task
        stop_task.cancel()
    log.info("api.stopped")


class _Server(uvicorn.Server):
    """A uvicorn server that gets its connections from a `Front`."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, limits: ConnectionLimits) -> None:
        super().__init__(config)
        self._listener = listener
        self._limits = limits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Start the application, and let connections in."""
        await super().startup(sockets=[])
        Front(
            self._listener,
            self._limits,
            config=self.config,
            state=self.server_state,
            app_state=self.lifespan.state,
        ).open()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers.

        They would raise the signal again when the server returns, before the other parts of the process have drained.
        """
        yield


async def _stop(app: FastAPI, server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    api: Api = app.state.api
    api.is_stopping = True
    # Responses say from now on that their connection closes; then the ones that were held back are sent.
    for connection in list(server.server_state.connections):
        connection.shutdown()
    api.long_polls.cancel_all()
    if api.runtime.settings.is_dashboard_on:
        await app.state.dashboard.overview.close()
    server.should_exit = True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
