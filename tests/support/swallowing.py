"""A TCP proxy that can swallow: connections stay open, and what is sent on them is lost without a word."""

import asyncio
import contextlib
import threading
from typing import Self

START_TIMEOUT_S = 10


class SwallowingProxy:
    """Passes connections on to a port of loopback. It runs in a thread, so a busy test does not slow it down."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._swallowed: set[int] = set()
        self._open: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0

    @property
    def open_count(self) -> int:
        """Connections that are open and not swallowed."""
        return len(self._open - self._swallowed)

    def swallow(self) -> int:
        """From now on, lose everything on the connections that are open now. New ones are passed on."""
        self._swallowed |= self._open
        return len(self._open)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(START_TIMEOUT_S)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(START_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT_S)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._handle, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = self.accepted = self.accepted + 1
        self._open.add(number)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            self._open.discard(number)
            return
        pumps = [
            asyncio.create_task(self._pump(number, reader, up_writer)),
            asyncio.create_task(self._pump(number, up_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if number in self._swallowed:
                # The other side learns nothing of the end either.
                await asyncio.Event().wait()
        finally:
            for pump in pumps:
                pump.cancel()
            with contextlib.suppress(OSError):
                writer.close()
                up_writer.close()
            self._open.discard(number)
            self._tasks.discard(task)

    async def _pump(self, number: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                if number not in self._swallowed:
                    sink.write(data)
