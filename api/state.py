"""The parts of one API process: accept queue, publisher, long polls and limits, with their background tasks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from api.advance import Advancer
from api.auth.api_keys import ApiKeys
from api.auth.authenticator import open_authenticator
from api.auth.permissions import Permissions
from api.edge.admission import Admission
from api.edge.rate_limits import open_rate_limits
from api.fingerprints import known_scenarios
from api.hints import Hastened, Hint, hasten_hinted
from api.long_poll import LongPolls
from api.paths import INTENT_PATHS
from api.readiness import open_readiness
from api.single_flight import CachedCall
from api.stats import Stats
from api.steps import Steps
from api.worker_versions import WorkerVersions
from shared import metrics
from shared.broker.client import Queue
from shared.broker.publisher import Publisher
from shared.database.group_commit import GroupCommit
from shared.database.probe import is_usable
from shared.errors import WriteConflict
from shared.payments.accept import Accepted, accept
from shared.payments.intent import Intent
from shared.payments.requests import Requested
from shared.payments.usable_methods import MethodRules
from shared.runtime import Runtime
from shared.simulation.calls import read_steering

log = structlog.get_logger(__name__)

# How long the group commit lingers after a commit, as a multiple of the time that the commit took (see GroupCommit).
ACCEPT_LINGER_FACTOR = 0.5
# Hints of gateways in one transaction, and those that may wait for theirs: beyond it the answer is 503, and the service
# asks the gateway later by itself. They linger so long that payers have the database for most of the time.
HINTS_BATCH_MAX, HINTS_QUEUE_MAX, HINTS_LINGER_FACTOR = 500, 2000, 3.0
# Requests of one process whose own transaction is in progress or waits for a connection: about a second of work.
STEPS_MAX = 100
# Seconds for which the answer whether the database can be used is kept.
DATABASE_HEALTH_S = 1.0


type Step[T] = Callable[[AsyncConnection, datetime], Awaitable[T]]
"""What a request does in a transaction of its own."""


class Api:
    """The parts of one API process. `running` starts their background tasks; a task that fails ends the process."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        self.runtime = runtime
        self._started = monotonic()
        self.is_stopping = False
        self.api_keys = ApiKeys(runtime.database, runtime.keyring)
        self.authenticator = open_authenticator(settings, self.api_keys)
        self.permissions = Permissions(settings.service_scope)
        self.readiness = open_readiness(settings)
        self.database_health = CachedCall(partial(is_usable, runtime.database), ttl_s=DATABASE_HEALTH_S)
        self.admission = Admission(settings.accept_queue_max, INTENT_PATHS)
        self.steps = Steps(STEPS_MAX)
        self.rate_limits = open_rate_limits(settings, runtime.broker)
        self.publisher = Publisher(runtime.broker)
        self.stats = Stats(runtime.database, runtime.broker)
        self.long_polls = LongPolls(runtime.database, runtime.broker, capacity=settings.waiters_max)
        self.worker_versions = WorkerVersions(runtime.broker)
        self.advancer = Advancer(runtime.database, runtime.broker)
        rules = MethodRules(scenarios=known_scenarios(runtime.keyring), has_workers_of_0_1=self.worker_versions.has_0_1)
        self.intents: GroupCommit[Intent, Accepted] = GroupCommit(
            runtime.database,
            partial(accept, rules=rules),
            batch_max=settings.accept_batch_max,
            queue_max=settings.accept_queue_max,
            linger_factor=ACCEPT_LINGER_FACTOR,
            committed=self._publish_accepted,
        )
        self.hints: GroupCommit[Hint, Hastened | None] = GroupCommit(
            runtime.database,
            hasten_hinted,
            batch_max=HINTS_BATCH_MAX,
            queue_max=HINTS_QUEUE_MAX,
            linger_factor=HINTS_LINGER_FACTOR,
            committed=self._publish_hastened,
        )

    def uptime_s(self) -> float:
        """Return the seconds since this process began to serve."""
        return monotonic() - self._started

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the background tasks for the length of the block. At its end, commit and publish what is still queued."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.authenticator.running())
            await stack.enter_async_context(self.readiness.running())
            stack.push_async_callback(self.stats.close)
            stack.push_async_callback(self.database_health.close)
            stack.push_async_callback(self.api_keys.close)
            # Before the first request: an older worker must not get what it would do wrong.
            await self.worker_versions.run_once()
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            worker_versions = tasks.create_task(self.worker_versions.run())
            long_polls = tasks.create_task(self.long_polls.run())
            publisher = tasks.create_task(self.publisher.run())
            intents = tasks.create_task(self.intents.run())
            hints = tasks.create_task(self.hints.run())
            key_uses = tasks.create_task(self.api_keys.run())
            is_steerable = self.runtime.settings.is_clock_steerable
            advance = tasks.create_task(self.advancer.run()) if is_steerable else None
            counts = tasks.create_task(self.rate_limits.counter.run()) if self.rate_limits else None
            try:
                yield
            finally:
                self.long_polls.cancel_all()
                self.intents.close()
                self.hints.close()
                await asyncio.gather(intents, hints)
                self.publisher.close()
                await publisher
                long_polls.cancel()
                worker_versions.cancel()
                key_uses.cancel()
                for task in (counts, advance):
                    if task is not None:
                        task.cancel()

    async def accept(self, intent: Intent) -> Accepted:
        """Commit an intent together with others, and measure how long that takes. Raises what `accept` refuses."""
        with metrics.accept_seconds.time():
            return await self.intents.submit(intent)

    async def in_transaction[T](self, work: Step[T]) -> T:
        """Return the result of `work`, which is done in one transaction, at the time of the database's clock.

        A transaction that lost a conflict with another one is tried once more. Raises Overloaded at once, with nothing
        done, if too many transactions are in progress.
        """
        with self.steps.one():
            try:
                return await self._run(work)
            except WriteConflict:
                return await self._run(work)

    async def _run[T](self, work: Step[T]) -> T:
        database = self.runtime.database
        async with database.transaction() as connection:
            return await work(connection, await database.clock.now(connection))

    def publish_requested(self, requested: Requested) -> None:
        """Publish what a committed request has brought about, and count the payment if it has failed by it."""
        payment = requested.payment
        self.publisher.publish(Queue.DELIVER, requested.deliveries)
        self.publisher.publish(Queue.PROCESS, requested.work)
        if payment.is_settled:
            self.publisher.notify_settled([payment.id])
        if payment.processed_at is not None:
            metrics.settled.labels(payment.status, payment.failure_code or "").inc()

    def _publish_accepted(self, accepted: Sequence[Accepted]) -> None:
        new = [one for one in accepted if not one.is_replay]
        metrics.accepted.inc(len(new))
        metrics.accept_queued.set(self.intents.queued)
        for one in new:
            payment = one.payment
            log.info("payment.accepted", payment_id=str(payment.id), correlation_id=payment.correlation_id)
        # What is to stay PENDING for a while is due later, and then the relay publishes it.
        due = [one.payment for one in new if not read_steering(one.payment.steering).pending_ms]
        self.publisher.publish(Queue.PROCESS, [payment.work_item for payment in due])
        self.publisher.publish(Queue.DELIVER, [item for one in new for item in one.deliveries])

    def _publish_hastened(self, answers: Sequence[Hastened | None]) -> None:
        # The same hint may have come twice.
        hastened = dict.fromkeys(answer for answer in answers if answer is not None)
        for queue in (Queue.PROCESS, Queue.REFUND):
            self.publisher.publish(queue, [one.item for one in hastened if one.queue is queue])
        if hastened:
            log.info("gateway.notified", count=len(hastened))
