"""The delivery pool: a bounded number of deliveries at once, each claimed, sent and recorded.

A delivery is claimed when it has a slot, not while it waits in a queue, and no transaction is open while it is sent.
An item that is dropped here is only late: its row stays due, and the relay publishes it again.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from time import monotonic

import structlog
from aiohttp.abc import AbstractResolver

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.errors import DatabaseUnavailable
from shared.webhooks.address_policy import AddressPolicy
from shared.webhooks.attempts import Delivered, DeliveryAttempt
from shared.webhooks.deliveries import ClaimedDelivery, flows_of
from worker.deliveries.attempt import AttemptMaker
from worker.deliveries.claims import DeliveryClaims
from worker.deliveries.fair_queues import ITEMS_MAX, FairQueues, Pace, Turn
from worker.deliveries.postponer import Postponer
from worker.deliveries.recorder import AttemptRecorder, AttemptResult
from worker.deliveries.sessions import Sessions
from worker.deliveries.shares import Limits
from worker.slots import Interrupted, Slots

log = structlog.get_logger(__name__)

# An attempt that takes longer than so many seconds, or than this part of the timeout, makes its flow slow until an
# attempt is accepted sooner.
SLOW_S, SLOW_SHARE = 2.0, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRules:
    """The limits of a pool: slots in all and for one host, the time of one exchange, and the length of a claim.

    `name_servers` are those that deliveries ask; without any they ask those of the system. At most `queue_max`
    deliveries wait for a slot.
    """

    concurrency: int
    concurrency_per_host: int
    timeout_s: float
    lease_s: float
    user_agent: str
    name_servers: tuple[str, ...] = ()
    queue_max: int = ITEMS_MAX

    @property
    def slow_after_s(self) -> float:
        """Seconds after which an attempt is slow."""
        return min(SLOW_S, self.timeout_s * SLOW_SHARE)


class DeliveryPool:
    """Sends at most `concurrency` deliveries at once, `concurrency_per_host` of them to one host. Needs `run`.

    `policy` judges every address, and `user_policy`, if it is given, those that the URLs of users lead to. With
    `refunds_conflicts` a payment whose order was cancelled meanwhile is refunded. `hold_clock` (in seconds) counts the
    pauses that receivers ask for.
    """

    def __init__(
        self,
        database: Database,
        attempts: AttemptMaker,
        rules: DeliveryRules,
        policy: AddressPolicy,
        *,
        user_policy: AddressPolicy | None = None,
        resolver: AbstractResolver | None = None,
        refunds_conflicts: bool = False,
        hold_clock: Callable[[], float] = monotonic,
    ) -> None:
        self._database = database
        self._attempts = attempts
        self._rules = rules
        self._policies = policy, user_policy or policy
        self._resolver = resolver
        limits = Limits.of(slots=rules.concurrency, slots_per_origin=rules.concurrency_per_host)
        self._queues = FairQueues(
            limits, slow_after_s=rules.slow_after_s, items_max=rules.queue_max, hold_clock=hold_clock
        )
        self._slots = Slots("deliveries", rules.concurrency)
        self._claims = DeliveryClaims(database, lease_s=rules.lease_s, queue_max=rules.concurrency)
        self._recorder = AttemptRecorder(database, queue_max=rules.concurrency, refunds_conflicts=refunds_conflicts)
        self._postponer = Postponer(database)
        self._sends: dict[int, asyncio.Task[None]] = {}
        self._numbers = count()
        self._running: tuple[asyncio.TaskGroup, Sessions] | None = None

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
        if self._running is None or self._slots.is_closed:
            return False
        # What waits because its share is used up is in no other delivery's way.
        return self._queues.unblocked_count < 2 * self._rules.concurrency and not self._queues.is_full

    @property
    def lease_s(self) -> float:
        """Seconds for which a claim holds."""
        return self._rules.lease_s

    def send_leased(self, deliveries: Sequence[ClaimedDelivery], leased_at: float) -> None:
        """Queue deliveries that were inserted already leased by this process.

        `leased_at` (monotonic, in seconds) is a moment before that. One that finds no room is postponed.
        """
        # A shutdown may have begun meanwhile: it releases the leases, or they end.
        if self._slots.is_closed:
            self._claims.give_up(delivery.work_item for delivery in deliveries)
            return
        for delivery in deliveries:
            wait_s = self._queues.put(delivery.flow, delivery.work_item)
            if wait_s is None:
                self._claims.keep(delivery, leased_at)
            else:
                self._postponer.postpone(delivery.work_item, wait_s, is_leased=True)
        self._start_sends()

    async def offer(self, items: Sequence[WorkItem]) -> int:
        """Queue items, and return how many. An item that has ended or is stale is dropped, one without room postponed.

        Returns without waiting for a slot: nothing is claimed yet, and the caller need not offer the items again.
        """
        if self._slots.is_closed or not items:
            return 0
        try:
            async with self._database.read() as connection:
                found = await flows_of(connection, items)
        except DatabaseUnavailable as error:
            # Safe: the rows stay due, and the relay publishes them again.
            log.warning("delivery.items_dropped", count=len(items), error=str(error))
            return 0
        if self._slots.is_closed:
            return 0
        queued = 0
        for item, flow in found:
            wait_s = self._queues.put(flow, item)
            if wait_s is None:
                queued += 1
            else:
                self._postponer.postpone(item, wait_s, is_leased=False)
        self._start_sends()
        return queued

    async def run(self) -> None:
        """Send what is offered until `stop`."""
        rules = self._rules
        sessions = Sessions(
            *self._policies,
            timeout_s=rules.timeout_s,
            user_agent=rules.user_agent,
            name_servers=rules.name_servers,
            lookups_max=rules.concurrency,
            resolver=self._resolver,
        )
        async with self._slots.serving(), sessions, asyncio.TaskGroup() as group:
            group.create_task(self._claims.run())
            group.create_task(self._recorder.run())
            group.create_task(self._postponer.run())
            self._running = group, sessions
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
            self._postponer.close()

    async def stop(self, grace_s: float) -> None:
        """End `run`: start nothing more, let what is being sent finish for `grace_s` seconds, release the rest."""
        await self._slots.stop(grace_s)

    def _start_sends(self) -> None:
        """Start as many sends as there are slots."""
        if self._running is None:
            return
        group, sessions = self._running
        while self._slots.free and (turn := self._queues.take()):
            self._slots.take()
            number = next(self._numbers)
            self._sends[number] = group.create_task(self._send(sessions, number, turn))

    async def _send(self, sessions: Sessions, number: int, turn: Turn) -> None:
        """Take one delivery from its claim to its record, in a slot."""
        try:
            result = await self._claim_and_attempt(sessions, turn)
            if result is not None:
                await self._recorder.record(result, self._slots)
        except Exception:
            # One delivery's bug must not end the others; the lease of this one will end.
            log.exception("delivery.crashed", delivery_id=str(turn.item.id))
        finally:
            del self._sends[number]
            self._slots.drop()
        self._start_sends()

    async def _claim_and_attempt(self, sessions: Sessions, turn: Turn) -> AttemptResult | None:
        """Claim and send one delivery in its share of the slots, which is released before the attempt is recorded."""
        attempt: DeliveryAttempt | None = None
        try:
            leased = await self._claims.claim(turn.item)
            if leased is not None:
                self._queues.began(turn)
                attempt = await self._attempt(sessions, leased.delivery)
        finally:
            self._queues.release(turn, Pace.UNKNOWN if attempt is None else self._pace_of(attempt))
        if attempt is not None and attempt.hold_s:
            self._hold(turn, attempt.hold_s)
        self._start_sends()
        return AttemptResult(attempt, leased.leased_at + self._rules.lease_s) if leased and attempt else None

    def _pace_of(self, attempt: DeliveryAttempt) -> Pace:
        if attempt.hold_s or attempt.duration_ms > self._rules.slow_after_s * 1000:
            return Pace.SLOW
        return Pace.FAST if attempt.outcome == Delivered() else Pace.UNKNOWN

    def _hold(self, turn: Turn, for_s: float) -> None:
        """Send the receiver nothing for so many seconds: what waits for it is due after that."""
        for item in self._queues.hold(turn.flow, for_s):
            self._postponer.postpone(item, for_s, is_leased=self._claims.drop_lease(item))

    async def _attempt(self, sessions: Sessions, delivery: ClaimedDelivery) -> DeliveryAttempt | None:
        """Make the attempt. Return None, and give the claim up, if a shutdown interrupts it.

        The receiver may have got the delivery by then. It recognises the next attempt by the delivery's id.
        """
        try:
            async with self._slots.interruptible():
                return await self._attempts.attempt(sessions.session_for(delivery), delivery)
        except Interrupted:
            self._claims.give_up([delivery.work_item])
            return None
