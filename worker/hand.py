"""Tickets that a busy worker keeps for the slots that come free next.

Without a hand, a worker whose slots are all taken would pick a whole job for each slot that comes free, and put all of
it back but one ticket.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from time import monotonic

from shared.leases import Ref
from shared.queue import Carrier, Queue
from worker.process_payments import Processor

HAND_SHARE = 0.2  # of the slots, at most so many tickets: what comes free in the next moment, no more
HELD_S = 1.0  # by then somebody else may have a slot for them


class Hand:
    """Offers tickets to the processor; keeps a few of those it has no slot for, and puts the others back at once.

    What is put back keeps its place in the queue. A ticket that is lost with the process is the relay's.
    """

    def __init__(self, processor: Processor, carrier: Carrier, *, slots: int) -> None:
        self._processor = processor
        self._carrier = carrier
        self._size = max(1, int(HAND_SHARE * slots))
        self._tickets: deque[Ref] = deque()
        self._score_ms = 0  # the foremost place that any of them had in the queue
        self._taken = asyncio.Event()
        self._closing = False

    async def take(self, refs: Sequence[Ref], score_ms: int) -> None:
        """Process these payments, now or soon, or put them back to their place in the queue."""
        rest = await self._processor.offer(refs)
        kept = 0 if self._closing else max(0, self._size - len(self._tickets))
        if rest[:kept]:
            self._score_ms = min(score_ms, self._score_ms) if self._tickets else score_ms
            self._tickets += rest[:kept]
            self._taken.set()
        if rest[kept:]:
            await self._carrier.publish(Queue.PROCESS, rest[kept:], score_ms=score_ms)

    async def run(self) -> None:
        """Play the tickets as slots come free, until `close`."""
        while not (self._closing and not self._tickets):
            await self._taken.wait()
            self._taken.clear()
            until = monotonic() + HELD_S
            while self._tickets and await self._processor.frees_a_slot(until - monotonic()):
                played = [self._tickets.popleft() for _ in range(min(len(self._tickets), self._processor.free))]
                await self._processor.offer(played)  # has a slot for each
            if self._tickets:
                back, self._tickets = list(self._tickets), deque()
                await self._carrier.publish(Queue.PROCESS, back, score_ms=self._score_ms)

    def close(self) -> None:
        """Keep nothing any more; once the processor stops, `run` puts back what is in the hand and returns."""
        self._closing = True
        self._taken.set()
