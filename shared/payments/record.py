"""Recording what a claim ended with. Every write is guarded by status and lease version."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import lock
from shared.database.tables import payments
from shared.lifecycle import MAY_BE_SETTLED, HistoryReason, PaymentStatus
from shared.payments.events import emit
from shared.payments.history import WORKER, Move, append
from shared.payments.outcomes import Approved, ClaimOutcome, Declined, GatewayAnswer, Postpone, Release, Retry, Settled
from shared.payments.payment import Payment
from shared.webhooks.fan_out import NO_DELIVERIES, EmittedDeliveries


@dataclass(frozen=True, slots=True)
class Record:
    """What one claim ended with. `payment` is the payment as it was claimed."""

    payment: Payment
    outcome: ClaimOutcome


@dataclass(frozen=True, slots=True)
class Recorded:
    """A payment after its record, and the deliveries of the event that the record emitted."""

    payment: Payment
    deliveries: EmittedDeliveries = NO_DELIVERIES


async def record(
    connection: AsyncConnection,
    now: datetime,
    records: Sequence[Record],
    *,
    confirms_orders: bool = False,
    lease_deliveries_for_s: float | None = None,
) -> list[Recorded | None]:
    """Write down what each claim ended with, in the order of `records`.

    The list has None where the claim no longer holds the payment: nothing was changed. A payment that is settled gets
    its history row, its event and the event's deliveries in this transaction; with `confirms_orders` a completed one
    also the delivery to the order service. See `shared.webhooks.fan_out` for `lease_deliveries_for_s`.
    """
    held = await lock(connection, payments, [item.payment.work_item for item in records], payments.c.status)
    after = {
        item.payment.work_item: _after(item, now)
        for item in records
        if item.payment.work_item in held and held[item.payment.work_item]["status"] in MAY_BE_SETTLED
    }
    if after:
        await connection.execute(_RECORD, [_parameters(payment) for payment in after.values()])
    settled = [
        Move(
            after[item.payment.work_item],
            PaymentStatus.PROCESSING,
            item.outcome.reason,
            WORKER,
            _history_metadata(item.outcome.answer),
        )
        for item in records
        if item.payment.work_item in after and isinstance(item.outcome, Settled)
    ]
    await append(connection, settled, now=now)
    emitted = await emit(
        connection,
        [move.payment for move in settled],
        now=now,
        confirms_orders=confirms_orders,
        lease_for_s=lease_deliveries_for_s,
    )
    return [
        Recorded(payment, emitted.get(payment.id, NO_DELIVERIES))
        if (payment := after.get(item.payment.work_item))
        else None
        for item in records
    ]


_RECORDED_COLUMNS = (
    "status",
    "sequence",
    "gateway_tries",
    "due_at",
    "due_reason",
    "gateway",
    "gateway_transaction_id",
    "gateway_details",
    "outcome_rule",
    "failure_code",
    "failure_reason",
    "updated_at",
    "processed_at",
    "order_checks",
    "order_check_until",
)
_RECORD = (
    update(payments)
    .where(payments.c.id == bindparam("record_id"))
    .values({column: bindparam(column) for column in _RECORDED_COLUMNS})
)


def _parameters(payment: Payment) -> dict[str, Any]:
    return {"record_id": payment.id, **{column: getattr(payment, column) for column in _RECORDED_COLUMNS}}


def _after(record: Record, now: datetime) -> Payment:
    """Return the payment as its outcome leaves it."""
    payment = record.payment
    match record.outcome:
        case Settled(answer):
            return _settled(payment, answer, now)
        case Retry(wait_s):
            return replace(
                payment,
                gateway_tries=payment.gateway_tries + 1,
                due_at=now + timedelta(seconds=wait_s),
                due_reason=HistoryReason.RETRIED,
            )
        case Postpone(wait_s, until):
            return replace(
                payment,
                order_checks=payment.order_checks + 1,
                order_check_until=until,
                due_at=max(now, min(now + timedelta(seconds=wait_s), until)),
                due_reason=HistoryReason.ORDER_UNREACHABLE,
            )
        case Release():
            return replace(payment, due_at=now, due_reason=HistoryReason.RELEASED)


def _settled(payment: Payment, answer: GatewayAnswer, now: datetime) -> Payment:
    common: dict[str, Any] = {
        "gateway": answer.gateway,
        "gateway_details": answer.details,
        "outcome_rule": answer.outcome_rule,
        "sequence": payment.sequence + 1,
        "due_at": None,
        "due_reason": None,
        "updated_at": now,
        "processed_at": now,
    }
    match answer:
        case Approved():
            return replace(
                payment, status=PaymentStatus.COMPLETED, gateway_transaction_id=answer.transaction_id, **common
            )
        case Declined():
            return replace(
                payment,
                status=PaymentStatus.FAILED,
                failure_code=answer.failure_code,
                failure_reason=answer.failure_reason,
                **common,
            )


def _history_metadata(answer: GatewayAnswer) -> dict[str, Any]:
    match answer:
        case Approved():
            return {"gateway": answer.gateway, "gateway_transaction_id": answer.transaction_id}
        case Declined():
            return {"gateway": answer.gateway, "failure_code": answer.failure_code}
