"""A client of one service of the platform, with bounded connections, time and bodies, and a circuit breaker.

It returns what the service answered and never decides what that means. Tokens go into headers and never into a log.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

import orjson
import structlog
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, ThreadedResolver
from yarl import URL

from shared import metrics
from shared.errors import UpstreamUnavailable
from shared.upstream.breaker import Breaker
from shared.upstream.connections import StrictConnector

log = structlog.get_logger(__name__)

# Bytes of the longest answer that is read: four times an order with a thousand items.
BODY_BYTES_MAX = 1024 * 1024
# Callers that may wait, per connection. Beyond that number a caller gets UpstreamUnavailable at once.
WAITING_PER_CONNECTION_MAX = 50
# Seconds that an idle connection is kept: less than uvicorn's 5 s, so that no request is written into a connection that
# the service is closing.
KEEPALIVE_S = 4.0
# With these statuses a proxy, or the service itself, says that it has no answer.
UNAVAILABLE_STATUSES = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a service."""

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedBody:
    """A JSON body whose very bytes are signed, and the headers with the signature."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


class UpstreamClient:
    """A client of the service at `url`. As an async context manager it has its connections open within the block.

    One whole exchange may take `timeout_s` seconds, and the wait for a free connection as long again.
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
        """Open the pool of connections, which connects to nothing yet."""
        self._session = ClientSession(
            # The system's resolver, and not the one of deliveries, for which aiohttp has a shared default.
            connector=StrictConnector(
                limit=self._connections_max, keepalive_timeout=KEEPALIVE_S, resolver=ThreadedResolver()
            ),
            # `_exchange` limits the whole exchange.
            timeout=ClientTimeout(total=None),
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
        signed: SignedBody | None = None,
    ) -> Reply:
        """Send one request. Return its answer, whatever the status except 502 to 504; `path` is sent unchanged.

        The body is `content` as JSON, or exactly the bytes of `signed`, with its headers.
        Raises UpstreamUnavailable if there is no such answer in time, if no connection becomes free in time, or if the
        breaker is open. The service may have carried out a request without an answer.
        """
        if signed is None and content is not None:
            signed = SignedBody(orjson.dumps(content), {})
        body = None if signed is None else signed.body
        headers = {} if signed is None else {**signed.headers, "content-type": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        if correlation_id is not None:
            headers["x-correlation-id"] = correlation_id
        if self._breaker is None:
            async with self._connection():
                return await self._exchange(method, path, headers, body)
        self._breaker.check()
        async with self._connection():
            with self._breaker.guard():
                return await self._exchange(method, path, headers, body)

    async def is_healthy(self) -> bool:
        """Return whether the service answers 200 on `/health` and calls itself healthy."""
        try:
            reply = await self.ask("GET", "/health")
        except UpstreamUnavailable:
            return False
        health = parse_json(reply.body)
        return reply.status == HTTPStatus.OK and isinstance(health, dict) and health.get("status") == "healthy"

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[None]:
        """Hold one of the connections for the block.

        A timeout of this wait does not count as a failure of the service.
        """
        if self._connections.locked() and self._waiting >= self._connections_max * WAITING_PER_CONNECTION_MAX:
            raise UpstreamUnavailable(f"{self.name}: too many requests wait for it")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connections.acquire()
        except TimeoutError:
            raise UpstreamUnavailable(f"{self.name}: all connections are in use") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._connections.release()

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        if self._session is None:
            raise UpstreamUnavailable(f"{self.name}: the client is closed")
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
        metrics.upstream_requests.labels(self.name, str(reply.status)).inc()
        if reply.status in UNAVAILABLE_STATUSES:
            log.warning("upstream.unreachable", upstream=self.name, status=reply.status)
            raise UpstreamUnavailable(f"{self.name}: it answered {reply.status}")
        return reply

    async def _read(self, response: ClientResponse) -> bytes:
        body = bytearray()
        while part := await response.content.read(BODY_BYTES_MAX):
            body += part
            if len(body) > BODY_BYTES_MAX:
                response.close()
                raise ValueError(f"The answer is longer than {BODY_BYTES_MAX} bytes.")
        return bytes(body)

    def _unreachable(self, why: str) -> UpstreamUnavailable:
        metrics.upstream_requests.labels(self.name, "none").inc()
        log.warning("upstream.unreachable", upstream=self.name, error=why)
        return UpstreamUnavailable(f"{self.name}: {why}")


def parse_json(body: bytes) -> Any:
    """Return the JSON in `body`; None if it is not JSON. Not for money: numbers with a fraction become floats."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
