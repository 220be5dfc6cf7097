"""Hints of a gateway that it has settled payments: those that wait for its late answer are due at once.

A hint decides nothing: the worker that claims the payment asks the gateway.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import leases
from shared.database.leases import WorkItem
from shared.database.tables import payments
from shared.lifecycle import HistoryReason, PaymentStatus


async def hasten(
    connection: AsyncConnection, payment_ids: Collection[UUID], *, gateway: str, now: datetime
) -> Sequence[WorkItem]:
    """Make those of the payments due that wait for a late answer of this gateway; publish the result after the commit.

    A payment in every other state, and one that is due already, is left alone: a hint that comes early, twice or late
    changes nothing.
    """
    return await leases.hasten(
        connection,
        payments,
        payment_ids,
        payments.c.status == PaymentStatus.PROCESSING,
        payments.c.due_reason == HistoryReason.GATEWAY_SETTLED,
        payments.c.gateway == gateway,
        now=now,
    )
