"""What a client asks of refunds: to refund a payment, and to cancel a refund. Both lock the payment's row first."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import WorkItem
from shared.database.refund_tables import refunds
from shared.database.tables import columns_of
from shared.lifecycle import REFUNDABLE
from shared.payments.find import lock_whole
from shared.payments.payment import Payment
from shared.refund_lifecycle import (
    MAY_BE_CANCELLED,
    RefundCause,
    RefundHistoryReason,
    RefundReason,
    RefundStatus,
)
from shared.refunds.refund import Refund
from shared.refunds.steps import Step, with_refund_ended, with_reserved, write_steps
from shared.simulation.calls import NOT_STEERED, Steering
from shared.webhooks.fan_out import NO_DELIVERIES


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundRequest:
    """A valid request for a refund. `amount` is in minor units; None = all that is refundable."""

    id: UUID
    amount: int | None
    reason: RefundReason
    metadata: dict[str, str]
    created_by: str
    correlation_id: str | None
    cause: RefundCause | None = None
    steering: Steering = NOT_STEERED


@dataclass(frozen=True, slots=True)
class NotRefundable:
    """The payment has a status in which it is never refunded."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class ExceedsBalance:
    """Less is refundable than was asked for, or nothing: see the payment's amounts."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class RefundMoved:
    """The refund and its payment after a request, whether or not the request moved them.

    After the commit, publish `work`, which a worker is to claim, and `deliveries`.
    """

    refund: Refund
    payment: Payment
    is_moved: bool
    work: tuple[WorkItem, ...] = ()
    deliveries: tuple[WorkItem, ...] = ()


async def request_refund(
    connection: AsyncConnection, payment_id: UUID, request: RefundRequest, *, now: datetime
) -> RefundMoved | NotRefundable | ExceedsBalance | None:
    """Accept a refund and reserve its amount; None if there is no such payment.

    Requests for one payment wait for each other here, so that together they never exceed what was captured.
    """
    payment = await lock_whole(connection, payment_id)
    if payment is None:
        return None
    if payment.status not in REFUNDABLE:
        return NotRefundable(payment)
    refundable = payment.amounts.refundable
    amount = refundable if request.amount is None else request.amount
    if not 0 < amount <= refundable:
        return ExceedsBalance(payment)
    after = with_reserved(payment, amount, now)
    refund = _new(request, after, amount, now)
    await connection.execute(insert(refunds), [_row(refund)])
    step = Step(payment, after, refund, None, RefundHistoryReason.REQUESTED, request.created_by)
    emitted = await write_steps(connection, [step], now=now)
    deliveries = emitted.get(payment.id, NO_DELIVERIES).to_publish
    work = () if request.steering.pending_ms else (refund.work_item,)
    return RefundMoved(refund, after, is_moved=True, work=work, deliveries=deliveries)


async def cancel_refund(connection: AsyncConnection, refund: Refund, *, by: str, now: datetime) -> RefundMoved | None:
    """Cancel the refund if it is PENDING. Return None if its payment does not exist.

    If a worker claims the refund at the same time, either the cancel or the claim succeeds, and never both.
    """
    payment = await lock_whole(connection, refund.payment_id)
    if payment is None:
        return None
    cancelled = await connection.execute(
        update(refunds)
        .where(refunds.c.id == refund.id, refunds.c.status.in_(MAY_BE_CANCELLED))
        .values(
            status=RefundStatus.CANCELLED,
            sequence=refunds.c.sequence + 1,
            due_at=None,
            due_reason=None,
            updated_at=now,
        )
        .returning(*columns_of(refunds))
    )
    row = cancelled.mappings().one_or_none()
    if row is None:
        found = await connection.execute(select(*columns_of(refunds)).where(refunds.c.id == refund.id))
        return RefundMoved(Refund.of(found.mappings().one()), payment, is_moved=False)
    after = Refund.of(row)
    moved = with_refund_ended(payment, after, now)
    step = Step(payment, moved, after, RefundStatus.PENDING, RefundHistoryReason.CANCELLED, by)
    emitted = await write_steps(connection, [step], now=now)
    return RefundMoved(after, moved, is_moved=True, deliveries=emitted.get(payment.id, NO_DELIVERIES).to_publish)


def _new(request: RefundRequest, payment: Payment, amount: int, now: datetime) -> Refund:
    return Refund(
        id=request.id,
        payment_id=payment.id,
        number=payment.sequence,
        amount=amount,
        reason=request.reason,
        metadata=request.metadata,
        created_by=request.created_by,
        cause=request.cause,
        correlation_id=request.correlation_id,
        status=RefundStatus.PENDING,
        sequence=1,
        lease_version=0,
        gateway_tries=0,
        due_at=now + timedelta(seconds=request.steering.first_due_s),
        due_reason=RefundHistoryReason.CLAIMED,
        gateway=None,
        gateway_transaction_id=None,
        failure_code=None,
        failure_reason=None,
        created_at=now,
        updated_at=now,
        processed_at=None,
        steering=request.steering.stored,
    )


def _row(refund: Refund) -> dict[str, object]:
    return {column.key: getattr(refund, column.key) for column in refunds.columns}
