"""A lane: claims work of one kind for the slots of a worker, processes it, and records what each claim ended with.

Payments and refunds have a lane each, over the same slots. This module does not know what the work is.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from time import monotonic
from typing import Any, Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import metrics
from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.database.leases import Claimed, Ended, WorkItem
from worker.slots import Slots

log = structlog.get_logger(__name__)

# Claims in one transaction.
COMMIT_MAX = 200
# See GroupCommit: how long to linger after a commit, as a multiple of the time it took.
LINGER_FACTOR = 0.5
# Seconds before the end of a lease from which on nothing new is begun under it.
LEASE_MARGIN_S = 1.0


class Handler[R, O](Protocol):
    """What a lane does with one kind of work. `R` is a claimed row, `O` what its claim ends with."""

    @property
    def name(self) -> str:
        """What a row is, for the log."""
        ...

    async def claim(
        self, connection: AsyncConnection, now: datetime, items: Sequence[WorkItem], *, steered_max: int
    ) -> Sequence[Claimed[R] | Ended[R] | None]:
        """Claim the row of each item, in the order of `items`; None where it cannot be claimed now or any more.

        Of rows that users steer, at most `steered_max` are claimed.
        """
        ...

    def is_steered(self, row: R) -> bool:
        """Return whether a user steers the work on the row."""
        ...

    def ended(self, ended: Ended[R]) -> None:
        """Do what follows the commit of a claim that ended its row."""
        ...

    def log_context(self, row: R) -> AbstractContextManager[Any]:
        """Return the context in which every log line names the row."""
        ...

    async def outcome(self, row: R, lease_ends: float, slots: Slots) -> O | None:
        """Return what the claim ends with, or None if no answer came while the lease held (monotonic, in seconds)."""
        ...

    async def record(self, row: R, outcome: O, lease_ends: float, slots: Slots) -> None:
        """Record what the claim ended with, while its lease holds (monotonic, in seconds)."""
        ...

    async def run(self) -> None:
        """Write records until `close`, then those that are still queued."""
        ...

    def close(self) -> None:
        """Take no more records."""
        ...


class Lane[R, O]:
    """Processes one kind of work, each piece in a task of its own. A claim holds for `lease_s` seconds.

    A piece of work has its slot until its outcome is known. Then it waits without one for its record.
    """

    def __init__(
        self, handler: Handler[R, O], slots: Slots, database: Database, *, lease_s: float, queue_max: int
    ) -> None:
        self._handler = handler
        self._claims_failed, self._crashed = f"{handler.name}s.claims_failed", f"{handler.name}.crashed"
        self._slots = slots
        self._lease_s = lease_s
        self._claims: GroupCommit[WorkItem, Claimed[R] | Ended[R] | None] = GroupCommit(
            database,
            self._claim,
            batch_max=COMMIT_MAX,
            queue_max=queue_max,
            linger_factor=LINGER_FACTOR,
            committed=self._count_steered,
        )
        self._group: asyncio.TaskGroup | None = None

    async def offer(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Claim as many of `items` as there are free slots, and begin to process them. Return the leftover items.

        A claim that fails is not raised: its row stays due, or its lease ends.
        """
        free = self._slots.free
        mine, leftover = list(items[:free]), list(items[free:])
        self._slots.take(len(mine))
        # A moment before the claims, so that no lease is believed to end later than its row says.
        claimed_at = monotonic()
        try:
            answers = await asyncio.gather(*(self._claims.submit(item) for item in mine), return_exceptions=True)
        except asyncio.CancelledError:
            for _ in mine:
                # A claim that is committed all the same is left to its lease.
                self._slots.drop()
            raise
        failures: list[BaseException] = []
        for answer in answers:
            if isinstance(answer, Claimed) and self._group is not None:
                metrics.claimed.labels(answer.reason).inc()
                self._group.create_task(self._process(answer.row, claimed_at))
                continue
            self._slots.drop()
            if isinstance(answer, Ended):
                self._handler.ended(answer)
            if isinstance(answer, BaseException):
                # Safe: the row is due or its lease will end, and the relay publishes it again.
                failures.append(answer)
        if failures:
            log.warning(self._claims_failed, count=len(failures), error=repr(failures[0]))
        return leftover

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the tasks that claim and record in `group`. They end after `close`."""
        group.create_task(self._claims.run())
        group.create_task(self._handler.run())
        self._group = group

    def close(self) -> None:
        """Take no more work, and end the tasks once everything is written."""
        self._claims.close()
        self._handler.close()

    async def _claim(
        self, connection: AsyncConnection, now: datetime, items: Sequence[WorkItem]
    ) -> Sequence[Claimed[R] | Ended[R] | None]:
        return await self._handler.claim(connection, now, items, steered_max=max(0, self._slots.free_for_steered))

    def _count_steered(self, answers: Sequence[Claimed[R] | Ended[R] | None]) -> None:
        # Before the next batch of claims, which must know of these.
        self._slots.take_steered(
            sum(isinstance(answer, Claimed) and self._handler.is_steered(answer.row) for answer in answers)
        )

    async def _process(self, row: R, claimed_at: float) -> None:
        """Process a claimed row in a slot, release the slot, and record what the claim ended with."""
        lease_ends = claimed_at + self._lease_s - LEASE_MARGIN_S
        try:
            with self._handler.log_context(row):
                await self._process_in_slot(row, lease_ends)
        finally:
            self._slots.end()
            if self._handler.is_steered(row):
                self._slots.end_steered()

    async def _process_in_slot(self, row: R, lease_ends: float) -> None:
        try:
            try:
                outcome = await self._handler.outcome(row, lease_ends, self._slots)
            finally:
                self._slots.release()
            if outcome is not None:
                await self._handler.record(row, outcome, lease_ends, self._slots)
        except Exception:
            # One bug must not end the others; the lease of this row will end.
            log.exception(self._crashed)
