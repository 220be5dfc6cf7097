"""The processor: the slots of a worker, and the lanes that process payments and refunds in them.

No transaction is open while the gateway or the order service is asked.
"""

import asyncio
from collections.abc import Sequence

from shared.broker.client import Queue
from shared.broker.publisher import Publisher
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.payments.outcomes import ClaimOutcome
from shared.payments.payment import Payment
from shared.refunds.outcomes import RefundOutcome, RefundWork
from worker.lane import Lane
from worker.payments.charge import Charger
from worker.payments.handler import PaymentHandler
from worker.payments.recorder import Recorder, Sender
from worker.refunds.handler import RefundHandler
from worker.refunds.recorder import RefundRecorder
from worker.refunds.repay import Repayer
from worker.slots import Slots


class Processor:
    """Processes at most `concurrency` payments and refunds at once. Needs `run`.

    A payment has its slot until the gateway has answered. As many again may wait for their record to be committed.
    When they do, the database is behind, and no slot is given out: that is the back-pressure on the queue.

    A claim holds for `lease_s` seconds. `sender` is given the deliveries of payments that move here. Without `repayer`
    no refunds are processed. With `cancels_orders` the order service is told of refunded payments. `worker` is the name
    of this process, which histories have.
    """

    def __init__(
        self,
        database: Database,
        charger: Charger,
        publisher: Publisher,
        *,
        repayer: Repayer | None = None,
        cancels_orders: bool = False,
        concurrency: int,
        lease_s: float,
        sender: Sender | None = None,
        worker: str | None = None,
    ) -> None:
        self._charger = charger
        self._repayer = repayer
        self._recorder = Recorder(
            database,
            publisher,
            queue_max=2 * concurrency,
            confirms_orders=charger.checks_orders,
            sender=sender,
        )
        self._slots = Slots("payments", concurrency, open_max=2 * concurrency)
        payments = PaymentHandler(charger, self._recorder, database.clock, lease_s=lease_s, worker=worker)
        self._payments = Lane[Payment, ClaimOutcome](
            payments, self._slots, database, lease_s=lease_s, queue_max=concurrency
        )
        self._refunds: Lane[RefundWork, RefundOutcome] | None = None
        if repayer is not None:
            recorder = RefundRecorder(
                database,
                publisher,
                queue_max=2 * concurrency,
                cancels_orders=cancels_orders,
            )
            refunds = RefundHandler(repayer, recorder, database.clock, lease_s=lease_s, worker=worker)
            self._refunds = Lane[RefundWork, RefundOutcome](
                refunds, self._slots, database, lease_s=lease_s, queue_max=concurrency
            )

    @property
    def free(self) -> int:
        """Slots for further work; 0 before `run` and after `stop`."""
        return self._slots.free

    @property
    def settled(self) -> int:
        """Payments that ended or were authorized here, since the start."""
        return self._recorder.settled

    @property
    def in_gateway(self) -> int:
        """Payments and refunds that the gateway is working on."""
        return self._charger.in_gateway + (self._repayer.in_gateway if self._repayer else 0)

    @property
    def checking_orders(self) -> int:
        """Payments that wait for the order service."""
        return self._charger.checking_orders

    async def offer(self, items: Sequence[WorkItem], queue: Queue = Queue.PROCESS) -> list[WorkItem]:
        """Claim as many items of a queue as there are free slots, and begin to process them. Return the leftover."""
        lane = self._payments if queue is Queue.PROCESS else self._refunds
        return list(items) if lane is None else await lane.offer(items)

    async def wait_for_free_slot(self, within_s: float) -> bool:
        """Wait for a free slot. Return False if there is none within the time, or there will be no more."""
        return await self._slots.wait_for_free(within_s)

    async def run(self) -> None:
        """Process what is offered until `stop`."""
        lanes = [lane for lane in (self._payments, self._refunds) if lane is not None]
        async with self._slots.serving(), asyncio.TaskGroup() as group:
            for lane in lanes:
                lane.start(group)
            self._slots.open()
            # While it drains, what the gateway answers is still recorded.
            await self._slots.serve()
            for lane in lanes:
                lane.close()

    async def stop(self, grace_s: float) -> None:
        """End `run`: claim nothing more, let the gateway answer for `grace_s` seconds, then release the rest."""
        await self._slots.stop(grace_s)
