"""The worker's heartbeat: once a second it says who it is and how busy, for those who watch."""

import asyncio
import os
import socket
from collections import deque
from time import monotonic

from shared.ids import new_id
from shared.presence import BEAT_EVERY_S, Beat, announce, leave
from shared.queue import Carrier
from worker.deliver import Deliverer
from worker.process_payments import Processor

RATE_OVER_BEATS = 5


class Heartbeat:
    """One per worker process; its name tells host and process."""

    def __init__(self, carrier: Carrier, processor: Processor, deliverer: Deliverer, *, slots: int) -> None:
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{str(new_id())[-4:]}"
        self._carrier = carrier
        self._processor = processor
        self._deliverer = deliverer
        self._slots = slots
        self._started = monotonic()
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_OVER_BEATS + 1)

    async def run(self) -> None:
        """Beat until cancelled, then say goodbye."""
        try:
            while True:
                await self.run_once()
                await asyncio.sleep(BEAT_EVERY_S)
        finally:
            await leave(self._carrier, self.worker)

    async def run_once(self) -> None:
        """One beat."""
        now = monotonic()
        self._samples.append((now, self._processor.settled))
        (since, before), settled = self._samples[0], self._processor.settled
        await announce(
            self._carrier,
            Beat(
                worker=self.worker,
                slots=self._slots,
                in_gateway=self._processor.in_gateway,
                sending=self._deliverer.in_flight,
                settled=settled,
                settled_per_s=round((settled - before) / (now - since), 1) if now > since else 0.0,
                uptime_s=round(now - self._started, 1),
            ),
        )
