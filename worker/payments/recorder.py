"""Recording what claims of payments ended with, and what follows the commit.

The deliveries of the payment are sent or published, its long polls are ended, and log and metrics are written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import metrics
from shared.broker.client import Queue
from shared.broker.publisher import Publisher
from shared.database.engine import Database
from shared.database.group_commit import GroupCommit
from shared.database.leases import Ended
from shared.lifecycle import HistoryReason, PaymentOperation, PaymentStatus
from shared.payments.outcomes import (
    ActionNeeded,
    Approved,
    Authorized,
    Declined,
    Postpone,
    Release,
    Retry,
    Settled,
    Unsettled,
    Voided,
)
from shared.payments.payment import Payment
from shared.payments.record import Record, Recorded, record
from shared.webhooks.deliveries import ClaimedDelivery
from worker.slots import NotRecorded, Slots, record_within_lease

log = structlog.get_logger(__name__)

# Records in one transaction.
COMMIT_MAX = 200
# See GroupCommit: how long to linger after a commit, as a multiple of the time it took.
LINGER_FACTOR = 6.0


class Sender(Protocol):
    """Sends deliveries from this process; the worker uses `worker.deliveries.pool.DeliveryPool`."""

    @property
    def has_capacity(self) -> bool:
        """A delivery that is handed over now is sent soon."""
        ...

    @property
    def lease_s(self) -> float:
        """Seconds for which to lease the deliveries that are handed over."""
        ...

    def send_leased(self, deliveries: Sequence[ClaimedDelivery], leased_at: float) -> None:
        """Send these deliveries; `leased_at` (monotonic, in seconds) is a moment before they were leased."""
        ...


@dataclass(frozen=True, slots=True)
class _Committed:
    """A record that was written, and a moment (monotonic, in seconds) before its deliveries were leased."""

    recorded: Recorded
    leased_at: float


class Recorder:
    """Records what claims ended with, many in one transaction. Needs `run`.

    While `sender` has capacity, it is given the deliveries of payments that end here, already leased. Otherwise the
    deliveries are published. With `confirms_orders` the order service is told of completed payments.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        *,
        queue_max: int,
        confirms_orders: bool,
        sender: Sender | None,
    ) -> None:
        self._clock = database.clock
        self._publisher = publisher
        self._confirms_orders = confirms_orders
        self._sender = sender
        self._records: GroupCommit[Record, _Committed | None] = GroupCommit(
            database,
            self._write,
            batch_max=COMMIT_MAX,
            queue_max=queue_max,
            linger_factor=LINGER_FACTOR,
            committed=self._after_commit,
        )
        # Payments that reached an end, since the start.
        self.settled = 0

    async def run(self) -> None:
        """Write what arrives until `close`, then what is still queued."""
        await self._records.run()

    def close(self) -> None:
        """Take no more records; `run` returns when everything is written."""
        self._records.close()

    def ended(self, ended: Ended[Payment]) -> None:
        """Publish the deliveries of a payment that ended at its claim, end its long polls, and count it."""
        self._publisher.notify_settled([ended.row.id])
        self._publisher.publish(Queue.DELIVER, ended.deliveries)
        _count(ended.row)

    async def record(self, item: Record, *, lease_ends: float, slots: Slots) -> None:
        """Record what a claim ended with, while its lease holds (`lease_ends`, monotonic, in seconds).

        A record that cannot be written by then is logged and given up: the next claim asks the gateway again.
        """
        try:
            committed = await record_within_lease(self._records, item, lease_ends=lease_ends, slots=slots)
        except NotRecorded as error:
            log.warning("payment.record_failed", attempt=item.payment.lease_version, error=str(error))
        else:
            _log_outcome(item, committed.recorded if committed else None)

    async def _write(
        self, connection: AsyncConnection, now: datetime, items: Sequence[Record]
    ) -> list[_Committed | None]:
        leased_at = monotonic()
        sender = self._sender if self._sender and self._sender.has_capacity else None
        recorded = await record(
            connection,
            now,
            items,
            confirms_orders=self._confirms_orders,
            lease_deliveries_for_s=sender.lease_s if sender else None,
            real_now=self._clock.real_now(),
        )
        return [_Committed(one, leased_at) if one else None for one in recorded]

    def _after_commit(self, batch: Sequence[_Committed | None]) -> None:
        """Send the deliveries of a committed batch, end its long polls with one message, publish what was released."""
        committed = [one for one in batch if one is not None]
        done = [one.recorded for one in committed]
        settled = [recorded.payment for recorded in done if recorded.payment.is_settled]
        # A payment that waits for its customer will be settled once more.
        self.settled += sum(payment.status is not PaymentStatus.REQUIRES_ACTION for payment in settled)
        self._publisher.notify_settled(payment.id for payment in settled)
        self._publisher.publish(Queue.DELIVER, [item for recorded in done for item in recorded.deliveries.to_publish])
        if self._sender is not None and committed:
            leased = [each for recorded in done for each in recorded.deliveries.leased]
            self._sender.send_leased(leased, committed[0].leased_at)
        # A payment that was released is due at once: another worker need not wait until the relay publishes it.
        released = [
            recorded.payment.work_item for recorded in done if recorded.payment.due_reason == HistoryReason.RELEASED
        ]
        self._publisher.publish(Queue.PROCESS, released)


def _log_outcome(item: Record, recorded: Recorded | None) -> None:
    """Log what a claim ended with in one line, and count the payment if it is settled."""
    attempt = item.payment.lease_version
    if recorded is None:
        log.info("payment.claim_lost", attempt=attempt)
        return
    payment = recorded.payment
    match item.outcome:
        case Settled(answer) | Authorized(answer):
            _log_answer(payment, answer, attempt)
        case ActionNeeded(answer):
            log.info("payment.requires_action", attempt=attempt, gateway=answer.gateway)
        case Unsettled(answer, ask_after_s):
            log.info("payment.pending", attempt=attempt, gateway=answer.gateway, ask_after_s=round(ask_after_s, 1))
        case Retry(wait_s):
            log.info("payment.postponed", attempt=attempt, wait_s=wait_s, gateway_try=payment.gateway_tries)
        case Postpone(wait_s):
            log.info("payment.postponed", attempt=attempt, wait_s=wait_s, order_check=payment.order_checks)
        case Release():
            log.info("payment.released", attempt=attempt)
    _count(payment)


def _count(payment: Payment) -> None:
    if payment.processed_at is not None:
        metrics.settled.labels(payment.status, payment.failure_code or "").inc()
        # A capture on request may come days later, and a customer takes minutes.
        if payment.due_for is PaymentOperation.CHARGE and payment.action_expires_at is None:
            metrics.settle_seconds.observe((payment.processed_at - payment.created_at).total_seconds())


def _log_answer(payment: Payment, answer: Approved | Declined | Voided, attempt: int) -> None:
    if payment.status is PaymentStatus.AUTHORIZED and isinstance(answer, Declined):
        log.info("payment.capture_failed", attempt=attempt, failure_code=answer.failure_code)
        return
    event = f"payment.{payment.status.value.lower()}"
    match answer:
        case Approved(gateway):
            log.info(event, attempt=attempt, gateway=gateway, outcome_rule=answer.outcome_rule)
        case Declined(_, failure_code):
            log.info(event, attempt=attempt, failure_code=failure_code, outcome_rule=answer.outcome_rule)
        case Voided(gateway):
            log.info(event, attempt=attempt, gateway=gateway)
