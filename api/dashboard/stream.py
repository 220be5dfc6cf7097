"""Live figures by server-sent events: computed once for all who watch, and not at all while nobody does."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

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
# Seconds between two looks whether a viewer may still watch.
LOOK_S = 5.0
# Seconds after which a stream ends, so that no connection lasts for ever. The page connects again at once.
STREAM_S = 300.0
# Milliseconds after which a browser connects again.
RETRY_MS = 2000

type Compute = Callable[[], Awaitable[tuple[str, bytes]]]
"""Returns the name and the data (JSON) of the next event."""
type HasEnded = Callable[[], Awaitable[bool]]
"""Returns whether a viewer may watch no longer."""


class Broadcast:
    """Sends what `compute` returns to all viewers. `catch_up` makes the event that a new viewer gets first."""

    def __init__(
        self,
        compute: Compute,
        catch_up: Callable[[], bytes],
        *,
        interval_s: float = INTERVAL_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._compute = compute
        self._catch_up = catch_up
        self._interval_s = interval_s
        self._look_s = look_s
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    def events(self, has_ended: HasEnded) -> AsyncGenerator[bytes]:
        """Return the events for one viewer, in the form in which they are sent, until the stream ends.

        The viewer has a place from now on, which who does not read loses again. Raises Overloaded if there is none.
        """
        self.require_room()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_MAX)
        self._viewers.add(queue)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="dashboard")
        return self._events(queue, has_ended)

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

    async def _events(self, queue: asyncio.Queue[bytes | None], has_ended: HasEnded) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        ends_at, looks_at = loop.time() + STREAM_S, loop.time() + self._look_s
        try:
            yield format_sse_event(event="before", data_str=self._catch_up().decode(), retry=RETRY_MS)
            while (event := await queue.get()) is not None:
                # Before the event: who may watch no longer gets no more of them.
                if loop.time() > looks_at:
                    if await has_ended():
                        yield format_sse_event(event="ended", data_str="{}")
                        return
                    looks_at = loop.time() + self._look_s
                yield event
                if loop.time() > ends_at:
                    yield format_sse_event(event="again", data_str="{}")
                    return
        finally:
            self._viewers.discard(queue)
            if not self._viewers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        """Compute and send until nobody watches any more.

        A stream that has begun cancels this when it ends. One that never began does not, and is dropped here.
        """
        loop = asyncio.get_running_loop()
        while self._viewers:
            next_at = loop.time() + self._interval_s
            try:
                name, data = await self._compute()
            except Exception:
                # A page that says nothing is worse than one that says it does not know: the loop goes on.
                log.exception("dashboard.compute_failed")
                name, data = "unknown", b"{}"
            self._send(format_sse_event(event=name, data_str=data.decode()))
            await asyncio.sleep(max(self._interval_s / 2, next_at - loop.time()))
        self._task = None

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
