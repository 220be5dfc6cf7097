"""Deliveries to the order service: what has become of their payments between the event and the attempt.

An order is confirmed for a payment that is completed, and may be cancelled for one that is refunded. Meanwhile the
payment may be refunded, and another payment may be made for the same order.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.tables import events, payments
from shared.event_types import EventType
from shared.lifecycle import LIVE, PAID, PaymentStatus

REFUNDED = "the payment was refunded: its order is not confirmed any more"
PAID_AGAIN = "another payment has paid for the order: it is not cancelled"


class KnownOfOrder(StrEnum):
    """What is known of an order before the attempt to update it."""

    CANCELLED = "cancelled"
    """An earlier attempt to confirm the order found it cancelled. A cancelled order stays so."""
    MAY_BE_PAID = "may_be_paid"
    """Another payment for the order is open. It succeeds only if the order is PENDING when it is checked."""


@dataclass(slots=True)
class OrderFacts:
    """What is known of claimed deliveries to the order service, by their ids."""

    # Why the order must not be updated any more.
    unwanted: dict[UUID, str] = field(default_factory=dict)
    known: dict[UUID, KnownOfOrder] = field(default_factory=dict)


async def read_order_facts(connection: AsyncConnection, rows: Sequence[RowMapping]) -> OrderFacts:
    """Return what is known of `rows`: claimed deliveries to the order service.

    A refunded payment confirms no order, because nothing is paid and the order may have been cancelled for it. It
    cancels none that another payment has paid for.
    """
    facts = OrderFacts()
    confirming = [row for row in rows if row["event_type"] == EventType.COMPLETED]
    retried = {row["payment_id"] for row in confirming if row["retries"] > 0}
    conflicts = await having_order_conflicts(connection, retried)
    for row in confirming:
        if row["payment_status"] == PaymentStatus.REFUNDED:
            facts.unwanted[row["id"]] = REFUNDED
        # A resend, which begins without retries, asks the order service once more.
        elif row["retries"] > 0 and row["payment_id"] in conflicts:
            facts.known[row["id"]] = KnownOfOrder.CANCELLED
    cancelling = [row for row in rows if row["event_type"] == EventType.REFUNDED]
    others = await _other_payments(connection, {row["payment_id"] for row in cancelling})
    for row in cancelling:
        statuses = others.get(row["payment_id"], set())
        if statuses & set(PAID):
            facts.unwanted[row["id"]] = PAID_AGAIN
        elif statuses:
            facts.known[row["id"]] = KnownOfOrder.MAY_BE_PAID
    return facts


async def having_order_conflicts(connection: AsyncConnection, payment_ids: Collection[UUID]) -> set[UUID]:
    """Return those of the payments that have the event of an order that was cancelled meanwhile."""
    if not payment_ids:
        return set()
    found = await connection.execute(
        select(events.c.payment_id).where(
            id_in(events.c.payment_id, payment_ids), events.c.type == EventType.ORDER_CONFLICT
        )
    )
    return set(found.scalars())


async def _other_payments(connection: AsyncConnection, payment_ids: Collection[UUID]) -> dict[UUID, set[PaymentStatus]]:
    """Return, for each of the payments, the statuses of the user's other live payments for the same order."""
    if not payment_ids:
        return {}
    other = payments.alias()
    is_other = (
        (other.c.user_id == payments.c.user_id)
        & (other.c.order_id == payments.c.order_id)
        & (other.c.id != payments.c.id)
        & other.c.status.in_(LIVE)
    )
    found = await connection.execute(
        select(payments.c.id, other.c.status.label("other_status"))
        .join(other, is_other)
        .where(id_in(payments.c.id, payment_ids))
    )
    statuses: dict[UUID, set[PaymentStatus]] = {}
    for row in found:
        statuses.setdefault(row.id, set()).add(PaymentStatus(row.other_status))
    return statuses
