"""Clients that send a request in many small pieces: they do not decide how much time reading them takes."""

import asyncio

from api.edge.readable import Reader, open_readable

# Clients send a request in one piece or two, or a long one in packets. A connection that needs more than READS_MAX
# reads, and one more for every kilobyte, is slow.
READS_MAX, READ_BYTES_EXPECTED = 4, 1024
# Slow connections are looked at every SLOW_LOOK_S seconds, a few at a time. Those that are left out are the first ones
# next time.
SLOW_LOOK_S, SLOW_PER_LOOK = 0.01, 8


def after_read(reads_left: float, size: int) -> float:
    """Return how many reads a request has left after one of `size` bytes. At 0 or below its connection is slow."""
    return reads_left + size / READ_BYTES_EXPECTED - 1


class SlowLane:
    """The slow connections of a process, which are read a few at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._readable = open_readable()
        self._look: asyncio.TimerHandle | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return 0 if self._is_closed else len(self._readable)

    def add(self, reader: Reader) -> None:
        """Read a connection from now on, when it is its turn."""
        self._readable.add(reader)
        self._look_later()

    def remove(self, reader: Reader) -> None:
        """Read the connection no longer. Its socket must be open."""
        if not self._is_closed:
            self._readable.remove(reader)

    def read(self) -> None:
        """Read those whose turn it is."""
        self._readable.read(SLOW_PER_LOOK)

    def close(self) -> None:
        """Read none any more."""
        self._is_closed = True
        if self._look is not None:
            self._look.cancel()
        self._readable.close()

    def _look_later(self) -> None:
        if self._look is None and len(self):
            self._look = self._loop.call_later(SLOW_LOOK_S, self._look_now)

    def _look_now(self) -> None:
        self._look = None
        try:
            self.read()
        finally:
            # A defect must not leave the others unread.
            self._look_later()
