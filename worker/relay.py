"""The relay of the outbox: publishes every row that is due, after a lost message, a dead worker or a backoff.

It never changes anything of a row but `due_at`, so that several relays may run beside each other.
"""

import asyncio
from collections.abc import Callable
from time import monotonic

import structlog
from sqlalchemy import Table

from shared import metrics
from shared.broker.client import JOB_ITEMS_MAX, Broker, Queue
from shared.database.engine import Database
from shared.database.leases import WorkItem, give_back, take_due
from shared.database.tables import deliveries, payments
from shared.errors import CommitUnknown, DatabaseUnavailable
from shared.idempotency import purge

log = structlog.get_logger(__name__)

# Batches of one table in one round: a backlog in one table must not hold up the other.
PASSES_MAX = 20
# Seconds between two purges of old idempotency keys.
PURGE_EVERY_S = 60.0
SOURCES = ((payments, Queue.PROCESS), (deliveries, Queue.DELIVER))


class Relay:
    """Makes a round every `interval_s` seconds, in batches of at most `batch_max` rows; each worker process has one.

    It also purges idempotency keys that are older than `retention_h` hours.
    """

    def __init__(
        self,
        database: Database,
        broker: Broker,
        *,
        interval_s: float,
        batch_max: int,
        retention_h: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._database = database
        self._broker = broker
        self._interval_s = interval_s
        self._batch_max = batch_max
        self._retention_h = retention_h
        self._clock = clock
        self._purged_at = clock()
        # The end of the last round (monotonic, in seconds), also of one that failed.
        self.ran_at = clock()

    async def run(self) -> None:
        """Make rounds until cancelled. While the database is unavailable, every round fails and is tried again."""
        while True:
            try:
                await self.run_once()
            except (DatabaseUnavailable, CommitUnknown) as error:
                # Safe: rows that were due still are.
                log.warning("relay.database_failed", error=str(error))
            self.ran_at = self._clock()
            await asyncio.sleep(self._interval_s)

    async def run_once(self) -> int:
        """Make one round over both tables, and return how many ids were published.

        Takes nothing while Redis does not answer. Raises DatabaseUnavailable or CommitUnknown.
        """
        await self._purge()
        if not await self._broker.probe():
            return 0
        return sum([await self._relay(table, queue) for table, queue in SOURCES])

    async def _relay(self, table: Table, queue: Queue) -> int:
        published = 0
        for _ in range(PASSES_MAX):
            async with self._database.transaction() as connection:
                now = await self._database.clock.now(connection)
                taken = await take_due(connection, table, now=now, limit=self._batch_max)
            sent = await self._publish(table, queue, taken)
            published += sent
            if sent < self._batch_max:
                break
        if published:
            metrics.relayed.labels(queue).inc(published)
            log.info("relay.published", queue=queue, count=published)
        return published

    async def _publish(self, table: Table, queue: Queue, items: list[WorkItem]) -> int:
        """Publish items that were taken, and return how many. Those that cannot be published are due again at once."""
        for start in range(0, len(items), JOB_ITEMS_MAX):
            if not await self._broker.publish(queue, items[start : start + JOB_ITEMS_MAX]):
                async with self._database.transaction() as connection:
                    now = await self._database.clock.now(connection)
                    await give_back(connection, table, items[start:], now=now)
                return start
        return len(items)

    async def _purge(self) -> None:
        if self._clock() - self._purged_at < PURGE_EVERY_S:
            return
        self._purged_at = self._clock()
        async with self._database.transaction() as connection:
            now = await self._database.clock.now(connection)
            await purge(connection, now=now, retention_h=self._retention_h)
