"""Hints of gateways that something is settled, many in one transaction. Their own word decides nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.broker.client import Queue
from shared.database.leases import WorkItem
from shared.payments.notifications import hasten
from shared.refunds.notifications import hasten_refunds


@dataclass(frozen=True, slots=True)
class Hint:
    """What a gateway says that it has settled: a payment or, with `refund_id`, a refund of it."""

    gateway: str
    payment_id: UUID
    refund_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Hastened:
    """What is due now because of a hint: to be published in this queue."""

    queue: Queue
    item: WorkItem


async def hasten_hinted(connection: AsyncConnection, now: datetime, hints: Sequence[Hint]) -> Sequence[Hastened | None]:
    """Make due what waits for a late answer; see `hasten`. The answers are in the order of the hints, None for others.

    Only what the gateway of the hint itself is to answer is made due.
    """
    found: dict[tuple[str, UUID], Hastened] = {}
    for gateway in sorted({hint.gateway for hint in hints}):
        payments = {hint.payment_id for hint in hints if hint.gateway == gateway and hint.refund_id is None}
        refunds = {hint.refund_id for hint in hints if hint.gateway == gateway and hint.refund_id is not None}
        if payments:
            for item in await hasten(connection, payments, gateway=gateway, now=now):
                found[gateway, item.id] = Hastened(Queue.PROCESS, item)
        if refunds:
            for item in await hasten_refunds(connection, refunds, gateway=gateway, now=now):
                found[gateway, item.id] = Hastened(Queue.REFUND, item)
    return [found.get((hint.gateway, hint.refund_id or hint.payment_id)) for hint in hints]
