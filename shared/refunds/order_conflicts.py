"""Payments that completed although their orders were cancelled meanwhile: their event, and their one refund.

The refund is of all that is refundable. It waits for another refund that is open, because only the end of that one
says what remains.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.refund_tables import refunds
from shared.ids import new_id
from shared.lifecycle import REFUNDABLE
from shared.payments.events import emit_order_conflicts
from shared.payments.find import lock_whole_many
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundCause, RefundReason
from shared.refunds.requests import RefundRequest, request_refund

# Who requests these refunds, as clients see it. A service may have the same name: the cause tells the two apart.
REFUNDED_BY = "service:payments"


@dataclass(frozen=True, slots=True)
class OrderConflict:
    """A locked payment whose order was cancelled. `has_refund` says that its refund for that was requested before."""

    payment: Payment
    has_refund: bool

    @property
    def is_over(self) -> bool:
        """All that was captured is refunded: the payment has nothing left to do with the order."""
        return self.payment.status not in REFUNDABLE

    @property
    def is_blocked(self) -> bool:
        """Another refund is open, for which this one waits."""
        return not self.has_refund and self.payment.amounts.reserved > 0


async def lock_conflicts(connection: AsyncConnection, payment_ids: Collection[UUID]) -> dict[UUID, OrderConflict]:
    """Lock these payments until the transaction ends, and return their conflicts by payment."""
    payments = await lock_whole_many(connection, payment_ids)
    if not payments:
        return {}
    found = await connection.execute(
        select(refunds.c.payment_id).where(
            id_in(refunds.c.payment_id, payments.keys()), refunds.c.cause == RefundCause.ORDER_CONFLICT
        )
    )
    refunded = set(found.scalars())
    return {payment.id: OrderConflict(payment, payment.id in refunded) for payment in payments.values()}


async def settle_conflicts(
    connection: AsyncConnection, conflicts: Collection[OrderConflict], *, now: datetime, refunds_them: bool
) -> None:
    """Emit the event of each conflict, once; with `refunds_them` request its refund too, unless it is blocked.

    The caller publishes nothing: the relay brings the refunds and the deliveries. Call this in the transaction that
    records the attempt at the order service, with the payments locked.
    """
    unsettled = [conflict for conflict in conflicts if not conflict.is_over]
    await emit_order_conflicts(connection, [conflict.payment.id for conflict in unsettled], now=now)
    if not refunds_them:
        return
    for conflict in unsettled:
        if not conflict.has_refund and not conflict.is_blocked:
            await request_refund(connection, conflict.payment.id, _request_for(conflict.payment), now=now)


def _request_for(payment: Payment) -> RefundRequest:
    return RefundRequest(
        id=new_id(),
        amount=None,
        reason=RefundReason.ORDER_CANCELLED,
        metadata={},
        created_by=REFUNDED_BY,
        correlation_id=payment.correlation_id,
        cause=RefundCause.ORDER_CONFLICT,
    )
