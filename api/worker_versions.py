"""Which versions the workers have that are alive: an API must not accept what an older worker would do wrong."""

import asyncio

import structlog

from shared.broker.client import Broker
from shared.broker.heartbeats import HEARTBEAT_INTERVAL_S, alive_workers

log = structlog.get_logger(__name__)


class WorkerVersions:
    """Reads the heartbeats once a second. What it knows is at most two seconds old.

    While Redis does not answer, it keeps what it knew. Before the first answer, it knows of no worker.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._has_0_1 = False

    def has_0_1(self) -> bool:
        """Return whether a worker of 0.1 is alive."""
        return self._has_0_1

    async def run(self) -> None:
        """Read the heartbeats until cancelled."""
        while True:
            await self.run_once()
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def run_once(self) -> None:
        """Read the heartbeats once, in at most a second."""
        workers = await alive_workers(self._broker)
        if workers is None:
            return
        has_0_1 = any(worker.version is None for worker in workers)
        if has_0_1 != self._has_0_1:
            log.warning("workers.of_0_1_alive" if has_0_1 else "workers.of_0_1_gone")
        self._has_0_1 = has_0_1
