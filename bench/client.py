"""An HTTP client that costs little: it shares the two cores with what it measures. For one server on loopback."""

import asyncio
from dataclasses import dataclass
from typing import cast

import httptools


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    has_retry_after: bool
    body: bytes


class Client:
    """POSTs to one address over at most `connections` kept connections; who finds none free waits for one."""

    def __init__(self, host: str, port: int, path: str, headers: dict[str, str], *, connections: int) -> None:
        self._address = host, port
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {host}:{port}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self._head = "\r\n".join([*lines, "Content-Length: "]).encode()
        self._turns = asyncio.Semaphore(connections)
        self._idle: list[_Line] = []

    async def post(self, body: bytes, *, timeout_s: float) -> Answer:
        """The answer. Raises OSError if the connection cannot be made or breaks, TimeoutError."""
        async with asyncio.timeout(timeout_s), self._turns:
            line = self._idle.pop() if self._idle else await self._connect()
            try:
                answer = await line.ask(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
            except BaseException:
                line.close()  # what comes on it now would be taken for the next answer
                raise
            if line.is_open:
                self._idle.append(line)
            return answer

    def close(self) -> None:
        """Close what is idle."""
        for line in self._idle:
            line.close()

    async def _connect(self) -> "_Line":
        _transport, line = await asyncio.get_running_loop().create_connection(_Line, *self._address)
        return line


class _Line(asyncio.Protocol):
    """One connection, with one request on it at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None

    @property
    def is_open(self) -> bool:
        """It can take another request."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a whole request; its answer."""
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
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by descent

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
