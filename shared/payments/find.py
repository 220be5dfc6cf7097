"""Looking payments up, always within what the asker may see."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.any_of import any_of
from shared.documents import Payment
from shared.lifecycle import PaymentStatus
from shared.models import payments


@dataclass(frozen=True, slots=True)
class Visible:
    """What somebody may see: payments of one user, those one service created, or (both None) all."""

    user_id: str | None = None
    created_by: str | None = None

    def conditions(self) -> Iterable[ColumnElement[bool]]:
        """The same as SQL."""
        if self.user_id is not None:
            yield payments.c.user_id == self.user_id
        if self.created_by is not None:
            yield payments.c.created_by == self.created_by

    def includes(self, payment: Payment) -> bool:
        """The same for a payment at hand."""
        return self.user_id in {None, payment.user_id} and self.created_by in {None, payment.created_by}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which payments a list shows; None = whatever."""

    status: PaymentStatus | None = None
    order_id: str | None = None
    user_id: str | None = None
    created_after: datetime | None = None  # inclusive
    created_before: datetime | None = None  # exclusive


async def find(connection: AsyncConnection, payment_id: UUID, visible: Visible) -> Payment | None:
    """The payment, if there is one that the asker may see."""
    found = await connection.execute(select(payments).where(payments.c.id == payment_id, *visible.conditions()))
    row = found.mappings().one_or_none()
    return Payment.of(row) if row else None


async def find_many(connection: AsyncConnection, payment_ids: Collection[UUID]) -> list[Payment]:
    """Those of the payments that exist, for answers to many who wait."""
    found = await connection.execute(select(payments).where(any_of(payments.c.id, payment_ids)))
    return [Payment.of(row) for row in found.mappings()]


async def newest(
    connection: AsyncConnection, visible: Visible, filters: Filters, *, limit: int, before: UUID | None
) -> list[Payment]:
    """At most `limit` payments, newest first, older than the payment `before`."""
    conditions = list(visible.conditions())
    if filters.status is not None:
        conditions.append(payments.c.status == filters.status)
    if filters.order_id is not None:
        conditions.append(payments.c.order_id == filters.order_id)
    if filters.user_id is not None:
        conditions.append(payments.c.user_id == filters.user_id)
    if filters.created_after is not None:
        conditions.append(payments.c.created_at >= filters.created_after)
    if filters.created_before is not None:
        conditions.append(payments.c.created_at < filters.created_before)
    if before is not None:
        conditions.append(payments.c.id < before)
    found = await connection.execute(select(payments).where(*conditions).order_by(payments.c.id.desc()).limit(limit))
    return [Payment.of(row) for row in found.mappings()]
