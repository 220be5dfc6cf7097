"""The prefetch buffer: work that a busy worker keeps for the slots that become free next.

Without the buffer, a worker whose slots are all taken would pick a whole job for each slot that becomes free, and put
all but one of its items back.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from time import monotonic

from shared.broker.client import Broker, Queue
from shared.database.leases import WorkItem
from worker.processor import Processor

# The size of the buffer as a part of the slots: as many as become free in the next moment. More would wait here while
# another worker has a free slot.
BUFFER_SHARE = 0.2
# Seconds that an item is buffered: after them another worker may be sooner.
BUFFERED_S = 1.0


class PrefetchBuffer:
    """Offers work to the processor, keeps a few items that it has no slot for, and puts the others back at once.

    What is put back keeps its place in the queue. An item that is lost with the process stays due, and the relay
    publishes it again.
    """

    def __init__(self, processor: Processor, broker: Broker, queue: Queue = Queue.PROCESS, *, slots: int) -> None:
        self.queue = queue
        self._processor = processor
        self._broker = broker
        self._size = max(1, int(BUFFER_SHARE * slots))
        self._items: deque[WorkItem] = deque()
        # The foremost place in the queue that any of the items had, in Unix milliseconds.
        self._score_ms = 0
        self._has_items = asyncio.Event()
        self._closing = False

    async def take(self, items: Sequence[WorkItem], score_ms: int) -> None:
        """Process these payments now or soon; put those back for which there is no room.

        `score_ms` is the place in the queue that they keep, in Unix milliseconds.
        """
        leftover = await self._processor.offer(items, self.queue)
        room = 0 if self._closing else max(0, self._size - len(self._items))
        if leftover[:room]:
            self._score_ms = min(score_ms, self._score_ms) if self._items else score_ms
            self._items += leftover[:room]
            self._has_items.set()
        if leftover[room:]:
            await self._broker.publish(self.queue, leftover[room:], score_ms=score_ms)

    async def run(self) -> None:
        """Offer the buffered items as slots become free, and put them back after BUFFERED_S seconds, until `close`."""
        while not (self._closing and not self._items):
            await self._has_items.wait()
            self._has_items.clear()
            until = monotonic() + BUFFERED_S
            while self._items and await self._processor.wait_for_free_slot(until - monotonic()):
                next_items = [self._items.popleft() for _ in range(min(len(self._items), self._processor.free))]
                # The processor has a slot for each of them.
                await self._processor.offer(next_items, self.queue)
            if self._items:
                back, self._items = list(self._items), deque()
                await self._broker.publish(self.queue, back, score_ms=self._score_ms)

    def close(self) -> None:
        """Keep no more items; once the processor stops, `run` puts the buffered ones back and returns."""
        self._closing = True
        self._has_items.set()
