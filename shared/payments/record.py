"""Recording what a claim ended with. Every write is guarded by status and lease version."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Update, bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import lock
from shared.database.tables import payments
from shared.lifecycle import MAY_BE_SETTLED, HistoryReason, PaymentOperation, PaymentStatus
from shared.payments.after_claim import after_claim
from shared.payments.balances import insert_balances, update_balances
from shared.payments.events import emit
from shared.payments.history import WORKER, Move, append
from shared.payments.outcomes import (
    ActionNeeded,
    Approved,
    Authorized,
    ClaimOutcome,
    Declined,
    Settled,
    Unsettled,
)
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
    real_now: datetime | None = None,
) -> list[Recorded | None]:
    """Write down what each claim ended with, in the order of `records`.

    The list has None where the claim no longer holds the payment: nothing was changed. A payment that is settled gets
    its history row, its event and the event's deliveries in this transaction; with `confirms_orders` a completed one
    also the delivery to the order service. See `shared.webhooks.fan_out` for `lease_deliveries_for_s`.
    """
    items = [item.payment.work_item for item in records]
    held = await lock(connection, payments, items, payments.c.status, payments.c.sequence)
    after = {
        item.payment.work_item: after_claim(item.payment, item.outcome, now)
        for item in records
        if (row := held.get(item.payment.work_item)) is not None
        and row["status"] in MAY_BE_SETTLED
        # A request to capture or void makes the payment PROCESSING again, with the lease version of the claim that
        # authorized it. What that claim repeats is not for this operation.
        and row["sequence"] == item.payment.sequence
    }
    await _write(connection, after.values())
    moved = [(after[item.payment.work_item], item.outcome) for item in records if item.payment.work_item in after]
    await _write_balances(connection, moved)
    moves = [_move(payment, outcome) for payment, outcome in moved if isinstance(outcome, Moving)]
    await append(connection, moves, now=now)
    emitted = await emit(
        connection,
        moves,
        now=now,
        confirms_orders=confirms_orders,
        lease_for_s=lease_deliveries_for_s,
        real_now=real_now,
    )
    return [
        Recorded(payment, emitted.get(payment.id, NO_DELIVERIES))
        if (payment := after.get(item.payment.work_item))
        else None
        for item in records
    ]


async def _write(connection: AsyncConnection, recorded: Collection[Payment]) -> None:
    plain = [payment for payment in recorded if payment.operation is None]
    for statement, columns, written in (
        (_RECORD, _COLUMNS_OF_CHARGE, [payment for payment in plain if payment.simulated is None]),
        (_RECORD_STEERED, _COLUMNS_OF_STEERED_CHARGE, [payment for payment in plain if payment.simulated is not None]),
        (_RECORD_OPERATION, _COLUMNS_OF_OPERATION, [payment for payment in recorded if payment.operation is not None]),
    ):
        if written:
            await connection.execute(
                statement,
                [
                    {"record_id": payment.id, **{column: getattr(payment, column) for column in columns}}
                    for payment in written
                ],
            )


async def _write_balances(connection: AsyncConnection, moved: Sequence[tuple[Payment, ClaimOutcome]]) -> None:
    """Write the amounts of payments that were authorized or, after that, captured."""
    authorized = [payment for payment, outcome in moved if isinstance(outcome, Authorized)]
    captured = [
        payment
        for payment, outcome in moved
        if payment.due_for is not PaymentOperation.CHARGE
        and isinstance(outcome, Settled)
        and isinstance(outcome.answer, Approved)
    ]
    await insert_balances(connection, authorized)
    await update_balances(connection, captured)


# Outcomes that are moves of their own.
Moving = Settled | Authorized | ActionNeeded | Unsettled
_REASONS = {
    Authorized: HistoryReason.AUTHORIZED,
    ActionNeeded: HistoryReason.ACTION_REQUIRED,
    Unsettled: HistoryReason.GATEWAY_PENDING,
}


def _move(payment: Payment, outcome: Moving) -> Move:
    reason = outcome.reason if isinstance(outcome, Settled) else _REASONS[type(outcome)]
    answer = outcome.answer
    metadata: dict[str, Any] = {"gateway": answer.gateway}
    match answer:
        case Approved():
            metadata["gateway_transaction_id"] = answer.transaction_id
            if payment.due_for is PaymentOperation.CAPTURE:
                metadata["amount"] = payment.amounts.captured
        case Declined():
            metadata["failure_code"] = answer.failure_code
        case _:
            pass
    return Move(payment, PaymentStatus.PROCESSING, reason, WORKER, metadata)


_COLUMNS_OF_CHARGE = (
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
_COLUMNS_OF_STEERED_CHARGE = (*_COLUMNS_OF_CHARGE, "simulated")
_COLUMNS_OF_OPERATION = (
    *_COLUMNS_OF_STEERED_CHARGE,
    "operation",
    "operation_amount",
    "operation_number",
    "operation_version",
    # That of a plain charge which became a named one; else as it is.
    "operation_claim",
    "earlier_calls",
    "capture_before",
    "last_capture_error",
    "action_expires_at",
)


def _update(columns: Sequence[str]) -> Update:
    return (
        update(payments)
        .where(payments.c.id == bindparam("record_id"))
        .values({"held_until": None} | {column: bindparam(column) for column in columns})
    )


# The plain charge writes no more columns than it needs.
_RECORD = _update(_COLUMNS_OF_CHARGE)
_RECORD_STEERED = _update(_COLUMNS_OF_STEERED_CHARGE)
_RECORD_OPERATION = _update(_COLUMNS_OF_OPERATION)
