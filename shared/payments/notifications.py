"""Hints of a gateway that it has settled payments: those that wait for its late answer are due at once.

A hint decides nothing: the worker that claims the payment asks the gateway.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.leases import FIRST_RELAY_AFTER_S, WorkItem
from shared.database.tables import columns_of, payments
from shared.lifecycle import HistoryReason, PaymentStatus


async def hasten(
    connection: AsyncConnection, payment_ids: Collection[UUID], *, gateway: str, now: datetime
) -> Sequence[WorkItem]:
    """Make those of the payments due that wait for a late answer of this gateway; publish the result after the commit.

    A payment in every other state, and one that is due already, is left alone: a hint that comes early, twice or late
    changes nothing.
    """
    soon = now + timedelta(seconds=FIRST_RELAY_AFTER_S)
    found = await connection.execute(
        select(*columns_of(payments, "id", "lease_version"))
        .where(
            id_in(payments.c.id, payment_ids),
            payments.c.status == PaymentStatus.PROCESSING,
            payments.c.due_reason == HistoryReason.GATEWAY_SETTLED,
            payments.c.gateway == gateway,
            payments.c.due_at > soon,
        )
        .order_by(payments.c.id)
        # A row that somebody else holds is being claimed.
        .with_for_update(skip_locked=True)
    )
    items = [WorkItem(row.id, row.lease_version) for row in found]
    if items:
        await connection.execute(
            update(payments).where(id_in(payments.c.id, [item.id for item in items])).values(due_at=soon)
        )
    return items
