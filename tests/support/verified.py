"""A small sound world for the tests of `payments verify`: payments in every state, with every delivery there is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Index, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import columns_of, deliveries, gateway_ledger, idempotency_keys, payments
from shared.ids import new_id
from shared.keyring import open_keyring
from shared.lifecycle import HistoryReason
from shared.payments.events import emit
from shared.payments.history import Move
from shared.payments.outcomes import Settled
from shared.payments.payment import Payment
from shared.payments.record import Record, record
from shared.payments.requests import cancel
from shared.verify.scan import Found, Scan
from shared.verify.verifier import verify
from tests.support.receivers import register
from tests.support.rows import accepted, claim, write
from tests.support.settling import APPROVED, DECLINED

# Ahead of every clock that looks: what waits here for its moment stays on time however long the tests run.
NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
LONG_AGO = NOW - timedelta(hours=2)
IN_AN_HOUR = datetime.now(UTC) + timedelta(hours=1)
CALLBACK = "https://shop.example/hook"


@dataclass(frozen=True, slots=True)
class World:
    """The ids in it."""

    # With a callback URL, an endpoint's delivery and an order update.
    completed: UUID
    failed: UUID
    cancelled: UUID
    # Charged already: its worker has not recorded it yet.
    processing: UUID
    pending: UUID
    endpoint: UUID


async def build(database: Database, settings: Settings) -> World:
    """Write the world down, with the verbs of the service where there is one."""
    async with database.transaction() as connection:
        endpoint = await register(connection, open_keyring(settings), CALLBACK, now=LONG_AGO)
    completed, failed, cancelled, processing, pending = [
        await accept(database, callback_url=CALLBACK if number == 0 else None) for number in range(5)
    ]
    async with database.transaction() as connection:
        await settle(connection, completed, APPROVED)
        await record_entry(connection, completed.id, "authorize", 1)
        await record_entry(connection, completed.id, "capture", 2)
        await settle(connection, failed, DECLINED)
        await record_entry(connection, failed.id, "decline", 1)
        await cancel(connection, cancelled.id, by="user:1", now=NOW)
        await claim(connection, datetime.now(UTC), [processing.work_item], lease_s=30)
        await record_entry(connection, processing.id, "sale", 1)
    return World(completed.id, failed.id, cancelled.id, processing.id, pending.id, endpoint.id)


async def accept(database: Database, *, at: datetime = NOW, **changes: Any) -> Payment:
    """Accept a payment with an idempotency key."""
    payment = accepted(at, idempotency_key="k", **changes)
    await write(database, payment)
    async with database.transaction() as connection:
        await emit(connection, [Move(payment, None, HistoryReason.ACCEPTED, payment.created_by)], now=at)
        await bind(connection, "user:1 POST /payments", payment.id)
    return payment


async def settle(
    connection: AsyncConnection,
    payment: Payment,
    outcome: Settled,
    *,
    at: datetime = NOW,
    confirms_order: bool = True,
) -> None:
    """Claim a payment and record the outcome, as a worker does."""
    [held] = await claim(connection, at, [WorkItem(payment.id, 0)], lease_s=30)
    assert held is not None
    assert await record(connection, at, [Record(held, outcome)], confirms_orders=confirms_order) != [None]


async def record_entry(connection: AsyncConnection, payment_id: UUID, kind: str, step: int, **changes: Any) -> None:
    """Insert an entry of the gateway's ledger."""
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


def of_delivery(world: World, kind: str) -> Any:
    """Which deliveries of the completed payment are of this kind."""
    return (deliveries.c.payment_id == world.completed) & (deliveries.c.kind == kind)


async def bind(connection: AsyncConnection, scope: str, object_id: UUID) -> None:
    """Bind an idempotency key to an object."""
    row = {"scope": scope, "key": str(new_id()), "fingerprint": "f", "object_id": object_id, "created_at": NOW}
    await connection.execute(insert(idempotency_keys), row)


async def repeat_row(connection: AsyncConnection, table: Any, *, where: Any, **changes: Any) -> None:
    """Insert the same row once more, but for `changes`."""
    row = (await connection.execute(select(*columns_of(table)).where(where))).mappings().one()
    await connection.execute(insert(table), {**row, **changes})


async def look(database: Database, *, range_size: int = 2, **options: Any) -> Found:
    """Return what a scan finds; in ranges so small that everything is next to a border."""
    return await verify(Scan(database, range_size=range_size), **{"confirms_orders": True, **options})


@asynccontextmanager
async def without(database: Database, index: Index) -> AsyncIterator[None]:
    """The database without one of its indexes, as after an accident; what that let in is removed at the end."""
    async with database.transaction() as connection:
        await connection.execute(text(f'DROP INDEX "{index.name}"'))
    try:
        yield
    finally:
        async with database.transaction() as connection:
            for table in (deliveries, payments, gateway_ledger):
                if table is index.table:
                    await connection.execute(text("DELETE FROM payment_history"))
                    await connection.execute(table.delete())
            await connection.run_sync(index.create)
