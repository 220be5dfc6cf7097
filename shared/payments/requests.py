"""What is asked of a payment that exists: to cancel it, to capture its authorization, or to end its customer's action.

Each locks the payment's row. What needs the gateway makes the payment due for an operation, which a worker claims.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import WorkItem
from shared.database.tables import payments
from shared.failure_reasons import FAILURE_REASONS
from shared.lifecycle import (
    CANCELLED_AT_ONCE,
    ActionResult,
    FailureCode,
    HistoryReason,
    OutcomeRule,
    PaymentOperation,
    PaymentStatus,
)
from shared.payments.events import emit
from shared.payments.find import lock_whole, lock_whole_many
from shared.payments.history import WORKER, Move, append
from shared.payments.payment import Payment
from shared.simulation.calls import NOT_STEERED, Steering
from shared.webhooks.fan_out import NO_DELIVERIES


@dataclass(frozen=True, slots=True)
class Requested:
    """The payment after the request, whether or not the request moved it.

    After the commit, publish `work`, which a worker is to claim, and `deliveries`.
    """

    payment: Payment
    is_moved: bool
    work: tuple[WorkItem, ...] = ()
    deliveries: tuple[WorkItem, ...] = ()


async def cancel(connection: AsyncConnection, payment_id: UUID, *, by: str, now: datetime) -> Requested | None:
    """Cancel the payment if it is PENDING or REQUIRES_ACTION; make it due for its void if it is AUTHORIZED.

    Return None if there is no such payment. Of a cancel, a capture and a claim at the same time, one comes first, and
    the others see what it did.
    """
    payment = await lock_whole(connection, payment_id)
    if payment is None:
        return None
    if payment.status in CANCELLED_AT_ONCE:
        cancelled = _moved(payment, PaymentStatus.CANCELLED, now)
        return await _move(connection, payment, cancelled, HistoryReason.CANCELLED, by, now)
    if payment.status is PaymentStatus.AUTHORIZED:
        due = _due_for(payment, PaymentOperation.VOID, now)
        return await _move(connection, payment, due, HistoryReason.VOID_REQUESTED, by, now)
    return Requested(payment, is_moved=False)


async def capture(
    connection: AsyncConnection,
    payment_id: UUID,
    *,
    amount: int | None,
    steering: Steering = NOT_STEERED,
    by: str,
    now: datetime,
) -> Requested | None:
    """Make the payment due for the capture of `amount` (minor units; None = all) if it is AUTHORIZED.

    Until the end of the authorization the capture wins over the expiry; afterwards nothing is captured. Return None if
    there is no such payment. The caller has checked that the amount is not above the payment's. `steering` is of the
    capture's calls to the gateway.
    """
    payment = await lock_whole(connection, payment_id)
    if payment is None:
        return None
    is_over = payment.capture_before is None or payment.capture_before <= now
    if payment.status is not PaymentStatus.AUTHORIZED or is_over:
        return Requested(payment, is_moved=False)
    due = replace(
        _due_for(payment, PaymentOperation.CAPTURE, now, steering),
        operation_amount=payment.amount if amount is None else amount,
    )
    requested = await _move(connection, payment, due, HistoryReason.CAPTURE_REQUESTED, by, now)
    return replace(requested, work=()) if steering.pending_ms else requested


async def answer_action(
    connection: AsyncConnection, payment_id: UUID, *, result: ActionResult, by: str, now: datetime
) -> Requested | None:
    """Record what the customer answered at the page of the bank or of PayPal: once, and before the time limit.

    An approved payment is due for the gateway, a declined one is FAILED. Return None if there is no such payment. A
    payment that does not wait for its customer any more is not moved.
    """
    payment = await lock_whole(connection, payment_id)
    if payment is None:
        return None
    if not requires_action(payment, now):
        return Requested(payment, is_moved=False)
    if result is ActionResult.DECLINED:
        declined = _failed(payment, FailureCode.AUTHENTICATION_FAILED, now)
        return await _move(connection, payment, declined, HistoryReason.ACTION_DECLINED, by, now)
    approved = replace(
        _due_for(payment, payment.due_for, now),
        action_result=result,
        operation_number=payment.operation_number,
        steering=payment.steering,
        earlier_calls=payment.earlier_calls,
    )
    return await _move(connection, payment, approved, HistoryReason.ACTION_APPROVED, by, now)


async def expire_actions(
    connection: AsyncConnection, payment_ids: Collection[UUID], *, now: datetime
) -> dict[UUID, Requested]:
    """Fail those of the payments whose customers did not answer in time, and return them by id."""
    found = await lock_whole_many(connection, payment_ids)
    expired = [
        (payment, _failed(payment, FailureCode.ACTION_EXPIRED, now))
        for payment in found.values()
        if payment.status is PaymentStatus.REQUIRES_ACTION and not requires_action(payment, now)
    ]
    moves = [
        Move(after, before.status, HistoryReason.ACTION_EXPIRED, WORKER, _told(after)) for before, after in expired
    ]
    return await _write(connection, moves, now)


def requires_action(payment: Payment, now: datetime) -> bool:
    """Return whether the customer may still approve the payment."""
    until = payment.action_expires_at
    return payment.status is PaymentStatus.REQUIRES_ACTION and until is not None and now < until


def _due_for(payment: Payment, operation: PaymentOperation, now: datetime, steering: Steering = NOT_STEERED) -> Payment:
    """Return the payment as it is due for an operation: its publication has a head start over the relay."""
    return replace(
        _moved(payment, PaymentStatus.PROCESSING, now),
        operation=operation,
        operation_number=payment.sequence + 1,
        operation_version=payment.lease_version,
        steering=steering.stored,
        earlier_calls=None,
        due_at=now + timedelta(seconds=steering.first_due_s),
        due_reason=HistoryReason.CLAIMED,
    )


def _failed(payment: Payment, code: FailureCode, now: datetime) -> Payment:
    """Return the payment as it ends without its customer's approval: the gateway was never asked to move money."""
    is_declined = code is FailureCode.AUTHENTICATION_FAILED
    return replace(
        _moved(payment, PaymentStatus.FAILED, now),
        action_result=ActionResult.DECLINED if is_declined else None,
        failure_code=code,
        failure_reason=FAILURE_REASONS[code],
        outcome_rule=OutcomeRule.CUSTOMER,
        processed_at=now,
    )


def _moved(payment: Payment, status: PaymentStatus, now: datetime) -> Payment:
    return replace(
        payment,
        status=status,
        sequence=payment.sequence + 1,
        due_at=None,
        due_reason=None,
        updated_at=now,
        held_until=None,
    )


_WRITTEN_COLUMNS = (
    "status",
    "sequence",
    "operation",
    "operation_amount",
    "operation_number",
    "operation_version",
    "steering",
    "earlier_calls",
    "due_at",
    "due_reason",
    "updated_at",
    "action_result",
    "failure_code",
    "failure_reason",
    "outcome_rule",
    "processed_at",
)


_WRITE = (
    update(payments)
    .where(payments.c.id == bindparam("of_id"))
    .values({"held_until": None} | {column: bindparam(column) for column in _WRITTEN_COLUMNS})
)


async def _move(
    connection: AsyncConnection, before: Payment, after: Payment, reason: HistoryReason, by: str, now: datetime
) -> Requested:
    written = await _write(connection, [Move(after, before.status, reason, by, _told(after))], now)
    return written[after.id]


async def _write(connection: AsyncConnection, moves: Sequence[Move], now: datetime) -> dict[UUID, Requested]:
    """Write moves of payments that are locked, with their history and their events. Return the payments by id."""
    if not moves:
        return {}
    await connection.execute(
        _WRITE,
        [
            {"of_id": move.payment.id, **{column: getattr(move.payment, column) for column in _WRITTEN_COLUMNS}}
            for move in moves
        ],
    )
    await append(connection, moves, now=now)
    emitted = await emit(connection, moves, now=now)
    return {
        move.payment.id: Requested(
            move.payment,
            is_moved=True,
            work=() if move.payment.due_at is None else (move.payment.work_item,),
            deliveries=emitted.get(move.payment.id, NO_DELIVERIES).to_publish,
        )
        for move in moves
    }


def _told(payment: Payment) -> dict[str, Any]:
    """Return what the history keeps of a request."""
    if payment.failure_code is not None:
        return {"failure_code": payment.failure_code}
    return {} if payment.operation_amount is None else {"amount": payment.operation_amount}
