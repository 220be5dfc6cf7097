"""Deliveries in the middle of their life, and the verbs that change them, each in a transaction of its own.

Every test sets the moment that a verb goes by; without one it is `NOW`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import delivery_attempts, webhook_endpoints
from shared.keyring import Keyring
from shared.webhooks.attempts import AttemptOutcome, Delivered, DeliveryAttempt, record_attempts
from shared.webhooks.deliveries import ClaimedDelivery, claim_deliveries
from tests.support.receivers import Endpoint, complete_payments, delivery_rows, register

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
LEASE_S = 30
URL = "https://shop.example/hooks?token=1"


def after(seconds: float) -> datetime:
    """So many seconds after `NOW`."""
    return NOW + timedelta(seconds=seconds)


async def endpoint_with(
    database: Database, keyring: Keyring, count: int, **columns: Any
) -> tuple[Endpoint, list[WorkItem]]:
    """Register an endpoint; return it with `count` new deliveries to it."""
    async with database.transaction() as connection:
        endpoint = await register(connection, keyring, URL, now=NOW, **columns)
        rows = await delivery_rows(connection, await complete_payments(connection, count, now=NOW))
        return endpoint, [WorkItem(row.id, row.lease_version) for row in rows if row.endpoint_id == endpoint.id]


async def claim(database: Database, items: Sequence[WorkItem], *, now: datetime = NOW) -> list[ClaimedDelivery | None]:
    """Claim deliveries for `LEASE_S` seconds."""
    async with database.transaction() as connection:
        return await claim_deliveries(connection, now, items, lease_s=LEASE_S)


async def claim_one(database: Database, item: WorkItem, *, now: datetime = NOW) -> ClaimedDelivery:
    """Claim a delivery that there is to send."""
    [claimed] = await claim(database, [item], now=now)
    assert claimed is not None
    return claimed


async def record(database: Database, *attempts: DeliveryAttempt, now: datetime = NOW) -> list[bool]:
    """Record attempts. Return, for each, whether it was recorded."""
    async with database.transaction() as connection:
        return [outcome is not None for outcome in await record_attempts(connection, now, attempts)]


def attempt(
    delivery: ClaimedDelivery,
    outcome: AttemptOutcome,
    *,
    status_code: int | None = 500,
    error: str | None = "the receiver answered 500",
    body: bytes = b"",
) -> DeliveryAttempt:
    """Return an attempt with this outcome."""
    return DeliveryAttempt(
        delivery=delivery, outcome=outcome, duration_ms=12, status_code=status_code, error=error, response_body=body
    )


def success(delivery: ClaimedDelivery) -> DeliveryAttempt:
    """Return an attempt that the receiver has accepted."""
    return attempt(delivery, Delivered(), status_code=200, error=None)


async def rows_of(database: Database, items: Sequence[WorkItem]) -> list[Any]:
    """Return the rows of these deliveries, in order."""
    async with database.read() as connection:
        return await delivery_rows(connection, items)


async def attempts_of(database: Database, delivery_id: UUID) -> list[Any]:
    """Return what the log says of a delivery, in order."""
    async with database.read() as connection:
        found = await connection.execute(
            select(delivery_attempts)
            .where(delivery_attempts.c.delivery_id == delivery_id)
            .order_by(delivery_attempts.c.number)
        )
        return list(found)


async def endpoint_row(database: Database, endpoint: Endpoint) -> Any:
    """Return the row of an endpoint."""
    async with database.read() as connection:
        found = await connection.execute(select(webhook_endpoints).where(webhook_endpoints.c.id == endpoint.id))
        return found.one()


async def change_endpoint(database: Database, endpoint: Endpoint, **columns: Any) -> None:
    """Set columns of an endpoint, and nothing else."""
    async with database.transaction() as connection:
        await connection.execute(
            update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint.id).values(**columns)
        )
