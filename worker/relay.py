"""The relay of the outbox: publishes every row that is due, after a lost message, a dead worker or a backoff.

It never changes anything of a row but when it is due, so that several relays may run beside each other.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from time import monotonic

import structlog
from sqlalchemy import Table

from shared import metrics
from shared.broker.client import JOB_ITEMS_MAX, Broker, Queue
from shared.database.engine import Database
from shared.database.leases import WorkItem, give_back, take_due
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, payments
from shared.errors import PaymentsError

log = structlog.get_logger(__name__)

# Batches of one table in one round: a backlog in one table must not hold up the other.
PASSES_MAX = 20
SOURCES = ((payments, Queue.PROCESS), (refunds, Queue.REFUND), (deliveries, Queue.DELIVER))


class Relay:
    """Makes a round every `interval_s` seconds, in batches of at most `batch_max` rows; each worker process has one."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        *,
        interval_s: float,
        batch_max: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._database = database
        self._broker = broker
        self._interval_s = interval_s
        self._batch_max = batch_max
        self._clock = clock
        self._is_publishing = True
        # The end of the last round (monotonic, in seconds), also of one that failed.
        self.ran_at = clock()

    async def run(self) -> None:
        """Make rounds until cancelled. While the database is unavailable, every round fails and is tried again."""
        while True:
            try:
                await self.run_once()
            except PaymentsError as error:
                # Safe: rows that were due still are.
                log.warning("relay.database_failed", error=str(error))
            self.ran_at = self._clock()
            await asyncio.sleep(self._interval_s)

    async def run_once(self) -> int:
        """Make one round over all tables, and return how many ids were published.

        Takes nothing while Redis takes no jobs, which costs one round trip to find out. Raises DatabaseUnavailable or
        CommitUnknown.
        """
        if not await self._broker.probe():
            return 0
        return sum([await self._relay(table, queue) for table, queue in SOURCES])

    async def _relay(self, table: Table, queue: Queue) -> int:
        published = 0
        for _ in range(PASSES_MAX):
            # What was not published once is tried with one row, so that a standstill rewrites no more than that.
            limit = self._batch_max if self._is_publishing else 1
            async with self._database.transaction() as connection:
                now = await self._database.clock.now(connection)
                taken_at = self._database.clock.real_now()
                due = await take_due(connection, table, now=now, limit=limit, real_now=taken_at)
            sent = await self._publish(table, queue, due, taken_at=taken_at)
            published += sent
            if due:
                self._is_publishing = sent == len(due)
            if sent < limit:
                break
        if published:
            metrics.relayed.labels(queue).inc(published)
            log.info("relay.published", queue=queue, count=published)
        return published

    async def _publish(
        self, table: Table, queue: Queue, due: Mapping[WorkItem, datetime], *, taken_at: datetime
    ) -> int:
        """Publish rows that were taken, and return how many. Those that cannot be published are due as before."""
        items = list(due)
        for start in range(0, len(items), JOB_ITEMS_MAX):
            if not await self._broker.publish(queue, items[start : start + JOB_ITEMS_MAX]):
                async with self._database.transaction() as connection:
                    unsent = {item: due[item] for item in items[start:]}
                    await give_back(connection, table, unsent, taken_at=taken_at)
                return start
        return len(items)
