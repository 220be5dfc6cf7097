"""One service of the platform as a client: bounded connections, time and bodies, and a breaker in front of it.

It says what came back and never what that means. Tokens go out in headers and into no log.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

import orjson
import structlog
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

from shared import metrics
from shared.breaker import Breaker
from shared.errors import NeighbourUnreachable

log = structlog.get_logger(__name__)

BODY_BYTES_MAX = 1024 * 1024  # of an answer: an order with a thousand items is a quarter of it
WAITING_PER_CONNECTION_MAX = 50  # callers that wait for a connection; beyond it they are told at once
KEEPALIVE_S = 4.0  # below uvicorn's 5 s: we hang up first, and never write into a connection that is being closed
GONE_STATUSES = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


@dataclass(frozen=True, slots=True)
class Reply:
    """What a neighbour answered."""

    status: int
    body: bytes = field(repr=False)


class Neighbour:
    """A service at `url`, to be used as an async context manager: its connections are open within the block.

    `timeout_s` is for one whole exchange, and once more for the wait for a free connection.
    """

    def __init__(
        self, name: str, url: str, *, timeout_s: float, connections_max: int, breaker: Breaker | None = None
    ) -> None:
        self.name = name
        self._url = url
        self._timeout_s = timeout_s
        self._connections = asyncio.Semaphore(connections_max)
        self._connections_max = connections_max
        self._waiting = 0
        self._breaker = breaker
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open a pool of connections; connects to nothing yet."""
        self._session = ClientSession(
            connector=TCPConnector(limit=self._connections_max, keepalive_timeout=KEEPALIVE_S),
            timeout=ClientTimeout(total=None),  # ours is around everything
            headers={"accept": "application/json", "user-agent": "payments"},
            cookie_jar=DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        content: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
    ) -> Reply:
        """The answer to one request, whatever its status but 502-504; `path` is sent as it is.

        Raises NeighbourUnreachable if there is no answer in time, or none at all, or no connection to ask with. Then
        nobody knows whether the request was done.
        """
        headers = {} if content is None else {"content-type": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        if correlation_id is not None:
            headers["x-correlation-id"] = correlation_id
        body = None if content is None else orjson.dumps(content)
        if self._breaker is None:
            async with self._connection():
                return await self._exchange(method, path, headers, body)
        self._breaker.check()
        async with self._connection():
            with self._breaker.guard():
                return await self._exchange(method, path, headers, body)

    async def is_healthy(self) -> bool:
        """It answers 200 on /health and calls itself healthy."""
        try:
            reply = await self.ask("GET", "/health")
        except NeighbourUnreachable:
            return False
        said = parsed(reply.body)
        return reply.status == HTTPStatus.OK and isinstance(said, dict) and said.get("status") == "healthy"

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[None]:
        """One of the connections; waiting in vain for one is no failure of the neighbour's."""
        if self._connections.locked() and self._waiting >= self._connections_max * WAITING_PER_CONNECTION_MAX:
            raise NeighbourUnreachable(f"{self.name}: too many requests wait for it")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connections.acquire()
        except TimeoutError:
            raise NeighbourUnreachable(f"{self.name}: all connections are in use") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._connections.release()

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        if self._session is None:
            raise NeighbourUnreachable(f"{self.name}: the client is closed")
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.request(
                    method, URL(f"{self._url}{path}", encoded=True), data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                reply = Reply(response.status, await self._read(response))
        except (ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise self._unreachable(type(error).__name__) from error
        metrics.neighbour_requests.labels(self.name, str(reply.status)).inc()
        if reply.status in GONE_STATUSES:
            log.warning("neighbour.unreachable", neighbour=self.name, status=reply.status)
            raise NeighbourUnreachable(f"{self.name}: it answered {reply.status}")
        return reply

    async def _read(self, response: ClientResponse) -> bytes:
        body = bytearray()
        while part := await response.content.read(BODY_BYTES_MAX):
            body += part
            if len(body) > BODY_BYTES_MAX:
                response.close()
                raise ValueError("the answer is too long")
        return bytes(body)

    def _unreachable(self, why: str) -> NeighbourUnreachable:
        metrics.neighbour_requests.labels(self.name, "none").inc()
        log.warning("neighbour.unreachable", neighbour=self.name, error=why)
        return NeighbourUnreachable(f"{self.name}: {why}")


def parsed(body: bytes) -> Any:
    """The JSON in `body`; None if it is none. Not for money: numbers with a fraction become floats."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
