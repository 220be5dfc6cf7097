"""Receivers that fail: to which deliveries wait for another attempt. It only reads, by the index of what is due."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.tables import deliveries, webhook_endpoints


@dataclass(frozen=True, slots=True)
class FailingReceiver:
    """A kind of receiver, or an endpoint, and how many deliveries to it wait for another attempt."""

    kind: str
    endpoint_id: UUID | None
    endpoint_name: str | None
    waiting: int


async def failing_receivers(connection: AsyncConnection, *, limit: int) -> list[FailingReceiver]:
    """Return the receivers with the most deliveries that failed and are due again, at most `limit`."""
    waiting = func.count().label("waiting")
    found = await connection.execute(
        select(deliveries.c.kind, deliveries.c.endpoint_id, webhook_endpoints.c.name, waiting)
        .outerjoin(webhook_endpoints, webhook_endpoints.c.id == deliveries.c.endpoint_id)
        .where(deliveries.c.due_at.is_not(None), deliveries.c.retries > 0)
        .group_by(deliveries.c.kind, deliveries.c.endpoint_id, webhook_endpoints.c.name)
        .order_by(waiting.desc())
        .limit(limit)
    )
    return [FailingReceiver(*row) for row in found]
