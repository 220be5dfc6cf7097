"""Cancelling a payment that no worker has claimed yet, so that the gateway has never heard of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.leases import WorkItem
from shared.database.tables import columns_of, payments
from shared.lifecycle import MAY_BE_CANCELLED, HistoryReason, PaymentStatus
from shared.payments.events import emit
from shared.payments.history import Move, append
from shared.payments.payment import Payment
from shared.webhooks.fan_out import NO_DELIVERIES


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The payment after the attempt to cancel it, whether or not that succeeded."""

    payment: Payment
    is_new: bool  # this call cancelled it
    deliveries: Sequence[WorkItem] = ()


async def cancel(connection: AsyncConnection, payment_id: UUID, *, by: str, now: datetime) -> Cancelled | None:
    """Cancel the payment if it is PENDING. Return None if there is no such payment.

    If a worker claims the payment at the same time, either the cancel or the claim succeeds, and never both.
    """
    moved = await connection.execute(
        update(payments)
        .where(payments.c.id == payment_id, payments.c.status.in_(MAY_BE_CANCELLED))
        .values(
            status=PaymentStatus.CANCELLED,
            sequence=payments.c.sequence + 1,
            due_at=None,
            due_reason=None,
            updated_at=now,
        )
        .returning(*columns_of(payments))
    )
    row = moved.mappings().one_or_none()
    if row is None:
        found = await connection.execute(select(*columns_of(payments)).where(payments.c.id == payment_id))
        unmoved = found.mappings().one_or_none()
        return Cancelled(Payment.of(unmoved), is_new=False) if unmoved else None
    payment = Payment.of(row)
    await append(connection, [Move(payment, PaymentStatus.PENDING, HistoryReason.CANCELLED, by)], now=now)
    emitted = await emit(connection, [payment], now=now)
    return Cancelled(payment, is_new=True, deliveries=emitted.get(payment.id, NO_DELIVERIES).to_publish)
