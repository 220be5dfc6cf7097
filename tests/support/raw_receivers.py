"""Receivers that answer byte by byte what a test says, over real sockets on loopback."""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One request as it came: over which connection (from 0), its target and all its bytes."""

    connection: int
    target: bytes
    head: bytes
    body: bytes


type Script = Callable[[RawRequest, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class RawReceiver:
    """A running receiver. Each request takes the next entry of the script; the last one stays."""

    script: list[Script]
    port: int = 0
    requests: list[RawRequest] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = CONTENT_LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                request = RawRequest(number, head.split(b" ", 2)[1], head, body)
                self.requests.append(request)
                await (self.script.pop(0) if len(self.script) > 1 else self.script[0])(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw_receiver(*script: Script) -> AsyncIterator[RawReceiver]:
    """A receiver with this script until the block ends."""
    running = RawReceiver(list(script))
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(running.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1024 * 1024, backlog=1000)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def saying(*parts: bytes, pause_s: float = 0.05) -> Script:
    """Write the parts, with pauses between them."""

    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(pause_s)
            writer.write(part)
            await writer.drain()

    return answer


def saying_and_closing(*parts: bytes) -> Script:
    """Write the parts and end the connection."""
    say = saying(*parts)

    async def answer(request: RawRequest, writer: asyncio.StreamWriter) -> None:
        await say(request, writer)
        writer.close()

    return answer


def dripping(head: bytes, part: bytes, *, pause_s: float) -> Script:
    """Write the head, and the part again and again until the other side has had enough."""

    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


def resetting() -> Script:
    """Reset the connection (RST) without an answer."""

    async def answer(_request: RawRequest, writer: asyncio.StreamWriter) -> None:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        raise ConnectionResetError

    return answer
