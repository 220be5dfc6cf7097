"""The events of a payment as they were written down. It only reads; the caller has checked who may see the payment."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.tables import columns_of, events


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event; `body` is what its receivers get, to the letter."""

    id: UUID
    payment_id: UUID
    sequence: int
    type: str
    body: str
    created_at: datetime


_EVENTS = select(*columns_of(events, "id", "payment_id", "sequence", "type", "body", "created_at"))


async def events_of_payment(connection: AsyncConnection, payment_id: UUID, *, limit: int) -> list[LoggedEvent]:
    """Return at most `limit` events of the payment, the oldest first."""
    wanted = _EVENTS.where(events.c.payment_id == payment_id).order_by(events.c.sequence, events.c.id).limit(limit)
    return [LoggedEvent(*row) for row in await connection.execute(wanted)]


async def find_event(connection: AsyncConnection, event_id: UUID) -> LoggedEvent | None:
    """Return the event; None if there is no such event."""
    row = (await connection.execute(_EVENTS.where(events.c.id == event_id))).one_or_none()
    return LoggedEvent(*row) if row else None
