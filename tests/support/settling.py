"""What workers and time do to payments, without a worker and without time."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import payments
from shared.lifecycle import FailureCode, HistoryReason
from shared.payments.outcomes import Approved, ClaimOutcome, Declined, Settled
from shared.payments.record import Record, record
from tests.support.rows import claim

APPROVED = Settled(
    Approved(
        gateway="stripe_mock",
        transaction_id="ch_1",
        details={"authorization_code": "A1B2C3"},
        outcome_rule="rate",
    ),
    HistoryReason.GATEWAY_APPROVED,
)
DECLINED = Settled(
    Declined(
        gateway="stripe_mock",
        failure_code=FailureCode.CARD_DECLINED,
        failure_reason="The issuer declined the card.",
        details={"avs_result": "Y"},
        outcome_rule="card",
    ),
    HistoryReason.GATEWAY_DECLINED,
)


async def claimed(database: Database, payment_id: str, *, lease_s: float = 30) -> Any:
    """The payment as a worker has claimed it, or None."""
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        item = WorkItem(UUID(payment_id), await _lease_version_of(connection, payment_id))
        [payment] = await claim(connection, now, [item], lease_s=lease_s)
        return payment


async def settled(database: Database, payment_id: str, outcome: ClaimOutcome) -> Any:
    """The payment, claimed and recorded by a worker."""
    payment = await claimed(database, payment_id)
    assert payment is not None
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        [recorded] = await record(connection, now, [Record(payment, outcome)])
        return recorded


async def change(database: Database, payment_id: str, **columns: Any) -> None:
    """Write into a payment's row."""
    async with database.transaction() as connection:
        await connection.execute(update(payments).where(payments.c.id == UUID(payment_id)).values(**columns))


async def _lease_version_of(connection: AsyncConnection, payment_id: str) -> int:
    found = await connection.execute(select(payments.c.lease_version).where(payments.c.id == UUID(payment_id)))
    return int(found.scalar_one())
