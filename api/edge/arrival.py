"""The arrival of requests: how long one may take, and how many bytes those that are not whole may hold together."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from api.edge.deadline import Deadline

# Bytes of all requests in this process that have not arrived whole.
ARRIVAL_BYTES_MAX = 64 * 1024 * 1024


class Holder(Protocol):
    """What holds a request that has not arrived whole."""

    def on_full(self) -> None:
        """Refuse the request: its bytes are needed."""


class ArrivalMemory:
    """The bytes of all requests of a process that have not arrived whole.

    When there are more than `bytes_max`, the requests that began first are refused until there is room. A client that
    sends at once is never among them: only the clients that hold their requests back are.
    """

    def __init__(self, bytes_max: int = ARRIVAL_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._total = 0
        # In the order in which the requests began, with their bytes.
        self._held: OrderedDict[Holder, int] = OrderedDict()

    def hold(self, holder: Holder, size: int) -> None:
        """Note that a request holds `size` bytes."""
        self._total += size - self._held.get(holder, 0)
        self._held[holder] = size
        while self._total > self._bytes_max:
            oldest = next(iter(self._held))
            self.release(oldest)
            oldest.on_full()

    def release(self, holder: Holder) -> None:
        """Note that a request holds nothing any more, if it held anything."""
        self._total -= self._held.pop(holder, 0)


class Arrival:
    """The arrival of one request after the other on one connection.

    `on_late` is called when a request takes longer than `timeout_s` seconds, `on_full` when its bytes are needed.
    """

    __slots__ = ("_deadline", "_memory", "on_full")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout_s: float,
        memory: ArrivalMemory,
        *,
        on_late: Callable[[], None],
        on_full: Callable[[], None],
    ) -> None:
        self._deadline = Deadline(loop, timeout_s, on_late)
        self._memory = memory
        self.on_full = on_full

    def begin(self, left_s: float) -> None:
        """Begin with a request that has only so many seconds left."""
        self._deadline.start(left_s)

    def wait(self, held_bytes: int = 0) -> None:
        """Wait for the rest of a request, of which so many bytes are here."""
        self._deadline.start()
        if held_bytes:
            self._memory.hold(self, held_bytes)

    def end(self) -> None:
        """Wait no longer: the request is whole, refused, or gone."""
        self._deadline.cancel()
        self._memory.release(self)

    def close(self) -> None:
        """End the last request of the connection."""
        self.end()
        self._deadline.close()
        del self.on_full
