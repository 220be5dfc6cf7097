"""Deliveries to the order service: which are not wanted any more, and which are known to fail.

An order is confirmed for a payment that is completed, and may be cancelled for one that is refunded. Between the event
and the attempt the payment, or another one for the same order, may have moved on.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import RowMapping, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.tables import events, payments
from shared.event_types import EventType
from shared.lifecycle import LIVE, PaymentStatus

REFUNDED = "the payment was refunded: its order is not confirmed any more"
PAID_AGAIN = "there is another payment for the same order: the order is not cancelled"


async def why_not_updated(connection: AsyncConnection, rows: Sequence[RowMapping]) -> dict[UUID, str]:
    """Return why orders must not be updated any more, by the ids of those deliveries.

    `rows` are claimed deliveries to the order service. A refunded payment confirms no order, because nothing is paid
    and the order may have been cancelled for it. It cancels none that is being paid, or was paid, by another payment.
    """
    cancelling = [row for row in rows if row["event_type"] == EventType.REFUNDED]
    paid_again = await _having_another_payment(connection, {row["payment_id"] for row in cancelling})
    reasons = {row["id"]: PAID_AGAIN for row in cancelling if row["payment_id"] in paid_again}
    for row in rows:
        if row["event_type"] == EventType.COMPLETED and row["payment_status"] == PaymentStatus.REFUNDED:
            reasons[row["id"]] = REFUNDED
    return reasons


async def known_conflicts(connection: AsyncConnection, rows: Sequence[RowMapping]) -> set[UUID]:
    """Return the ids of those deliveries whose orders earlier attempts have found cancelled.

    `rows` are claimed deliveries to the order service. A cancelled order stays so: it need not be asked for again. A
    resend asks once more.
    """
    retried = [row for row in rows if row["event_type"] == EventType.COMPLETED and row["retries"] > 0]
    found = await having_order_conflicts(connection, {row["payment_id"] for row in retried})
    return {row["id"] for row in retried if row["payment_id"] in found}


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


async def _having_another_payment(connection: AsyncConnection, payment_ids: Collection[UUID]) -> set[UUID]:
    """Return those of the payments whose user has another live payment for the same order."""
    if not payment_ids:
        return set()
    other = payments.alias()
    is_other = (
        (other.c.user_id == payments.c.user_id)
        & (other.c.order_id == payments.c.order_id)
        & (other.c.id != payments.c.id)
        & other.c.status.in_(LIVE)
    )
    found = await connection.execute(
        select(payments.c.id).where(id_in(payments.c.id, payment_ids), exists().where(is_other))
    )
    return set(found.scalars())
