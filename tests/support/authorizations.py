"""Payments that workers authorize, what is requested of them, and what has become of a payment."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from shared.database.engine import Database
from shared.database.tables import events, gateway_ledger, payment_history
from shared.lifecycle import CaptureMethod, PaymentOperation, PaymentStatus
from shared.payments.find import Visible, find
from shared.payments.payment import Payment
from shared.payments.requests import Requested, cancel, capture
from tests.support.processing import RunningProcessor
from tests.support.rows import accepted, write
from tests.support.waiting import eventually


async def authorized(database: Database, worker: RunningProcessor, **changes: Any) -> Payment:
    payment = replace(
        accepted(datetime.now(UTC)),
        capture_method=CaptureMethod.MANUAL,
        operation=PaymentOperation.AUTHORIZE,
        **changes,
    )
    await write(database, payment)
    await worker.offer(payment)
    return await reached(database, payment.id, PaymentStatus.AUTHORIZED)


async def whole(database: Database, payment_id: UUID) -> Payment:
    async with database.read() as connection:
        found = await find(connection, payment_id, Visible())
    assert found is not None
    return found


async def reached(database: Database, payment_id: UUID, status: PaymentStatus) -> Payment:
    async def there() -> Any:
        payment = await whole(database, payment_id)
        return payment if payment.status is status else None

    found: Payment = await eventually(there)
    return found


async def request(database: Database, payment: Payment, amount: int | None = None, *, voids: bool = False) -> Requested:
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        if voids:
            requested = await cancel(connection, payment.id, by="service:shop", now=now)
        else:
            requested = await capture(connection, payment.id, amount=amount, by="service:shop", now=now)
    assert requested is not None
    return requested


async def told(database: Database, payment: Payment) -> tuple[list[str], list[str], list[tuple[int, str, int]]]:
    """Return the reasons of the history, the types of the events, and the ledger."""
    async with database.read() as connection:
        of = payment.id
        reasons = await connection.execute(
            select(payment_history.c.reason).where(payment_history.c.payment_id == of).order_by("sequence")
        )
        types = await connection.execute(select(events.c.type).where(events.c.payment_id == of).order_by("sequence"))
        ledger = await connection.execute(
            select(gateway_ledger.c.step, gateway_ledger.c.kind, gateway_ledger.c.amount)
            .where(gateway_ledger.c.payment_id == of)
            .order_by("step")
        )
        return list(reasons.scalars()), list(types.scalars()), [tuple(row) for row in ledger]
