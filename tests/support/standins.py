"""Stand-ins for the platform's services: real HTTP servers on loopback, with troubles on demand.

Each can be taken down, slowed, made sick or made to lose an answer, and remembers every request.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jwt
from aiohttp import web

from tests.support.servers import free_port


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in."""

    method: str
    path: str  # as it was sent, still encoded
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def claims(self) -> dict[str, Any]:
        """What the token says, unverified."""
        claims: dict[str, Any] = jwt.decode(self.token, options={"verify_signature": False})
        return claims


@dataclass(slots=True)
class Standin:
    """A server on one port of loopback, up from the beginning of its block to the end, with troubles on demand."""

    port: int = field(default_factory=free_port)
    requests: list[Received] = field(default_factory=list)
    failing: int | None = None  # the status that a proxy before it answers everything with
    is_sick: bool = False  # /health says so
    held: asyncio.Event | None = None  # no answer leaves before it is set
    delay_s: float = 0  # before every answer
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str, path: str = "") -> list[Received]:
        """The requests with this method and the beginning of this path."""
        return [each for each in self.requests if each.method == method and each.path.startswith(path)]

    async def up(self) -> None:
        """Listen."""
        app = web.Application(middlewares=[self._observed])
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def down(self) -> None:
        """Refuse connections, and drop those that are open."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [web.get("/health", self.health)]

    async def health(self, _request: web.Request) -> web.Response:
        status = "unhealthy" if self.is_sick else "healthy"
        said = {"status": status, "timestamp": datetime.now(UTC).isoformat(), "database": "connected"}
        return web.json_response(said, status=503 if self.is_sick else 200)

    @web.middleware
    async def _observed(self, request: web.Request, handler: Any) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Received(request.method, request.raw_path, headers, await request.read()))
        if self.held is not None:
            await self.held.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.failing is not None:
            return web.Response(status=self.failing, text="<html>bad gateway</html>", content_type="text/html")
        answer: web.StreamResponse = await handler(request)
        if "x-correlation-id" in headers:
            answer.headers["x-correlation-id"] = headers["x-correlation-id"]
        return answer


@asynccontextmanager
async def running[S: Standin](standin: S) -> AsyncIterator[S]:
    """The stand-in, up until the block ends."""
    await standin.up()
    try:
        yield standin
    finally:
        if standin.held is not None:
            standin.held.set()
        await standin.down()


def bearer_of(request: web.Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")
