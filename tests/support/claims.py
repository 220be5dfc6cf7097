"""Claims and records at a moment that the test sets, and what they have written."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import events, payment_history
from shared.payments.payment import Payment
from shared.payments.record import Record, Recorded, record
from tests.support.rows import claim

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
LEASE_S = 30.0


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


async def claim_all(
    database: Database, items: Sequence[WorkItem], *, now: datetime = NOW, lease_s: float = LEASE_S
) -> list[Payment | None]:
    async with database.transaction() as connection:
        return await claim(connection, now, items, lease_s=lease_s)


async def claim_one(database: Database, item: WorkItem, *, now: datetime = NOW) -> Payment:
    [payment] = await claim_all(database, [item], now=now)
    assert payment is not None
    return payment


async def record_all(database: Database, *items: Record, now: datetime = NOW) -> list[Recorded | None]:
    async with database.transaction() as connection:
        return await record(connection, now, items)


async def moves(database: Database, payment_id: UUID) -> list[Any]:
    async with database.read() as connection:
        found = await connection.execute(
            select(payment_history)
            .where(payment_history.c.payment_id == payment_id)
            .order_by(payment_history.c.sequence)
        )
        return list(found)


async def event_types(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(select(events.c.type))).scalars())
