"""A small sound world for the tests of `payments verify`: payments in every state, with everybody told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Index, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cli.verify import verify
from cli.verify_scan import Found, Scan
from shared import events
from shared.config import Settings
from shared.db import Database
from shared.documents import Payment
from shared.ids import new_id
from shared.leases import Ref
from shared.models import deliveries, gateway_ledger, idempotency_keys, payments
from shared.payments.cancel import cancel
from shared.payments.process import Approval, Failure, Record, claim, record
from shared.vault import open_vault
from tests.api_client import APPROVED, DECLINED
from tests.receivers import register
from tests.rows import accepted, write

# Ahead of every clock that looks: what waits here for its moment stays on time however long the tests run.
NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
LONG_AGO = NOW - timedelta(hours=2)
CALLBACK = "https://shop.example/hook"


@dataclass(frozen=True, slots=True)
class World:
    """The ids in it."""

    completed: UUID  # with a callback URL, an endpoint's delivery and an order update
    failed: UUID
    cancelled: UUID
    processing: UUID  # charged already: its worker has not recorded it yet
    pending: UUID
    endpoint: UUID


async def build(database: Database, settings: Settings) -> World:
    """Write the world down, with the verbs of the service where there is one."""
    async with database.transaction() as connection:
        endpoint = await register(connection, open_vault(settings), CALLBACK, now=LONG_AGO)
    completed, failed, cancelled, processing, pending = [
        await accept(database, callback_url=CALLBACK if number == 0 else None) for number in range(5)
    ]
    async with database.transaction() as connection:
        await settle(connection, completed, APPROVED)
        await book(connection, completed.id, "authorize", 1)
        await book(connection, completed.id, "capture", 2)
        await settle(connection, failed, DECLINED)
        await book(connection, failed.id, "decline", 1)
        await cancel(connection, cancelled.id, by="user:1", now=NOW)
        await claim(connection, datetime.now(UTC), [processing.ref], lease_s=30)
        await book(connection, processing.id, "sale", 1)
    return World(completed.id, failed.id, cancelled.id, processing.id, pending.id, endpoint.id)


async def accept(database: Database, *, at: datetime = NOW, **changes: Any) -> Payment:
    """A payment as a client leaves it, with its key."""
    payment = accepted(at, idempotency_key="k", **changes)
    await write(database, payment)
    async with database.transaction() as connection:
        await events.tell(connection, [payment], now=at)
        await bind(connection, "user:1 POST /payments", payment.id)
    return payment


async def settle(
    connection: AsyncConnection,
    payment: Payment,
    outcome: Approval | Failure,
    *,
    at: datetime = NOW,
    tells_order: bool = True,
) -> None:
    """Claim it and record the outcome, as a worker does."""
    [held] = await claim(connection, at, [Ref(payment.id, 0)], lease_s=30)
    assert held is not None
    assert await record(connection, at, [Record(held, outcome)], confirms_orders=tells_order) != [None]


async def book(connection: AsyncConnection, payment_id: UUID, kind: str, step: int, **changes: Any) -> None:
    """An entry of the gateway's."""
    row = {
        "key": f"{payment_id}:{kind}",
        "payment_id": payment_id,
        "step": step,
        "kind": kind,
        "amount": 1999,
        "currency": "USD",
        "answer": {"transaction_id": "ch_1"},
        "created_at": NOW,
    }
    await connection.execute(insert(gateway_ledger), {**row, **changes})


async def bind(connection: AsyncConnection, scope: str, object_id: UUID) -> None:
    """An idempotency key."""
    row = {"scope": scope, "key": str(new_id()), "fingerprint": "f", "object_id": object_id, "created_at": NOW}
    await connection.execute(insert(idempotency_keys), row)


async def repeat_row(connection: AsyncConnection, table: Any, *, where: Any, **changes: Any) -> None:
    """The same row once more, but for `changes`."""
    row = (await connection.execute(select(table).where(where))).mappings().one()
    await connection.execute(insert(table), {**row, **changes})


async def look(database: Database, *, range_size: int = 2, **options: Any) -> Found:
    """What a scan finds; in ranges so small that everything is next to a border."""
    return await verify(Scan(database, range_size=range_size), **{"tells_orders": True, **options})


@asynccontextmanager
async def without(database: Database, index: Index) -> AsyncIterator[None]:
    """The database without one of its indexes, as after an accident; whoever asks removes what it let in."""
    async with database.transaction() as connection:
        await connection.execute(text(f'DROP INDEX "{index.name}"'))
    try:
        yield
    finally:
        async with database.transaction() as connection:
            for table in (deliveries, payments):
                if table is index.table:
                    await connection.execute(text("DELETE FROM payment_history"))
                    await connection.execute(table.delete())
            await connection.run_sync(index.create)
