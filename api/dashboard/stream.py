"""Live figures by server-sent events: computed once for all who watch, and not at all while nobody does."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi.sse import format_sse_event

from api.stats import FRESH_FOR_S
from shared.errors import Overloaded

log = structlog.get_logger(__name__)

# Seconds between two computations: a little more than figures are reused for, so that each finds new ones.
INTERVAL_S = FRESH_FOR_S + 0.05
# Events that wait for one viewer: four seconds. A viewer who reads more slowly is dropped, and connects again.
QUEUE_MAX = 4
VIEWERS_MAX = 200
# Seconds after which a stream ends, so that its viewer's session is looked up again. The page connects at once.
STREAM_S = 300.0
# Milliseconds after which a browser connects again.
RETRY_MS = 2000

type Compute = Callable[[], Awaitable[tuple[str, bytes]]]
"""Returns the name and the data (JSON) of the next event."""


class Broadcast:
    """Sends what `compute` returns to all viewers. `catch_up` makes the event that a new viewer gets first."""

    def __init__(self, compute: Compute, catch_up: Callable[[], bytes], *, interval_s: float = INTERVAL_S) -> None:
        self._compute = compute
        self._catch_up = catch_up
        self._interval_s = interval_s
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the events for one viewer, in the form in which they are sent, until the stream ends."""
        async with self._watching() as queue:
            yield format_sse_event(event="before", data_str=self._catch_up().decode(), retry=RETRY_MS)
            ends_at = asyncio.get_running_loop().time() + STREAM_S
            while (event := await queue.get()) is not None:
                yield event
                if asyncio.get_running_loop().time() > ends_at:
                    yield format_sse_event(event="again", data_str="{}")
                    return

    def require_room(self) -> None:
        """Raise Overloaded if too many watch already."""
        if len(self._viewers) >= VIEWERS_MAX:
            raise Overloaded("too many pages watch this process")

    async def close(self) -> None:
        """End all streams, and return when nothing is computed any more."""
        for queue in list(self._viewers):
            _end(queue)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[asyncio.Queue[bytes | None]]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_MAX)
        self._viewers.add(queue)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="dashboard")
        try:
            yield queue
        finally:
            self._viewers.discard(queue)
            if not self._viewers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            next_at = loop.time() + self._interval_s
            try:
                name, data = await self._compute()
            except Exception:
                # A page that says nothing is worse than one that says it does not know: the loop goes on.
                log.exception("dashboard.compute_failed")
                name, data = "unknown", b"{}"
            self._send(format_sse_event(event=name, data_str=data.decode()))
            await asyncio.sleep(max(self._interval_s / 2, next_at - loop.time()))

    def _send(self, event: bytes) -> None:
        for queue in list(self._viewers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                log.info("dashboard.viewer_dropped")
                self._viewers.discard(queue)
                _end(queue)


def _end(queue: asyncio.Queue[bytes | None]) -> None:
    """Let the stream of this queue end, whatever still waits in it."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)
