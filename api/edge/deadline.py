"""A time limit that is set and lifted again and again."""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `on_late` once `seconds` have passed since `start`, unless `cancel` came before."""

    __slots__ = ("_loop", "_on_late", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, on_late: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._on_late = on_late
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to count, unless it counts already."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._on_late)

    def cancel(self) -> None:
        """Count no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Count never again. `on_late` refers to its owner, which would otherwise stay until a garbage collection."""
        self.cancel()
        self._on_late = _do_nothing


def _do_nothing() -> None:
    return
