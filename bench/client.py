"""An HTTP client for one server on loopback. It must use little processor time, as it shares the service's cores."""

import asyncio
from dataclasses import dataclass
from typing import cast

import httptools


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: int
    has_retry_after: bool
    body: bytes


class Client:
    """A client that POSTs to `path`, or below it, over at most `connections` kept-alive connections.

    A request waits until a connection is free.
    """

    def __init__(self, host: str, port: int, path: str, headers: dict[str, str], *, connections: int) -> None:
        self._address = host, port
        self._path = path
        lines = [f"Host: {host}:{port}", *(f"{name}: {value}" for name, value in headers.items())]
        self._head = "\r\n".join(["", *lines, "Content-Length: "]).encode()
        self._free_connections = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []

    async def post(self, body: bytes, *, below: str = "", timeout_s: float) -> Answer:
        """Send a request to the path and what is `below` it, and return the answer.

        Raises OSError if the connection cannot be made or breaks, and TimeoutError, also an OSError, after `timeout_s`
        seconds.
        """
        async with asyncio.timeout(timeout_s), self._free_connections:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                line = f"POST {self._path}{below} HTTP/1.1".encode()
                answer = await connection.request(b"%b%b%d\r\n\r\n%b" % (line, self._head, len(body), body))
            except BaseException:
                # The late answer to this request would be taken for that to the next one.
                connection.close()
                raise
            if connection.is_open:
                self._idle.append(connection)
            return answer

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.close()

    async def _connect(self) -> "_Connection":
        _transport, connection = await asyncio.get_running_loop().create_connection(_Connection, *self._address)
        return connection


class _Connection(asyncio.Protocol):
    """A connection with at most one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None

    @property
    def is_open(self) -> bool:
        """The connection can take another request."""
        return self._transport is not None and not self._transport.is_closing()

    def request(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a whole request and return a future of its answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._has_retry_after = False
        self._body: list[bytes] = []
        if self._transport is None or self._transport.is_closing():
            self._answer.set_exception(ConnectionResetError("closed while it was idle"))
        else:
            self._transport.write(request)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The transport of uvloop is not a subclass of asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed without an answer"))

    def on_header(self, name: bytes, _value: bytes) -> None:
        self._has_retry_after |= name.lower() == b"retry-after"

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        assert self._answer is not None  # noqa: S101 - nothing comes without a request
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
        if not self._answer.done():
            answer = Answer(self._parser.get_status_code(), self._has_retry_after, b"".join(self._body))
            self._answer.set_result(answer)
