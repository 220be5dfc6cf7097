"""Finding payments. What a client asks for is found within what its principal may see."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.refund_tables import payment_balances
from shared.database.tables import columns_of, payments
from shared.lifecycle import PaymentStatus
from shared.payments.balance import COLUMNS, balance_of
from shared.payments.payment import Payment


@dataclass(frozen=True, slots=True)
class Visible:
    """The payments that a principal may see: those of one user, those that one service created, or (both None) all."""

    user_id: str | None = None
    created_by: str | None = None

    def conditions(self) -> Iterable[ColumnElement[bool]]:
        """Yield the conditions of a WHERE clause that these payments meet."""
        if self.user_id is not None:
            yield payments.c.user_id == self.user_id
        if self.created_by is not None:
            yield payments.c.created_by == self.created_by

    def includes(self, *, user_id: str, created_by: str) -> bool:
        """Return whether a payment of this user that this principal created is one of them."""
        return self.user_id in {None, user_id} and self.created_by in {None, created_by}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """The payments that a list shows. None stands for no condition."""

    status: PaymentStatus | None = None
    order_id: str | None = None
    user_id: str | None = None
    created_after: datetime | None = None  # inclusive
    created_before: datetime | None = None  # exclusive


# Whole payments: each with its balance, if it has one.
WHOLE = select(*columns_of(payments), *columns_of(payment_balances, *COLUMNS)).outerjoin(
    payment_balances, payment_balances.c.payment_id == payments.c.id
)


def whole_payment(row: Mapping[Any, Any]) -> Payment:
    """Return the payment of a row of `WHOLE`."""
    members = dict(row)
    balance = balance_of(members)
    for column in COLUMNS:
        del members[column]
    return Payment.of(members, balance)


async def find(connection: AsyncConnection, payment_id: UUID, visible: Visible) -> Payment | None:
    """Return the payment if the principal may see it; else None, as if there were no such payment."""
    found = await connection.execute(WHOLE.where(payments.c.id == payment_id, *visible.conditions()))
    row = found.mappings().one_or_none()
    return whole_payment(row) if row else None


async def lock_whole(connection: AsyncConnection, payment_id: UUID) -> Payment | None:
    """Lock the payment until the transaction ends, and return it; None if there is no such payment."""
    return (await lock_whole_many(connection, [payment_id])).get(payment_id)


async def lock_whole_many(connection: AsyncConnection, payment_ids: Collection[UUID]) -> dict[UUID, Payment]:
    """Lock the payments until the transaction ends, in the order of their ids, and return them by id."""
    if not payment_ids:
        return {}
    await connection.execute(
        select(payments.c.id).where(id_in(payments.c.id, payment_ids)).order_by(payments.c.id).with_for_update()
    )
    # A statement of its own: one that waits for a lock sees the locked row as it is then, and a joined row as it was
    # when the statement began.
    return {payment.id: payment for payment in await find_many(connection, payment_ids)}


async def find_many(connection: AsyncConnection, payment_ids: Collection[UUID]) -> list[Payment]:
    """Return those of the payments that exist. The caller has checked that its clients may see them."""
    found = await connection.execute(WHOLE.where(id_in(payments.c.id, payment_ids)))
    return [whole_payment(row) for row in found.mappings()]


async def find_newest(
    connection: AsyncConnection, visible: Visible, filters: Filters, *, limit: int, before: UUID | None
) -> list[Payment]:
    """Return at most `limit` payments, the newest first; with `before`, only payments that are older than that one."""
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
    found = await connection.execute(WHOLE.where(*conditions).order_by(payments.c.id.desc()).limit(limit))
    return [whole_payment(row) for row in found.mappings()]


async def earlier_payments(connection: AsyncConnection, payment_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Count, for each of these payments, the earlier payments of the same user for the same order."""
    earlier = payments.alias()
    found = await connection.execute(
        select(payments.c.id, func.count(earlier.c.id))
        .outerjoin(
            earlier,
            and_(
                earlier.c.order_id == payments.c.order_id,
                earlier.c.user_id == payments.c.user_id,
                earlier.c.id < payments.c.id,
            ),
        )
        .where(id_in(payments.c.id, payment_ids))
        .group_by(payments.c.id)
    )
    return {row[0]: row[1] for row in found}
