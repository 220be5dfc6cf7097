"""The history of a payment: one row per move, numbered without gaps, never changed afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.histories import history_row, read_history
from shared.database.tables import payment_history
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments.payment import Payment

WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Move:
    """A move of a payment. `payment` is the payment after the move; `previous` is None for its first entry."""

    payment: Payment
    previous: PaymentStatus | None
    reason: HistoryReason
    by: str
    metadata: dict[str, Any] = field(default_factory=dict)


async def append(connection: AsyncConnection, moves: Sequence[Move], *, now: datetime) -> None:
    """Insert a row for each move. Its number is the sequence of the payment after the move."""
    if moves:
        await connection.execute(
            insert(payment_history),
            [history_row(payment_history.c.payment_id, move.payment, move, now=now) for move in moves],
        )


async def status_since(connection: AsyncConnection, payment: Payment) -> datetime:
    """Return the moment of the payment's status, as refusals say it; while it is PROCESSING, that of the latest claim.

    Refunds move a PARTIALLY_REFUNDED payment without another status, so only its history has that moment.
    """
    if payment.status is not PaymentStatus.PARTIALLY_REFUNDED:
        return payment.since
    return await partially_refunded_since(connection, payment.id) or payment.since


async def partially_refunded_since(connection: AsyncConnection, payment_id: UUID) -> datetime | None:
    """Return when the payment became PARTIALLY_REFUNDED; None if it never did."""
    found = await connection.execute(
        select(payment_history.c.created_at)
        .where(
            payment_history.c.payment_id == payment_id,
            payment_history.c.new_status == PaymentStatus.PARTIALLY_REFUNDED,
        )
        .order_by(payment_history.c.sequence)
        .limit(1)
    )
    moment: datetime | None = found.scalar_one_or_none()
    return moment


async def history_of(connection: AsyncConnection, payment_id: UUID, *, names_workers: bool) -> list[dict[str, Any]]:
    """Return the history of a payment as clients see it, the oldest move first. See `read_history`."""
    return await read_history(connection, payment_history.c.payment_id, payment_id, names_workers=names_workers)
