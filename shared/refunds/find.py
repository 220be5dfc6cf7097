"""Finding refunds. What a client asks for is found within the payments that its principal may see."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.refund_tables import refunds
from shared.database.tables import columns_of, payments
from shared.payments.find import Visible
from shared.refund_lifecycle import RefundStatus
from shared.refunds.refund import Refund


@dataclass(frozen=True, slots=True)
class FoundRefund:
    """A refund, with what clients see of its payment. `currency` is that of both."""

    refund: Refund
    order_id: str
    currency: str

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the refund of a row of `_WITH_PAYMENT`."""
        members = dict(row)
        order_id, currency = members.pop("order_id"), members.pop("currency")
        return cls(Refund.of(members), order_id, currency)

    @property
    def id(self) -> UUID:
        """The id of the refund."""
        return self.refund.id

    @property
    def sequence(self) -> int:
        """The number of entries in the refund's history."""
        return self.refund.sequence

    @property
    def is_settled(self) -> bool:
        """The refund has ended."""
        return self.refund.status.has_ended

    def to_json(self) -> dict[str, Any]:
        """Return the refund as clients see it."""
        return self.refund.to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFilters:
    """The refunds that a list shows. None stands for no condition."""

    status: RefundStatus | None = None
    payment_id: UUID | None = None


_WITH_PAYMENT = select(*columns_of(refunds), *columns_of(payments, "order_id", "currency")).join(
    payments, payments.c.id == refunds.c.payment_id
)


async def find_refund(connection: AsyncConnection, refund_id: UUID, visible: Visible) -> FoundRefund | None:
    """Return the refund if the principal may see its payment; else None, as if there were no such refund."""
    found = await connection.execute(_WITH_PAYMENT.where(refunds.c.id == refund_id, *visible.conditions()))
    row = found.mappings().one_or_none()
    return FoundRefund.of(row) if row else None


async def find_refunds(connection: AsyncConnection, refund_ids: Collection[UUID]) -> list[FoundRefund]:
    """Return those of the refunds that exist. The caller has checked that its clients may see them."""
    found = await connection.execute(_WITH_PAYMENT.where(id_in(refunds.c.id, refund_ids)))
    return [FoundRefund.of(row) for row in found.mappings()]


async def find_newest_refunds(
    connection: AsyncConnection, visible: Visible, filters: RefundFilters, *, limit: int, before: UUID | None
) -> list[FoundRefund]:
    """Return at most `limit` refunds, the newest first; with `before`, only refunds that are older than that one."""
    conditions = list(visible.conditions())
    if filters.status is not None:
        conditions.append(refunds.c.status == filters.status)
    if filters.payment_id is not None:
        conditions.append(refunds.c.payment_id == filters.payment_id)
    if before is not None:
        conditions.append(refunds.c.id < before)
    found = await connection.execute(_WITH_PAYMENT.where(*conditions).order_by(refunds.c.id.desc()).limit(limit))
    return [FoundRefund.of(row) for row in found.mappings()]


async def earlier_refunds(connection: AsyncConnection, refund: Refund) -> int:
    """Count the refunds of the same payment that were accepted before this one."""
    found = await connection.execute(
        select(func.count()).where(refunds.c.payment_id == refund.payment_id, refunds.c.number < refund.number)
    )
    return found.scalar_one()
