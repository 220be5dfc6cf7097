"""Connections on which a test sends bytes of its choice, and the responses that come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools
import orjson

# Seconds; far more than a response takes.
ANSWER_S = 20.0


@dataclass
class RawResponse:
    """One response as it came."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code of its problem document."""
        assert self.header(b"content-type") == b"application/problem+json", self
        assert self.json["status"] == self.status
        assert self.header(b"x-correlation-id") == self.json["correlation_id"].encode()
        return str(self.json["code"])

    @property
    def closes(self) -> bool:
        return self.header(b"connection") == b"close"


class _Responses:
    """What the parser finds."""

    def __init__(self) -> None:
        self.complete: list[RawResponse] = []

    def on_message_begin(self) -> None:
        self._response = RawResponse()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._response.body += body

    def on_message_complete(self) -> None:
        self._response.status = self._parser.get_status_code()
        self.complete.append(self._response)

    def parse(self, data: bytes) -> list[RawResponse]:
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(data)
        return self.complete


class RawConnection:
    """A connection to the server at `url`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._received = b""

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def until_closed(self) -> list[RawResponse]:
        """Return all responses, once the server has closed the connection. What it received so far is parsed first."""
        async with asyncio.timeout(ANSWER_S):
            self._received += await self._reader.read(-1)
        return _Responses().parse(self._received)

    async def responses(self, count: int) -> list[RawResponse]:
        """Return the first `count` responses; the connection may stay open."""
        async with asyncio.timeout(ANSWER_S):
            while len(found := _Responses().parse(self._received)) < count:
                data = await self._reader.read(65_536)
                assert data, f"closed after {self._received!r}"
                self._received += data
        return found

    async def line(self) -> bytes:
        """Return the next line, which no response may contain."""
        async with asyncio.timeout(ANSWER_S):
            return await self._reader.readline()

    async def close(self) -> None:
        self._writer.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RawConnection]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()


async def sent(url: str, *packets: bytes, pause_s: float = 0.0) -> list[RawResponse]:
    """Send the packets and then a request that asks to close; return all responses but the one to that request.

    The last request shows that the server reads on, and ends the connection. It gets no response if the server has
    closed the connection before.
    """
    async with connected(url) as connection:
        for packet in packets:
            await connection.send(packet)
            await asyncio.sleep(pause_s)
        await connection.send(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        found = await connection.until_closed()
    return [response for response in found if response.header(b"content-type") != b"" and not _is_last(response)]


def _is_last(response: RawResponse) -> bool:
    return response.status == 404 and response.json.get("instance") == "/last"
