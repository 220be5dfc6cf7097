"""Steps of refunds that move their payments: request, completion, failure and cancel.

Each is one row in the history of the refund, and one in that of the payment, with their events, in one transaction. The
caller holds the lock of the payment, and takes it before that of the refund.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.tables import payments
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments.balances import insert_balances, update_balances
from shared.payments.events import emit_steps
from shared.payments.history import Move
from shared.payments.history import append as append_to_payments
from shared.payments.payment import Payment
from shared.refund_lifecycle import PAYMENT_REASON_OF_END, RefundHistoryReason, RefundStatus
from shared.refunds.history import RefundMove, append
from shared.refunds.refund import Refund
from shared.webhooks.fan_out import EmittedDeliveries


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a refund. `before` and `payment` are the payment before and after it, `refund` the refund after it."""

    before: Payment
    payment: Payment
    refund: Refund
    previous: RefundStatus | None
    reason: RefundHistoryReason
    by: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def payment_reason(self) -> HistoryReason:
        """The reason of the payment's move."""
        if self.refund.status is RefundStatus.PENDING:
            return HistoryReason.REFUND_REQUESTED
        return PAYMENT_REASON_OF_END[self.refund.status]


def with_reserved(payment: Payment, amount: int, now: datetime) -> Payment:
    """Return the payment once a refund of this amount is accepted."""
    amounts = payment.amounts
    return replace(
        payment,
        sequence=payment.sequence + 1,
        updated_at=now,
        balance=replace(amounts, reserved=amounts.reserved + amount),
    )


def with_refund_ended(payment: Payment, refund: Refund, now: datetime) -> Payment:
    """Return the payment once this refund of it has ended, as the refund's status says."""
    amounts = replace(payment.amounts, reserved=payment.amounts.reserved - refund.amount)
    status = payment.status
    if refund.status is RefundStatus.COMPLETED:
        amounts = replace(amounts, refunded=amounts.refunded + refund.amount)
        is_whole = amounts.refunded == amounts.captured
        status = PaymentStatus.REFUNDED if is_whole else PaymentStatus.PARTIALLY_REFUNDED
    return replace(payment, status=status, sequence=payment.sequence + 1, updated_at=now, balance=amounts)


_MOVE = (
    update(payments)
    .where(payments.c.id == bindparam("of_payment"))
    .values(status=bindparam("new_status"), sequence=bindparam("new_sequence"), updated_at=bindparam("moved_at"))
)


async def write_steps(
    connection: AsyncConnection,
    steps: Sequence[Step],
    *,
    now: datetime,
    cancels_orders: bool = False,
    lease_for_s: float | None = None,
) -> dict[UUID, EmittedDeliveries]:
    """Write the payments, amounts, histories and events of these steps; return the deliveries by payment.

    Several steps of one payment follow each other. The rows of the refunds themselves are the caller's. With
    `cancels_orders` the order service is told of REFUNDED payments. See `shared.webhooks.fan_out` for `lease_for_s`.
    """
    if not steps:
        return {}
    last = {step.payment.id: step.payment for step in steps}
    first = {step.payment.id: step.before for step in reversed(steps)}
    await connection.execute(
        _MOVE,
        [
            {
                "of_payment": payment.id,
                "new_status": payment.status,
                "new_sequence": payment.sequence,
                "moved_at": payment.updated_at,
            }
            for payment in last.values()
        ],
    )
    await insert_balances(connection, [payment for payment in last.values() if first[payment.id].balance is None])
    await update_balances(connection, [payment for payment in last.values() if first[payment.id].balance is not None])
    await append(
        connection,
        [RefundMove(step.refund, step.previous, step.reason, step.by, step.metadata) for step in steps],
        now=now,
    )
    moves = [
        Move(
            step.payment,
            step.before.status,
            step.payment_reason,
            step.by,
            {"refund_id": str(step.refund.id), "amount": step.refund.amount},
        )
        for step in steps
    ]
    await append_to_payments(connection, moves, now=now)
    of_refunds = [step.refund.to_json(step.payment) for step in steps]
    return await emit_steps(
        connection,
        list(zip(moves, of_refunds, strict=True)),
        now=now,
        cancels_orders=cancels_orders,
        lease_for_s=lease_for_s,
    )
