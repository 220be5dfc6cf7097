"""Payments that wait for their customer or for a late answer of their gateway, as workers leave them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import gateway_ledger, payments
from shared.lifecycle import ActionResult, CaptureMethod, HistoryReason, PaymentOperation, PaymentStatus
from shared.payments.notifications import hasten
from shared.payments.payment import Payment
from shared.payments.requests import Requested, answer_action
from shared.simulation.scenarios import CHALLENGED, PENDING, Scenario, scenario_members
from tests.support.authorizations import reached, whole
from tests.support.processing import RunningProcessor
from tests.support.rows import accepted, write
from tests.support.waiting import eventually

APPROVED, DECLINED = ActionResult.APPROVED, ActionResult.DECLINED
SHOP = "https://shop.example/paid"


def new(scenario: Scenario | None, *, is_held: bool = False, **changes: Any) -> Payment:
    payment = accepted(datetime.now(UTC))
    return replace(
        payment,
        method={**payment.method, **scenario_members(scenario)},
        capture_method=CaptureMethod.MANUAL if is_held else None,
        operation=PaymentOperation.AUTHORIZE if is_held else PaymentOperation.CHARGE,
        **changes,
    )


async def asking(
    database: Database, worker: RunningProcessor, scenario: Scenario = CHALLENGED, **changes: Any
) -> Payment:
    """Return a payment that waits for its customer."""
    payment = new(scenario, return_url=SHOP, **changes)
    await write(database, payment)
    await worker.offer(payment)
    return await reached(database, payment.id, PaymentStatus.REQUIRES_ACTION)


async def unsettled(
    database: Database, worker: RunningProcessor, scenario: Scenario = PENDING, **changes: Any
) -> Payment:
    """Return a payment that waits for a late answer."""
    payment = new(scenario, **changes)
    await write(database, payment)
    await worker.offer(payment)

    async def is_waiting() -> Payment | None:
        found = await whole(database, payment.id)
        return found if found.due_reason == HistoryReason.GATEWAY_SETTLED else None

    found = await eventually(is_waiting)
    assert found is not None
    return found


async def settle_now(database: Database, *waiting: Payment) -> None:
    """Let the time be over after which the gateway has its late answers."""
    over = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    async with database.transaction() as connection:
        for payment in waiting:
            entry = (gateway_ledger.c.payment_id == payment.id) & (gateway_ledger.c.step == 0)
            answer = (await connection.execute(select(gateway_ledger.c.answer).where(entry))).scalar_one()
            await connection.execute(update(gateway_ledger).where(entry).values(answer={**answer, "settles_at": over}))


async def answer(database: Database, payment: Payment, result: ActionResult = APPROVED) -> Requested:
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        requested = await answer_action(connection, payment.id, result=result, by="customer", now=now)
    assert requested is not None
    return requested


async def notified(database: Database, *of: Payment, gateway: str | None = None) -> list[WorkItem]:
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        return [
            item
            for payment in of
            for item in await hasten(connection, [payment.id], gateway=gateway or str(payment.gateway), now=now)
        ]


async def open_payments(database: Database) -> int:
    async with database.read() as connection:
        found = await connection.execute(payments.select().where(payments.c.due_at.is_not(None)))
        return len(found.all())
