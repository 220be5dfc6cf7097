"""Postponing deliveries that this process cannot send now: those of a receiver that asked for a pause, and those that
found no room in the queues.
"""

import asyncio
from collections import deque

import structlog

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.errors import CommitUnknown, DatabaseUnavailable
from shared.webhooks.deliveries import Postponement, postpone

log = structlog.get_logger(__name__)

# Postponements in one transaction, and those that may wait for theirs.
COMMIT_MAX = 500
QUEUE_MAX = 50_000
# Seconds between two transactions: what comes meanwhile shares the next one.
LINGER_S = 0.1


class Postponer:
    """Writes postponements soon, many in one transaction. Needs `run`.

    One that is not written is only late: the lease of its delivery ends, or the relay publishes it again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: deque[Postponement] = deque(maxlen=QUEUE_MAX)
        self._arrived = asyncio.Event()
        self._is_closing = False

    def postpone(self, item: WorkItem, wait_s: float, *, is_leased: bool) -> None:
        """Let the delivery be due in `wait_s` seconds; `is_leased` if it was inserted already leased."""
        self._queue.append(Postponement(item, wait_s, is_leased))
        self._arrived.set()

    async def run(self) -> None:
        """Write what arrives until `close`, then what is still queued."""
        while True:
            await self._arrived.wait()
            while self._queue:
                await self._write([self._queue.popleft() for _ in range(min(COMMIT_MAX, len(self._queue)))])
            if self._is_closing:
                return
            self._arrived.clear()
            await asyncio.sleep(LINGER_S)

    def close(self) -> None:
        """Let `run` return when everything is written."""
        self._is_closing = True
        self._arrived.set()

    async def _write(self, batch: list[Postponement]) -> None:
        try:
            async with self._database.transaction() as connection:
                now = await self._database.clock.now(connection)
                count = await postpone(connection, now, batch)
        except (DatabaseUnavailable, CommitUnknown) as error:
            # Safe: the deliveries are due when their leases end, or when the relay had put them off to.
            log.warning("delivery.not_postponed", count=len(batch), error=repr(error))
        else:
            log.info("delivery.postponed", count=count)
