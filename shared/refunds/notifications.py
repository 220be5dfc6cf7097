"""Hints of a gateway that it has settled refunds: those that wait for its late answer are due at once.

A hint decides nothing: the worker that claims the refund asks the gateway.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.leases import FIRST_RELAY_AFTER_S, WorkItem
from shared.database.refund_tables import refunds
from shared.database.tables import columns_of
from shared.refund_lifecycle import RefundHistoryReason, RefundStatus


async def hasten_refunds(
    connection: AsyncConnection, refund_ids: Collection[UUID], *, gateway: str, now: datetime
) -> Sequence[WorkItem]:
    """Make those of the refunds due that wait for a late answer of this gateway; publish the result after the commit.

    See `shared.payments.notifications.hasten` for what is left alone.
    """
    soon = now + timedelta(seconds=FIRST_RELAY_AFTER_S)
    found = await connection.execute(
        select(*columns_of(refunds, "id", "lease_version"))
        .where(
            id_in(refunds.c.id, refund_ids),
            refunds.c.status == RefundStatus.PROCESSING,
            refunds.c.due_reason == RefundHistoryReason.GATEWAY_SETTLED,
            refunds.c.gateway == gateway,
            refunds.c.due_at > soon,
        )
        .order_by(refunds.c.id)
        # A row that somebody else holds is being claimed.
        .with_for_update(skip_locked=True)
    )
    items = [WorkItem(row.id, row.lease_version) for row in found]
    if items:
        await connection.execute(
            update(refunds).where(id_in(refunds.c.id, [item.id for item in items])).values(due_at=soon)
        )
    return items
