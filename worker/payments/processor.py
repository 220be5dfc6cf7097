"""The processor: claims as many payments as it has slots for, charges each, and records what its claim ended with.

No transaction is open while the gateway or the order service is asked.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from time import monotonic

import structlog

from shared import metrics
from shared.broker.publisher import Publisher
from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.database.leases import WorkItem
from shared.payments.claim import Claimed, claim
from shared.payments.payment import Payment
from shared.payments.record import Record
from worker.payments.charge import Charger
from worker.payments.recorder import Recorder, Sender
from worker.slots import Slots

log = structlog.get_logger(__name__)

# Claims in one transaction.
COMMIT_MAX = 200
# See GroupCommit: how long to linger after a commit, as a multiple of the time it took.
LINGER_FACTOR = 0.5
# Seconds before the end of a lease from which on nothing new is begun under it.
LEASE_MARGIN_S = 1.0


class Processor:
    """Charges at most `concurrency` payments at once, each in a task of its own. Needs `run`.

    A payment has its slot until the gateway has answered. As many again may wait for their record to be committed.
    When they do, the database is behind, and no slot is given out: that is the back-pressure on the queue.

    A claim holds for `lease_s` seconds. `sender` is given the deliveries of payments that end here.
    """

    def __init__(
        self,
        database: Database,
        charger: Charger,
        publisher: Publisher,
        *,
        concurrency: int,
        lease_s: float,
        sender: Sender | None = None,
    ) -> None:
        self._charger = charger
        self._lease_s = lease_s
        self._claims: GroupCommit[WorkItem, Claimed | None] = GroupCommit(
            database,
            partial(claim, lease_s=lease_s),
            batch_max=COMMIT_MAX,
            queue_max=concurrency,
            linger_factor=LINGER_FACTOR,
        )
        self._recorder = Recorder(
            database,
            publisher,
            queue_max=2 * concurrency,
            confirms_orders=charger.checks_orders,
            sender=sender,
        )
        self._slots = Slots("payments", concurrency, open_max=2 * concurrency)
        self._group: asyncio.TaskGroup | None = None

    @property
    def free(self) -> int:
        """Slots for further payments; 0 before `run` and after `stop`."""
        return self._slots.free

    @property
    def settled(self) -> int:
        """Payments that reached an end, since the start."""
        return self._recorder.settled

    @property
    def in_gateway(self) -> int:
        """Payments that the gateway is working on."""
        return self._charger.in_gateway

    @property
    def checking_orders(self) -> int:
        """Payments that wait for the order service."""
        return self._charger.checking_orders

    async def offer(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Claim as many of `items` as there are free slots, and begin to process them. Return the leftover items.

        A claim that fails is not raised: its row stays due, or its lease ends.
        """
        mine, leftover = list(items[: self.free]), list(items[self.free :])
        self._slots.take(len(mine))
        # A moment before the claims, so that no lease is believed to end later than its row says.
        claimed_at = monotonic()
        try:
            answers = await asyncio.gather(*(self._claims.submit(item) for item in mine), return_exceptions=True)
        except asyncio.CancelledError:
            for _ in mine:
                # A claim that is committed all the same is left to its lease.
                self._slots.drop()
            raise
        failures: list[BaseException] = []
        for answer in answers:
            if isinstance(answer, Claimed) and self._group is not None:
                metrics.claimed.labels(answer.reason).inc()
                self._group.create_task(self._process(answer.payment, claimed_at))
                continue
            self._slots.drop()
            if isinstance(answer, BaseException):
                # Safe: the row is due or its lease will end, and the relay publishes it again.
                failures.append(answer)
        if failures:
            log.warning("payments.claims_failed", count=len(failures), error=repr(failures[0]))
        return leftover

    async def wait_for_free_slot(self, within_s: float) -> bool:
        """Wait for a free slot. Return False if there is none within the time, or there will be no more."""
        return await self._slots.wait_for_free(within_s)

    async def run(self) -> None:
        """Process what is offered until `stop`."""
        async with self._slots.serving(), asyncio.TaskGroup() as group:
            group.create_task(self._claims.run())
            group.create_task(self._recorder.run())
            self._group = group
            self._slots.open()
            # While it drains, what the gateway answers is still recorded.
            await self._slots.serve()
            self._claims.close()
            self._recorder.close()

    async def stop(self, grace_s: float) -> None:
        """End `run`: claim nothing more, let the gateway answer for `grace_s` seconds, then release the rest."""
        await self._slots.stop(grace_s)

    async def _process(self, payment: Payment, claimed_at: float) -> None:
        """Charge one claimed payment in a slot, release the slot, and record what the claim ended with."""
        lease_ends = claimed_at + self._lease_s - LEASE_MARGIN_S
        context = {"payment_id": str(payment.id), "correlation_id": payment.correlation_id}
        try:
            with structlog.contextvars.bound_contextvars(**context):
                log.info("payment.claimed", attempt=payment.lease_version)
                try:
                    outcome = await self._charger.outcome(payment, lease_ends, self._slots)
                finally:
                    self._slots.release()
                if outcome is not None:
                    record = Record(payment, outcome)
                    await self._recorder.record(record, lease_ends=lease_ends, slots=self._slots)
        except Exception:
            # One payment's bug must not end the others; the lease of this one will end.
            log.exception("payment.crashed", payment_id=str(payment.id))
        finally:
            self._slots.end()
