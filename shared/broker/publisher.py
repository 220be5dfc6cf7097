"""The publisher: publishes in the background what was committed, so that no answer waits for Redis."""

import asyncio
from collections import deque
from collections.abc import Iterable
from time import monotonic
from uuid import UUID

from shared.broker.client import JOB_ITEMS_MAX, Broker, Queue
from shared.database.leases import WorkItem

# After a round the publisher pauses this many times as long as the round took, so that many small commits make few
# jobs.
LINGER_FACTOR = 1.0
# Ids that may wait for the publisher. Beyond that number the oldest are dropped, and the relay publishes them.
PENDING_MAX = 20_000


class Publisher:
    """Publishes in the background what other parts hand over; `run` does the work."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._pending: dict[Queue, deque[WorkItem]] = {queue: deque(maxlen=PENDING_MAX) for queue in Queue}
        self._settled: deque[UUID] = deque(maxlen=PENDING_MAX)
        self._arrived = asyncio.Event()
        self._closing = False

    def publish(self, queue: Queue, items: Iterable[WorkItem]) -> None:
        """Hand over work whose rows are committed and due.

        Never waits. If 20,000 items of the queue wait, the oldest are dropped, and the relay publishes them.
        """
        self._pending[queue].extend(items)
        self._arrived.set()

    def notify_settled(self, payment_ids: Iterable[UUID]) -> None:
        """Hand over ids of payments whose settlement is committed.

        Never waits. If 20,000 ids wait, the oldest are dropped, and a long poll finds those payments a second later.
        """
        self._settled.extend(payment_ids)
        self._arrived.set()

    async def run(self) -> None:
        """Publish what arrives until `close`, then what is left."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            began_at = monotonic()
            await self.run_once()
            if self._closing:
                return
            await asyncio.sleep(LINGER_FACTOR * (monotonic() - began_at))

    async def run_once(self) -> int:
        """Publish what has been handed over; return how many ids that were, whether or not that succeeded."""
        published = len(self._settled)
        if self._settled:
            settled, self._settled = self._settled, deque(maxlen=PENDING_MAX)
            await self._broker.notify_settled(settled)
        for queue, pending in self._pending.items():
            while pending:
                items = [pending.popleft() for _ in range(min(JOB_ITEMS_MAX, len(pending)))]
                await self._broker.publish(queue, items)
                published += len(items)
        return published

    def close(self) -> None:
        """Let `run` publish what is left and then end."""
        self._closing = True
        self._arrived.set()
