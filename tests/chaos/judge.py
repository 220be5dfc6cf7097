"""The judge: the clients' journal against the tables, the gateway's ledger, the receiver and the order service.

It begins when every fault is healed, and gives the service the time that its own leases and retries need.
"""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

from rich.console import Console
from sqlalchemy import func, select

from shared.database.engine import Database, open_database
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, events, payments
from shared.delivery_lifecycle import OPEN_DELIVERY, DeliveryKind, DeliveryStatus
from shared.event_types import EVENT_OF_MOVE, EventType
from shared.lifecycle import PaymentStatus
from shared.payments.payment import Payment
from shared.refund_lifecycle import OPEN
from tests.chaos.clients import HOOK, Clients, Intent, callback_path
from tests.chaos.installation import Installation
from tests.chaos.money import MoneyRows, missed_events, read_money, wrong_money
from tests.chaos.steering import wrong_end
from tests.support.processes import environment_of
from tests.support.rows import assert_sound, read_all

# A message that was flushed is published again after 30 s, an unread order given up after 60.
SETTLES_WITHIN_S = 180.0
LOOK_S = 5.0
VERIFY_TIMEOUT_S = 300
SHOWN_MAX = 20
VERIFY = [sys.executable, "-c", "from cli.main import app; app()", "verify"]


@dataclass(slots=True)
class Judgement:
    """What was found; no findings are good."""

    settled_s: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    refunds: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


# What the service does to the order of a payment that has this status.
_ORDER_MOVES = {
    PaymentStatus.COMPLETED: ["CONFIRMED"],
    PaymentStatus.PARTIALLY_REFUNDED: ["CONFIRMED"],
    PaymentStatus.REFUNDED: ["CONFIRMED", "CANCELLED"],
}
# The event of the end of a payment, whatever its reason.
_END_EVENTS = {status: event for (status, _), event in EVENT_OF_MOVE.items() if status.has_ended}


async def judge(installation: Installation, clients: Clients, view: Console) -> Judgement:
    """Wait until all has ended, then compare."""
    judgement = Judgement()
    async with _opened(installation) as database:
        began_at = monotonic()
        while open_work := await _open_work(database):
            if monotonic() - began_at > SETTLES_WITHIN_S:
                judgement.findings.append(f"not settled within {SETTLES_WITHIN_S:.0f} s: {open_work}")
                break
            view.print(f"  still open: {open_work}")
            await asyncio.sleep(LOOK_S)
        judgement.settled_s = monotonic() - began_at
        found = {payment.order_id: payment for payment in await read_all(database)}
        judgement.statuses.update(payment.status for payment in found.values())
        money = await read_money(database)
        judgement.refunds.update(one.status for of_payment in money.refunds.values() for one in of_payment)
        unconfirmed = await _given_up_confirmations(database)
        judgement.findings += [
            complaint
            for intent in clients.journal
            for complaint in _of_intent(installation, intent, found, money, unconfirmed)
        ]
        judgement.findings += await _of_tables(database, installation, count=len(found))
        judgement.findings += await _of_deliveries(database, unconfirmed)
    judgement.findings += [
        f"a delivery that its secret has not signed: {each}" for each in installation.receiver.forged
    ]
    judgement.findings += await asyncio.to_thread(_of_verify, installation)
    judgement.findings += installation.findings
    return judgement


@asynccontextmanager
async def _opened(installation: Installation) -> AsyncIterator[Database]:
    database = open_database(installation.settings)
    try:
        yield database
    finally:
        await database.dispose()


async def _open_work(database: Database) -> dict[str, int]:
    """How many payments, refunds and deliveries have not ended, by status."""
    waiting = [status for status in PaymentStatus if not status.has_ended]
    async with database.read() as connection:
        found = [
            *await connection.execute(
                select(payments.c.status, func.count()).where(payments.c.status.in_(waiting)).group_by("status")
            ),
            *await connection.execute(
                select("refund " + refunds.c.status, func.count())
                .where(refunds.c.status.in_(OPEN))
                .group_by(refunds.c.status)
            ),
            *await connection.execute(
                select(deliveries.c.status, func.count())
                .where(deliveries.c.status.in_(OPEN_DELIVERY))
                .group_by("status")
            ),
        ]
    return {row[0]: row[1] for row in found}


async def _given_up_confirmations(database: Database) -> dict[UUID, UUID]:
    """The payments that were refunded before their orders were confirmed, with the delivery that was given up."""
    async with database.read() as connection:
        rows = await connection.execute(
            select(deliveries.c.payment_id, deliveries.c.id)
            .join(events, events.c.id == deliveries.c.event_id)
            .join(payments, payments.c.id == deliveries.c.payment_id)
            .where(
                deliveries.c.kind == DeliveryKind.ORDER,
                deliveries.c.status == DeliveryStatus.CANCELLED,
                events.c.type == EventType.COMPLETED,
                payments.c.status == PaymentStatus.REFUNDED,
            )
        )
        return {row.payment_id: row.id for row in rows}


def _of_intent(
    installation: Installation,
    intent: Intent,
    found: dict[str, Payment],
    money: MoneyRows,
    unconfirmed: Container[UUID],
) -> list[str]:
    """What is wrong with one line of the journal."""
    payment = found.get(str(intent.order_id))
    if intent.payment_id is None:
        return [f"order {intent.order_id} was never answered"]
    if payment is None or str(payment.id) != intent.payment_id:
        return [f"{intent.payment_id} was accepted and is lost; in its place: {payment and payment.id}"]
    wrong = []
    if (payment.amount, payment.user_id) != (intent.amount, intent.user):
        wrong.append(f"is {payment.amount} of {payment.user_id}, not {intent.amount} of {intent.user}")
    moves = installation.orders.orders[intent.order_id].moves
    expected_moves = [_ORDER_MOVES.get(payment.status, [])]
    if payment.id in unconfirmed:
        # The attempt that was given up may have confirmed the order, with its answer lost.
        expected_moves.append(["CANCELLED"])
    if moves not in expected_moves:
        wrong.append(f"its order was moved: {moves}")
    if payment.status in {PaymentStatus.COMPLETED, PaymentStatus.FAILED}:
        wrong += wrong_end(intent.script, payment.failure_code)
    wrong += wrong_money(intent, payment, money)
    wrong += missed_events(intent, payment, money, installation.receiver.taken)
    if (end := _END_EVENTS.get(payment.status)) is not None:
        expected = [(HOOK, EventType.INITIATED), (HOOK, end), (callback_path(intent.user), end)]
        missed = [each for each in expected if not installation.receiver.taken[each[0], intent.payment_id, each[1]]]
        wrong += [f"{event} never came to {path}" for path, event in missed]
    return [f"{intent.payment_id} ({payment.status}): {complaint}" for complaint in wrong]


async def _of_tables(database: Database, installation: Installation, *, count: int) -> list[str]:
    """Every payment, journalled or not: histories, charges, events; and one payment per order."""
    wrong = []
    async with database.read() as connection:
        rows = (await connection.execute(select(func.count()).select_from(payments))).scalar_one()
    if rows != count or rows > len(installation.orders.orders):
        wrong.append(f"{rows} payments for {count} orders of {len(installation.orders.orders)}")
    try:
        await assert_sound(database)
    except AssertionError as error:
        wrong.append(f"not sound: {error}")
    return wrong


async def _of_deliveries(database: Database, unconfirmed: Mapping[UUID, UUID]) -> list[str]:
    given_up = set(unconfirmed.values())
    async with database.read() as connection:
        found = await connection.execute(
            select(deliveries.c.id, deliveries.c.status).where(
                deliveries.c.status.not_in([DeliveryStatus.DELIVERED, *OPEN_DELIVERY])
            )
        )
        return [f"delivery {row.id} is {row.status}" for row in found if row.id not in given_up]


def _of_verify(installation: Installation) -> list[str]:
    """`payments verify`, as an operator would."""
    done = subprocess.run(
        VERIFY,
        env={"LOG_LEVEL": "WARNING", "COLUMNS": "200", **environment_of(installation.settings)},
        capture_output=True,
        text=True,
        timeout=VERIFY_TIMEOUT_S,
        check=False,
    )
    return [] if done.returncode == 0 else [f"payments verify: {done.returncode}\n{done.stdout}{done.stderr}"]
