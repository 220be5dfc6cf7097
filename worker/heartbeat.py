"""The worker's heartbeat: once a second it sends to Redis what the worker is called and how busy it is.

Heartbeats are for people who watch, and for the API, which must not accept what an older worker would do wrong.
"""

import asyncio
import os
import socket
from collections import deque
from time import monotonic

from shared import metrics
from shared.broker.client import Broker
from shared.broker.heartbeats import HEARTBEAT_INTERVAL_S, WorkerStatus, remove_heartbeat, send_heartbeat
from shared.ids import new_id
from shared.version import VERSION
from worker.deliveries.pool import DeliveryPool
from worker.processor import Processor

# Heartbeats over which the payments settled per second are averaged.
RATE_OVER_BEATS = 5


def name_worker() -> str:
    """Return a name for this process: its host, its id and a random part."""
    return f"{socket.gethostname()}-{os.getpid()}-{str(new_id())[-4:]}"


class Heartbeat:
    """The heartbeat of one worker process, whose name is `worker`."""

    def __init__(self, broker: Broker, processor: Processor, pool: DeliveryPool, *, worker: str, slots: int) -> None:
        self.worker = worker
        self._broker = broker
        self._processor = processor
        self._pool = pool
        self._slots = slots
        self._started = monotonic()
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_OVER_BEATS + 1)

    async def run(self) -> None:
        """Send a heartbeat every second until cancelled, then remove it."""
        try:
            while True:
                await self.run_once()
                await asyncio.sleep(HEARTBEAT_INTERVAL_S)
        finally:
            await remove_heartbeat(self._broker, self.worker)

    async def run_once(self) -> None:
        """Send one heartbeat."""
        now = monotonic()
        self._samples.append((now, self._processor.settled))
        (since, before), settled = self._samples[0], self._processor.settled
        await send_heartbeat(
            self._broker,
            WorkerStatus(
                worker=self.worker,
                slots=self._slots,
                in_gateway=self._processor.in_gateway,
                checking_orders=self._processor.checking_orders,
                sending=self._pool.in_flight,
                settled=settled,
                settled_per_s=round((settled - before) / (now - since), 1) if now > since else 0.0,
                uptime_s=round(now - self._started, 1),
                version=VERSION,
                outcomes=metrics.outcomes(),
                settle_counts=metrics.bucket_counts(metrics.settle_seconds),
            ),
        )
