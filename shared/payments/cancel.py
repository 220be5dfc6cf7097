"""Cancelling: only what no worker has claimed yet, so that the gateway has never heard of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import events
from shared.documents import Payment
from shared.leases import Ref
from shared.lifecycle import MAY_BE_CANCELLED, HistoryReason, PaymentStatus
from shared.models import payments
from shared.payments.history import Move, append


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The payment after the attempt to cancel it, whoever won."""

    payment: Payment
    is_new: bool  # this call cancelled it
    deliveries: Sequence[Ref] = ()


async def cancel(connection: AsyncConnection, payment_id: UUID, *, by: str, now: datetime) -> Cancelled | None:
    """Cancel the payment if it is PENDING; against a claim, exactly one wins. None if there is no such payment."""
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
        .returning(*payments.c)
    )
    row = moved.mappings().one_or_none()
    if row is None:
        standing = (await connection.execute(select(payments).where(payments.c.id == payment_id))).mappings().first()
        return Cancelled(Payment.of(standing), is_new=False) if standing else None
    payment = Payment.of(row)
    await append(connection, [Move(payment, PaymentStatus.PENDING, HistoryReason.CANCELLED, by)], now=now)
    told = await events.tell(connection, [payment], now=now)
    return Cancelled(payment, is_new=True, deliveries=told.get(payment.id, events.NOBODY).tickets)
