"""Hints of a gateway that it has settled refunds: those that wait for its late answer are due at once.

A hint decides nothing: the worker that claims the refund asks the gateway.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import leases
from shared.database.leases import WorkItem
from shared.database.refund_tables import refunds
from shared.refund_lifecycle import RefundHistoryReason, RefundStatus


async def hasten_refunds(
    connection: AsyncConnection, refund_ids: Collection[UUID], *, gateway: str, now: datetime
) -> Sequence[WorkItem]:
    """Make those of the refunds due that wait for a late answer of this gateway; publish the result after the commit.

    See `shared.payments.notifications.hasten` for what is left alone.
    """
    return await leases.hasten(
        connection,
        refunds,
        refund_ids,
        refunds.c.status == RefundStatus.PROCESSING,
        refunds.c.due_reason == RefundHistoryReason.GATEWAY_SETTLED,
        refunds.c.gateway == gateway,
        now=now,
    )
