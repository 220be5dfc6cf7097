"""A proxy before Redis: new connections go to the server that it is told, and existing ones can fall silent."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

CHUNK_BYTES = 1 << 16


@dataclass(eq=False, slots=True)
class _Link:
    """One connection of a client, with the one to the server."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    is_silent: bool = False


@dataclass(slots=True)
class RedisProxy:
    """Listens on loopback and leads new connections to the server at `target`, a URL of `unix://` or `redis://`."""

    target: str
    port: int = 0
    _links: set[_Link] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def connections(self) -> int:
        """The connections that are open and not silent."""
        return sum(not link.is_silent for link in self._links)

    def swallow(self) -> None:
        """From now on the connections that exist stay open, and nothing goes through them any more."""
        for link in self._links:
            link.is_silent = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until one side ends it."""
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            writer.close()
            return
        link = _Link((writer, server_writer))
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link, reader, server_writer))
                pumps.create_task(self._pump(link, server_reader, writer))
        finally:
            self._links.discard(link)
            for each in link.writers:
                each.close()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if not link.is_silent:
                    writer.write(data)
                    await writer.drain()
        # One side has ended: the other one shall know, and its pump ends.
        for each in link.writers:
            each.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self.target)
        if parts.scheme == "unix":
            return await asyncio.open_unix_connection(unquote(parts.path))
        return await asyncio.open_connection(parts.hostname, parts.port)


@asynccontextmanager
async def redis_proxy(target: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[RedisProxy]:
    """Run a proxy for the length of the block; with `tls` its clients must encrypt."""
    proxy = RedisProxy(target)
    open_: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        open_.add(task)
        task.add_done_callback(open_.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(open_):
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)
