"""Advancing service time: from due moment to due moment, and on only when what was due has been done.

The target is in the row of the clock. One API process at a time has the task, for a few seconds of real time that it
keeps renewing; if it is gone, another one goes on.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from time import monotonic
from typing import Any, Never
from uuid import UUID

import structlog
from sqlalchemy import Table, or_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.broker.client import JOB_ITEMS_MAX, Broker, Queue
from shared.broker.sleepers import Sleepers, read_sleepers
from shared.database.clock import ASK_EVERY_S, rfc3339
from shared.database.clock_tables import CLOCK_ID, simulation_clock
from shared.database.engine import Database
from shared.database.leases import WorkItem, give_back, take_due
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, payments
from shared.database.uninterrupted import uninterrupted
from shared.errors import BrokerUnavailable, CommitUnknown, DatabaseUnavailable
from shared.ids import new_id
from shared.simulation.clock import lock_clock, moved_to, write_clock
from shared.simulation.due_moments import WORK, Activity, ended_of, next_moment, read_activity

log = structlog.get_logger(__name__)

QUEUES = {payments: Queue.PROCESS, refunds: Queue.REFUND, deliveries: Queue.DELIVER}
# Seconds until every process asks for the clock in each transaction, so that it knows of a jump at once.
KNOWN_AFTER_S = ASK_EVERY_S + 0.2
# Seconds of real time for which a process has the task, and after which it renews that.
TASK_S, RENEWED_AFTER_S = 5.0, 1.0
# Seconds between two looks for a task, and between two looks at what is being done.
IDLE_S, LOOK_S = 1.0, 0.01
# Rows of a table that are taken in one transaction.
BATCH_MAX = 500
# Seconds after which a worker that says nothing about its sleepers is taken for gone.
SILENT_S = 2.0


@dataclass(slots=True)
class _Taken:
    """The rows that became due and have not ended; `count` and `has_claims` are about the last move of the clock."""

    ids: dict[Table, set[UUID]] = field(default_factory=lambda: {table: set() for table in WORK})
    count: int = 0
    # Payments or refunds are among them, which the gateway may have put to sleep.
    has_claims: bool = False

    def add(self, table: Table, items: Mapping[WorkItem, datetime]) -> None:
        self.ids[table].update(item.id for item in items)
        self.count += len(items)
        self.has_claims = self.has_claims or (bool(items) and table is not deliveries)

    async def end(self, connection: AsyncConnection) -> dict[str, Any]:
        """Begin anew, without what has ended. Return the counts of the row, with those since the last call."""
        ended = 0
        for table, ids in list(self.ids.items()):
            gone = await ended_of(connection, table, ids)
            ended += len(gone)
            self.ids[table] = ids - gone
        columns = simulation_clock.c
        counts = {"became_due": columns.became_due + self.count, "ended": columns.ended + ended}
        self.count, self.has_claims = 0, False
        return counts


class Advancer:
    """Advances the clock for as long as its row has a target. Needs `run`; each API process has one."""

    def __init__(self, database: Database, broker: Broker) -> None:
        self._database = database
        self._broker = broker
        self._name = str(new_id())
        self._wanted = asyncio.Event()
        self._renewed_at = 0.0
        self._taken = _Taken()
        # How many payments and refunds were claimed when that changed last, and the real time of that look.
        self._claimed: tuple[int, datetime] | None = None

    def start(self) -> None:
        """Look for a task now: a target was written."""
        self._wanted.set()

    async def run(self) -> Never:
        """Look for a task every second, and do it, until cancelled. While the database is unavailable, it waits."""
        while True:
            try:
                await self.run_once()
            except (DatabaseUnavailable, CommitUnknown, BrokerUnavailable) as error:
                # Safe: the target stays in the row.
                log.warning("clock.advance_failed", error=str(error))
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), IDLE_S)

    async def run_once(self) -> None:
        """Advance the clock to its target, if it has one that no other process sees to.

        Raises DatabaseUnavailable, CommitUnknown or BrokerUnavailable.
        """
        await uninterrupted(self._look())
        if not self._database.clock.time.is_advancing or not await self._has_task():
            return
        await asyncio.sleep(KNOWN_AFTER_S)
        self._taken, self._claimed = _Taken(), None
        while await uninterrupted(self._step()):
            pass

    async def _look(self) -> None:
        async with self._database.read() as connection:
            await self._database.clock.now(connection)

    async def _step(self) -> bool:
        """Move the clock on if what is due has been done. Return False if there is no task any more."""
        if monotonic() - self._renewed_at > RENEWED_AFTER_S and not await self._has_task():
            return False
        async with self._database.read() as connection:
            now = await self._database.clock.now(connection)
            real_now = self._database.clock.real_now()
            activity = await read_activity(connection, now=now, real_now=real_now)
        if any(each.due for each in activity.values()):
            await self._publish_due(now, real_now)
            return True
        if activity[deliveries].held:
            await asyncio.sleep(LOOK_S)
            return True
        sleepers = await self._sleepers(activity, now, real_now)
        if sleepers is None:
            await asyncio.sleep(LOOK_S)
            return True
        return await self._move_on(activity, sleepers)

    async def _sleepers(
        self, activity: Mapping[Table, Activity], now: datetime, real_now: datetime
    ) -> list[Sleepers] | None:
        """Return what sleeps in the workers if that is all that is claimed there; None if it is not, or not known yet.

        It is known once every worker has counted after a look that found the same.
        """
        claimed = activity[payments].held + activity[refunds].held
        said = await read_sleepers(self._broker)
        # No worker has seen what is still to come.
        alive = [each for each in said if abs(real_now.timestamp() - each.seen_at_s) < SILENT_S]
        if any(each.wakes_at_s and each.wakes_at_s <= now.timestamp() for each in alive):
            # It is about to wake.
            return None
        if claimed == 0 and not self._taken.has_claims:
            # Nothing can have fallen asleep since.
            return alive
        if self._claimed is None or self._claimed[0] != claimed:
            self._claimed = claimed, real_now
        _, since = self._claimed
        if any(each.seen_at_s < since.timestamp() for each in alive):
            return None
        return alive if claimed == sum(each.count for each in alive) else None

    async def _move_on(self, activity: Mapping[Table, Activity], sleepers: list[Sleepers]) -> bool:
        """Move the clock to the next due moment, or end the task at the target. Return False if it has ended."""
        async with self._database.transaction() as connection:
            time, real_now = await lock_clock(connection)
            now, self._claimed = time.at(real_now), None
            counts = await self._taken.end(connection)
            if time.advances_to is None or time.advances_to <= now:
                await write_clock(connection, replace(time, advances_to=None), advanced_by=None, **counts)
                log.info("clock.advanced", now=rfc3339(now))
                return False
            there = max(now, _earliest(await next_moment(connection, activity), sleepers, time.advances_to))
            await write_clock(connection, moved_to(time, there, real_now), **counts)
            tables = [table for table, each in activity.items() if each.next_at and each.next_at <= there]
            due = await self._take_due(connection, tables, there, real_now)
        await self._publish(due, real_now)
        return True

    async def _publish_due(self, now: datetime, real_now: datetime) -> None:
        async with self._database.transaction() as connection:
            due = await self._take_due(connection, WORK, now, real_now)
        await self._publish(due, real_now)

    async def _take_due(
        self, connection: AsyncConnection, tables: Iterable[Table], now: datetime, real_now: datetime
    ) -> dict[Table, dict[WorkItem, datetime]]:
        """Take what is due, in the transaction that makes it due: no relay is sooner, and nothing is left out."""
        due = {
            table: await take_due(connection, table, now=now, real_now=real_now, limit=BATCH_MAX) for table in tables
        }
        for table, items in due.items():
            self._taken.add(table, items)
        return due

    async def _publish(self, due: Mapping[Table, Mapping[WorkItem, datetime]], taken_at: datetime) -> None:
        for table, of_table in due.items():
            items = list(of_table)
            for start in range(0, len(items), JOB_ITEMS_MAX):
                if not await self._broker.publish(QUEUES[table], items[start : start + JOB_ITEMS_MAX]):
                    async with self._database.transaction() as connection:
                        unsent = {item: of_table[item] for item in items[start:]}
                        await give_back(connection, table, unsent, taken_at=taken_at)
                    raise BrokerUnavailable("Redis takes no jobs")

    async def _has_task(self) -> bool:
        """Take the task, or renew it. Return False if there is none, or another process has it."""
        columns = simulation_clock.c
        async with self._database.transaction() as connection:
            await self._database.clock.now(connection)
            real_now = self._database.clock.real_now()
            is_mine = or_(
                columns.advanced_by.is_(None), columns.advanced_by == self._name, columns.advanced_until < real_now
            )
            taken = await connection.execute(
                update(simulation_clock)
                .where(columns.id == CLOCK_ID, columns.advances_to.is_not(None), is_mine)
                .values(advanced_by=self._name, advanced_until=real_now + timedelta(seconds=TASK_S))
            )
        self._renewed_at = monotonic()
        return taken.rowcount > 0


def _earliest(next_at: datetime | None, sleepers: list[Sleepers], target: datetime) -> datetime:
    """Return the first of these moments: that of the rows, that at which something wakes, and the target."""
    moments = [target if next_at is None else min(next_at, target)]
    wakes = [(each.wakes_at_s, each.wakes_until_s) for each in sleepers if each.wakes_at_s and each.wakes_until_s]
    if wakes:
        _, until_s = min(wakes)
        # Up to a whole millisecond, as the clock shows it, so that it is not woken a fraction too early.
        moments.append(datetime.fromtimestamp(ceil(until_s * 1000) / 1000, UTC))
    return min(moments)
