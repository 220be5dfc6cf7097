"""Time limits: one that is set and lifted again and again, and one that many connections share."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Protocol

# Of those whose time is over, so many are ended in one iteration of the event loop: what others sent is read between.
LATE_PER_TURN = 4


class Deadline:
    """Calls `on_late` once `seconds` have passed since `start`, unless `cancel` came before."""

    __slots__ = ("_loop", "_on_late", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, on_late: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._on_late = on_late
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float | None = None) -> None:
        """Begin to count, unless it counts already; `seconds` are left if they are given."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds if seconds is None else seconds, self._on_late)

    def cancel(self) -> None:
        """Count no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Count never again. `on_late` refers to its owner, which would otherwise stay until a garbage collection."""
        self.cancel()
        self._on_late = _do_nothing


class Late(Protocol):
    """What has a time limit."""

    def on_late(self) -> None:
        """Handle that the time is over."""


class SharedDeadline[T: Late]:
    """Calls `on_late` of each one `seconds` after its start, with one timer for all of them.

    A timer for each of ten thousand connections would be twenty thousand objects for every garbage collection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        # When the time of each is over. All have the same time, so the first one is due first.
        self._due: OrderedDict[T, float] = OrderedDict()
        self._timer: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def first(self, count: int, *, before: float) -> list[T]:
        """Return those that are due first, `count` at most, and started before this time of the event loop."""
        found = islice(self._due.items(), max(0, count))
        return [one for one, due in found if due - self._seconds < before]

    def start(self, one: T) -> None:
        """Begin to count for this one."""
        self._due[one] = self._loop.time() + self._seconds
        if self._timer is None:
            self._wait()

    def cancel(self, one: T) -> float:
        """Count no longer for this one, and return the seconds that it has left."""
        due = self._due.pop(one, None)
        return 0.0 if due is None else max(0.0, due - self._loop.time())

    def _wait(self) -> None:
        due = next(iter(self._due.values()), None)
        if due is None:
            self._timer = None
        elif due > self._loop.time():
            self._timer = self._loop.call_at(due, self._end_some)
        else:
            self._timer = self._loop.call_soon(self._end_some)

    def _end_some(self) -> None:
        now = self._loop.time()
        try:
            for _ in range(LATE_PER_TURN):
                one, due = next(iter(self._due.items()), (None, 0.0))
                if one is None or due > now:
                    break
                del self._due[one]
                one.on_late()
        finally:
            self._wait()


def _do_nothing() -> None:
    return
