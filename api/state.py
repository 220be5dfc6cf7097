"""What the API holds while it runs: the accept queue, the publisher and the waiting room, each with its task."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import structlog

from api.admission import Admission
from api.doorkeeper import Doorkeeper
from api.neighbours import Neighbours
from api.rate_limits import open_rate_limits
from api.stats import Stats
from api.waiting import WaitingRoom
from shared import metrics
from shared.group_commit import GroupCommit
from shared.payments.accept import Accepted, Intent, accept
from shared.queue import Publisher, Queue
from shared.runtime import Runtime

log = structlog.get_logger(__name__)

INTENT_PATHS = frozenset({"/api/v1/payments", "/api/payments"})
ACCEPT_REST = 0.5  # times the last commit, before the next one: see GroupCommit


class Api:
    """The parts of the door. `running` gives them their tasks; a task that dies takes the process with it."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        self.runtime = runtime
        self._started = monotonic()
        self.doorkeeper = Doorkeeper(settings)
        self.neighbours = Neighbours(settings)
        self.admission = Admission(settings.accept_queue_max, INTENT_PATHS)
        self.rate_limits = open_rate_limits(settings, runtime.carrier)
        self.publisher = Publisher(runtime.carrier)
        self.stats = Stats(runtime.database, runtime.carrier)
        self.waiting = WaitingRoom(runtime.database, runtime.carrier, capacity=settings.waiters_max)
        self.intents: GroupCommit[Intent, Accepted] = GroupCommit(
            runtime.database,
            accept,
            batch_max=settings.accept_batch_max,
            queue_max=settings.accept_queue_max,
            rest=ACCEPT_REST,
            committed=self._accepted,
        )

    def uptime_s(self) -> float:
        """Seconds since this process began to serve."""
        return monotonic() - self._started

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the parts; at the end, commit and publish what is still queued."""
        async with self.doorkeeper.running(), self.neighbours.running(), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(self.waiting.run())
            publisher = tasks.create_task(self.publisher.run())
            intents = tasks.create_task(self.intents.run())
            counting = tasks.create_task(self.rate_limits.shared.run()) if self.rate_limits else None
            try:
                yield
            finally:
                self.waiting.drain()
                self.intents.close()
                await intents
                self.publisher.close()
                await publisher
                waiting.cancel()
                if counting is not None:
                    counting.cancel()

    def _accepted(self, answers: Sequence[Accepted]) -> None:
        new = [answer for answer in answers if not answer.is_replay]
        metrics.accepted.inc(len(new))
        metrics.accept_queued.set(self.intents.queued)
        for answer in new:
            payment = answer.payment
            log.info("payment.accepted", payment_id=str(payment.id), correlation_id=payment.correlation_id)
        self.publisher.publish(Queue.PROCESS, [answer.payment.ref for answer in new])
        self.publisher.publish(Queue.DELIVER, [ref for answer in new for ref in answer.deliveries])
