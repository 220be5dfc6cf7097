"""The purge of idempotency keys, and of rules with their uses, that nobody needs any more, as fast as new ones come.

It must not be noticed by payments: each batch is one short transaction, and most of the time is left between two.
"""

import asyncio
from time import monotonic
from typing import Never

import structlog

from shared import metrics
from shared.database.engine import Database
from shared.errors import CommitUnknown, DatabaseUnavailable
from shared.idempotency import PURGE_MAX, purge
from shared.simulation.rule_store import purge_rules

log = structlog.get_logger(__name__)

# Seconds between two looks for old keys when there are none.
IDLE_S = 5.0
# Between two batches the purge pauses this many times as long as a batch took, and PAUSE_MIN_S seconds at least.
LINGER_FACTOR = 4.0
PAUSE_MIN_S = 0.1


class Purge:
    """Removes idempotency keys that are older than `retention_h` hours, and old rules; each worker process has one."""

    def __init__(self, database: Database, *, retention_h: int) -> None:
        self._database = database
        self._retention_h = retention_h

    async def run(self) -> Never:
        """Remove what is old until cancelled. While the database is unavailable, every try fails and is repeated."""
        while True:
            began_at, removed = monotonic(), 0
            try:
                removed = await self.run_once()
            except (DatabaseUnavailable, CommitUnknown) as error:
                # Safe: what is old stays so.
                log.warning("purge.database_failed", error=str(error))
            took_s = monotonic() - began_at
            await asyncio.sleep(max(PAUSE_MIN_S, LINGER_FACTOR * took_s) if removed >= PURGE_MAX else IDLE_S)

    async def run_once(self) -> int:
        """Remove a batch of keys and one of rules or their uses. Return how many rows they had.

        Raises DatabaseUnavailable or CommitUnknown.
        """
        async with self._database.transaction() as connection:
            now = await self._database.clock.now(connection)
            keys = await purge(connection, now=now, retention_h=self._retention_h)
            rules = await purge_rules(connection, now=now)
        metrics.keys_purged.inc(keys)
        return keys + rules
