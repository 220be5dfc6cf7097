"""What the two pools of a worker (payments and deliveries) have in common.

Concurrency slots, the interruption of work that still runs when the grace period of a shutdown is over, and a record
that is repeated as long as the lease holds. This module does not know what the work is.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import structlog

from shared.database.group_commit import GroupCommit
from shared.errors import CommitUnknown, DatabaseUnavailable, Overloaded

log = structlog.get_logger(__name__)

# Seconds between two tries to record: the backoff doubles from the first value to the second.
RECORD_PAUSE_S, RECORD_PAUSE_MAX_S = 0.1, 2.0
# Seconds that a shutdown, after its grace period, leaves to claims and records that have begun.
SHUTDOWN_FLUSH_S = 5.0
# After these errors a record is worth another try.
RETRIABLE_ERRORS = (DatabaseUnavailable, CommitUnknown, Overloaded)


class Interrupted(Exception):
    """The grace period of a shutdown is over."""


class NotRecorded(Exception):
    """A record could not be written while the lease held. The text names the last error."""


class Slots:
    """At most `capacity` pieces of work at once, and at most `open_max` that have not ended.

    A piece of work takes a slot, may release it before it ends (another one may begin then), and ends. No slot is free
    before `open` and after `close`.
    """

    def __init__(self, name: str, capacity: int, *, open_max: int | None = None) -> None:
        self._name = name
        self._capacity = capacity
        self._open_max = capacity if open_max is None else open_max
        self._taken = 0
        self._open = 0
        # Of the pieces of work that have not ended: those that users steer.
        self._steered = 0
        self._is_giving_out = False
        # A slot has become free, or none will be any more.
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = asyncio.Event()
        self._interruptible: set[asyncio.Timeout] = set()
        self._grace_s = 0.0
        self._is_serving = False
        self._ended = asyncio.Event()
        self.is_interrupting = False

    @property
    def free(self) -> int:
        """Slots for further work."""
        if not self._is_giving_out:
            return 0
        return min(self._capacity - self._taken, self._open_max - self._open)

    @property
    def free_for_steered(self) -> int:
        """Slots for further work that users steer: together half of all at most, so that they delay nobody else."""
        return max(1, self._capacity // 2) - self._steered

    @property
    def unfinished(self) -> int:
        """Pieces of work that have not ended."""
        return self._open

    @property
    def is_closed(self) -> bool:
        """No slot will be free any more."""
        return self._closed.is_set()

    def open(self) -> None:
        """Begin to give out slots, unless `close` came first."""
        self._is_giving_out = not self.is_closed

    def close(self) -> None:
        """Give out no more slots."""
        self._is_giving_out = False
        self._closed.set()
        self._changed.set()

    def take(self, count: int = 1) -> None:
        """Take `count` slots. The caller has checked that so many are free."""
        self._taken += count
        self._open += count
        if self._open:
            self._idle.clear()

    def take_steered(self, count: int) -> None:
        """Count work that users steer, of that which has taken slots."""
        self._steered += count

    def end_steered(self) -> None:
        """End a piece of work that a user steers; its slot is given back like any other."""
        self._steered -= 1

    def release(self) -> None:
        """Give a slot back before its work has ended."""
        self._taken -= 1
        self._changed.set()

    def end(self) -> None:
        """End a piece of work whose slot was released."""
        self._open -= 1
        self._changed.set()
        if not self._open:
            self._idle.set()

    def drop(self) -> None:
        """Release the slot of a piece of work, and end it."""
        self.release()
        self.end()

    async def wait_for_free(self, within_s: float) -> bool:
        """Wait for a free slot. Return False if there is none within the time, or there will be no more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self.free and not self.is_closed:
                    self._changed.clear()
                    await self._changed.wait()
        return self.free > 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Let `stop` wait for the end of the block, which runs the tasks of the pool and `serve`."""
        self._is_serving = True
        try:
            yield
        finally:
            self._ended.set()

    async def serve(self) -> None:
        """Give out slots until `stop`, then drain.

        No slot is given out any more if this is cancelled.
        """
        try:
            await self._closed.wait()
        finally:
            self.close()
        await self._drain()

    async def stop(self, grace_s: float) -> None:
        """Give out no more slots, let work finish for `grace_s` seconds, interrupt the rest; return at the end."""
        self._grace_s = grace_s
        self.close()
        if self._is_serving:
            await self._ended.wait()

    async def is_idle_within(self, timeout_s: float) -> bool:
        """Wait until no work is unfinished. Return False if that does not happen within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """Let `interrupt` end the block. Raises Interrupted; at once if `interrupt` was called before."""
        if self.is_interrupting:
            raise Interrupted
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._interruptible.add(scope)
                try:
                    yield
                finally:
                    self._interruptible.discard(scope)
        except TimeoutError:
            # Without this check a TimeoutError of the block itself would look like an interruption.
            if scope.expired():
                raise Interrupted from None
            raise

    def interrupt(self) -> None:
        """End every block that is interruptible, and let none begin."""
        if self.is_interrupting:
            return
        self.is_interrupting = True
        for scope in self._interruptible:
            scope.reschedule(asyncio.get_running_loop().time())

    async def _drain(self) -> None:
        """Let work finish for the grace, interrupt what is left, and wait for its records.

        Work that is unfinished even then is left to its lease.
        """
        if not await self.is_idle_within(self._grace_s):
            log.info("slots.interrupted", pool=self._name, count=self._open)
        self.interrupt()
        if not await self.is_idle_within(SHUTDOWN_FLUSH_S):
            log.warning("slots.leases_abandoned", pool=self._name, count=self._open)


async def record_within_lease[M, R](records: GroupCommit[M, R], member: M, *, lease_ends: float, slots: Slots) -> R:
    """Commit `member`, and repeat that with backoff as long as the lease holds (`lease_ends`, monotonic, in seconds).

    Return what `records` answers. Raises NotRecorded when a try fails and the lease is nearly over, or a shutdown has
    interrupted `slots`: the work is then left to its next claim.
    """
    pause_s = RECORD_PAUSE_S
    while True:
        try:
            return await records.submit(member)
        except RETRIABLE_ERRORS as error:
            if slots.is_interrupting or monotonic() + pause_s > lease_ends:
                raise NotRecorded(repr(error)) from error
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, RECORD_PAUSE_MAX_S)
