"""The delivery pool: a bounded number of deliveries at once, each claimed, sent and recorded.

A delivery is claimed when it has a slot, not while it waits in a queue, and no transaction is open while it is sent.
An item that is dropped here is only late: its row stays due, and the relay publishes it again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import structlog
from aiohttp import ClientSession
from aiohttp.abc import AbstractResolver

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.errors import DatabaseUnavailable
from shared.webhooks.attempts import DeliveryAttempt
from shared.webhooks.deliveries import ClaimedDelivery, hosts_of
from shared.webhooks.url_policy import AddressPolicy
from worker.deliveries.attempt import AttemptMaker
from worker.deliveries.claims import DeliveryClaims
from worker.deliveries.host_queues import HostQueues
from worker.deliveries.recorder import AttemptRecorder, AttemptResult
from worker.deliveries.ssrf_guard import guarded_connector
from worker.deliveries.webhook import open_session
from worker.slots import Interrupted, Slots

log = structlog.get_logger(__name__)

# A host that took longer than this part of the timeout counts as slow until it answers faster.
SLOW_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRules:
    """The limits of a pool: slots in all and for one host, the time of one exchange, and the length of a claim."""

    concurrency: int
    concurrency_per_host: int
    timeout_s: float
    lease_s: float
    user_agent: str


class DeliveryPool:
    """Sends at most `concurrency` deliveries at once, `concurrency_per_host` of them to one host. Needs `run`."""

    def __init__(
        self,
        database: Database,
        attempts: AttemptMaker,
        rules: DeliveryRules,
        policy: AddressPolicy,
        *,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._database = database
        self._attempts = attempts
        self._rules = rules
        self._policy = policy
        self._resolver = resolver
        self._queues = HostQueues(slots_per_host=rules.concurrency_per_host)
        self._slots = Slots("deliveries", rules.concurrency)
        self._claims = DeliveryClaims(database, lease_s=rules.lease_s, queue_max=rules.concurrency)
        self._recorder = AttemptRecorder(database, queue_max=rules.concurrency)
        self._sends: dict[int, asyncio.Task[None]] = {}
        self._numbers = count()
        self._running: tuple[asyncio.TaskGroup, ClientSession] | None = None

    @property
    def queued(self) -> int:
        """Deliveries that wait for a slot."""
        return len(self._queues)

    @property
    def in_flight(self) -> int:
        """Deliveries that are being claimed, sent or recorded."""
        return self._slots.unfinished

    @property
    def has_capacity(self) -> bool:
        """A delivery that is queued now would be sent soon; if not, another worker may be sooner."""
        return self._running is not None and not self._slots.is_closed and self.queued < 2 * self._rules.concurrency

    @property
    def lease_s(self) -> float:
        """Seconds for which a claim holds."""
        return self._rules.lease_s

    def send_leased(self, deliveries: Sequence[ClaimedDelivery], leased_at: float) -> None:
        """Queue deliveries that were inserted already leased by this process.

        `leased_at` (monotonic, in seconds) is a moment before that. One that finds no room is left to its lease.
        """
        # A shutdown may have begun meanwhile: it releases the leases, or they end.
        if self._slots.is_closed:
            self._claims.give_up(delivery.work_item for delivery in deliveries)
            return
        for delivery in deliveries:
            if self._queues.put(delivery.host, delivery.work_item):
                self._claims.keep(delivery, leased_at)
        self._start_sends()

    async def offer(self, items: Sequence[WorkItem]) -> int:
        """Queue items, and return how many. An item that has ended, is stale or does not fit is dropped.

        Returns without waiting for a slot: nothing is claimed yet, and the caller need not offer the items again.
        """
        if self._slots.is_closed or not items:
            return 0
        try:
            async with self._database.read() as connection:
                found = await hosts_of(connection, items)
        except DatabaseUnavailable as error:
            # Safe: the rows stay due, and the relay publishes them again.
            log.warning("delivery.items_dropped", count=len(items), error=str(error))
            return 0
        if self._slots.is_closed:
            return 0
        queued = sum([self._queues.put(host, item) for item, host in found])
        self._start_sends()
        return queued

    async def run(self) -> None:
        """Send what is offered until `stop`."""
        connector = guarded_connector(self._policy, resolver=self._resolver)
        rules = self._rules
        async with (
            self._slots.serving(),
            open_session(connector, timeout_s=rules.timeout_s, user_agent=rules.user_agent) as session,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._claims.run())
            group.create_task(self._recorder.run())
            self._running = group, session
            self._slots.open()
            self._start_sends()
            await self._slots.serve()
            self._queues.clear()
            for task in self._sends.values():
                # The database hangs. The leases will end.
                task.cancel()
            await self._claims.release_unsent()
            self._claims.close()
            self._recorder.close()

    async def stop(self, grace_s: float) -> None:
        """End `run`: start nothing more, let what is being sent finish for `grace_s` seconds, release the rest."""
        await self._slots.stop(grace_s)

    def _start_sends(self) -> None:
        """Start as many sends as there are slots."""
        if self._running is None:
            return
        group, session = self._running
        while self._slots.free and (taken := self._queues.take()):
            self._slots.take()
            number = next(self._numbers)
            self._sends[number] = group.create_task(self._send(session, number, *taken))

    async def _send(self, session: ClientSession, number: int, host: str, item: WorkItem) -> None:
        """Take one delivery from its claim to its record, in a slot."""
        try:
            result = await self._claim_and_attempt(session, host, item)
            if result is not None:
                await self._recorder.record(result, self._slots)
        except Exception:
            # One delivery's bug must not end the others; the lease of this one will end.
            log.exception("delivery.crashed", delivery_id=str(item.id))
        finally:
            del self._sends[number]
            self._slots.drop()
        self._start_sends()

    async def _claim_and_attempt(self, session: ClientSession, host: str, item: WorkItem) -> AttemptResult | None:
        """Claim and send one delivery in a slot of its host, which is released before the attempt is recorded."""
        attempt: DeliveryAttempt | None = None
        try:
            leased = await self._claims.claim(item)
            attempt = await self._attempt(session, leased.delivery) if leased else None
        finally:
            self._queues.release(host, was_slow=None if attempt is None else self._was_slow(attempt))
        self._start_sends()
        return AttemptResult(attempt, leased.leased_at + self._rules.lease_s) if leased and attempt else None

    def _was_slow(self, attempt: DeliveryAttempt) -> bool:
        return attempt.duration_ms > self._rules.timeout_s * 1000 * SLOW_SHARE

    async def _attempt(self, session: ClientSession, delivery: ClaimedDelivery) -> DeliveryAttempt | None:
        """Make the attempt. Return None, and give the claim up, if a shutdown interrupts it.

        The receiver may have got the delivery by then. It recognises the next attempt by the delivery's id.
        """
        try:
            async with self._slots.interruptible():
                return await self._attempts.attempt(session, delivery)
        except Interrupted:
            self._claims.give_up([delivery.work_item])
            return None
