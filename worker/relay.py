"""The relay: brings every row that is due to the queue. Lost messages, dead workers and retries all come back this way.

It changes nothing but `due_at`, so relays beside each other are harmless.
"""

import asyncio
from time import monotonic

import structlog
from sqlalchemy import Table

from shared import metrics
from shared.db import Database
from shared.errors import CommitUnknown, DatabaseUnavailable
from shared.idempotency import purge
from shared.leases import Ref, give_back, take_due
from shared.models import deliveries, payments
from shared.queue import JOB_REFS_MAX, Carrier, Queue

log = structlog.get_logger(__name__)

PASSES_MAX = 20  # batches of one table in one round: the other table's turn comes
PURGE_EVERY_S = 60.0
SOURCES = ((payments, Queue.PROCESS), (deliveries, Queue.DELIVER))


class Relay:
    """One per worker process."""

    def __init__(
        self, database: Database, carrier: Carrier, *, interval_s: float, batch_max: int, retention_h: int
    ) -> None:
        self._database = database
        self._carrier = carrier
        self._interval_s = interval_s
        self._batch_max = batch_max
        self._retention_h = retention_h
        self._purged_at = monotonic()
        self.ran_at = monotonic()

    async def run(self) -> None:
        """Make rounds until cancelled; a database that is away is waited for."""
        while True:
            try:
                await self.run_once()
            except (DatabaseUnavailable, CommitUnknown) as error:
                # Safe: what was due still is.
                log.warning("relay.database_failed", error=str(error))
            self.ran_at = monotonic()
            await asyncio.sleep(self._interval_s)

    async def run_once(self) -> int:
        """One round over both tables; returns how many ids were published. Without Redis nothing is taken."""
        await self._purge()
        if not await self._carrier.ping():
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

    async def _publish(self, table: Table, queue: Queue, refs: list[Ref]) -> int:
        """Publish what was taken; what does not get through is due again at once."""
        for start in range(0, len(refs), JOB_REFS_MAX):
            if not await self._carrier.publish(queue, refs[start : start + JOB_REFS_MAX]):
                async with self._database.transaction() as connection:
                    now = await self._database.clock.now(connection)
                    await give_back(connection, table, refs[start:], now=now)
                return start
        return len(refs)

    async def _purge(self) -> None:
        if monotonic() - self._purged_at < PURGE_EVERY_S:
            return
        self._purged_at = monotonic()
        async with self._database.transaction() as connection:
            now = await self._database.clock.now(connection)
            await purge(connection, now=now, retention_h=self._retention_h)
