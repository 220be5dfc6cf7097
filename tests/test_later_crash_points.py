"""A process that dies at any boundary of what happens to a payment later: it happens once, and is told once.

Every death is a real SIGKILL, every recovery is by a worker that knows nothing but the database.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from shared.broker.client import Broker
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.refund_tables import refunds
from shared.database.tables import events, payments
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments.payment import Payment
from shared.simulation.calls import Steering
from shared.simulation.scenarios import CHALLENGED, PENDING
from tests.support.authorizations import authorized
from tests.support.crashing import LEASE_S, assert_each_died, later, run_to_end
from tests.support.crashing_later import Later, LaterJourney, ask_for, run_later_journey
from tests.support.processing import processing, simulated_gateway
from tests.support.rows import assert_sound, ledger_entries, read_all, write
from tests.support.waiting import eventually
from tests.support.waiting_payments import SHOP, asking, new, settle_now, unsettled
from tests.support.workers import working
from tests.test_refunds import charged

# Processes beside each other: each waits most of its time.
AT_ONCE = 4
# More writers would wait longer for each other than a transaction on SQLite may.
SQLITE_AT_ONCE = 2
# Of a journey to its end: fewer boundaries would mean that the hooks miss some.
BOUNDARIES_MIN = 15
BOUNDARIES_MAX = 60
# At least these in every call of the gateway: before its step in the ledger, and after it.
IN_GATEWAY_MIN = 2
RECOVERY_S = 30.0
AMOUNT = 1999
REFUNDS = (Later.REFUND, Later.LOST_REFUND)

# What each ends with: the status, the ledger of the payment, and the events of all that happened to it.
ENDS: dict[Later, tuple[PaymentStatus, list[str], list[str]]] = {
    Later.CAPTURE: (
        PaymentStatus.COMPLETED,
        ["authorize", "capture"],
        ["payment.authorized", "payment.completed"],
    ),
    Later.VOID: (PaymentStatus.CANCELLED, ["authorize", "void"], ["payment.authorized", "payment.cancelled"]),
    Later.EXPIRY: (PaymentStatus.CANCELLED, ["authorize", "void"], ["payment.authorized", "payment.cancelled"]),
    Later.REFUND: (
        PaymentStatus.PARTIALLY_REFUNDED,
        ["authorize", "capture", "refund"],
        ["payment.completed", "payment.partially_refunded", "refund.completed", "refund.created"],
    ),
    Later.LOST_REFUND: (
        PaymentStatus.PARTIALLY_REFUNDED,
        ["authorize", "capture", "refund"],
        ["payment.completed", "payment.partially_refunded", "refund.completed", "refund.created"],
    ),
    Later.LOST_ANSWER: (PaymentStatus.COMPLETED, ["authorize", "capture"], ["payment.completed"]),
    Later.CHALLENGE: (PaymentStatus.REQUIRES_ACTION, [], ["payment.requires_action"]),
    Later.APPROVAL: (
        PaymentStatus.COMPLETED,
        ["authorize", "capture"],
        ["payment.completed", "payment.requires_action"],
    ),
    Later.PENDING: (PaymentStatus.COMPLETED, ["pending", "authorize", "capture"], ["payment.completed"]),
    Later.LATE_ANSWER: (PaymentStatus.COMPLETED, ["pending", "authorize", "capture"], ["payment.completed"]),
}


async def prepared(database: Database, broker: Broker, operation: Later, count: int) -> list[Payment]:
    """Return payments to which the operation may happen now."""
    if operation in {Later.CHALLENGE, Later.PENDING}:
        scenario = CHALLENGED if operation is Later.CHALLENGE else PENDING
        fresh = [new(scenario, return_url=SHOP) for _ in range(count)]
        await write(database, *fresh)
        return fresh
    if operation is Later.LOST_ANSWER:
        lost = Steering(outcomes=("timeout_charged", "lost_card"))
        steered = [new(None, steering=lost.to_json()) for _ in range(count)]
        await write(database, *steered)
        return steered
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        if operation in REFUNDS:
            return [await charged(database, worker, AMOUNT) for _ in range(count)]
        if operation is Later.APPROVAL:
            return [await asking(database, worker) for _ in range(count)]
        if operation is Later.LATE_ANSWER:
            waiting = [await unsettled(database, worker) for _ in range(count)]
            await settle_now(database, *waiting)
            return waiting
        held = [await authorized(database, worker) for _ in range(count)]
    if operation is Later.EXPIRY:
        async with database.transaction() as connection:
            over = datetime.now(UTC) - timedelta(seconds=1)
            await connection.execute(
                update(payments).where(payments.c.status == "AUTHORIZED").values(capture_before=over, due_at=over)
            )
    return held


async def journeys_ended(journeys: Sequence[LaterJourney], *, at_once: int) -> list[int]:
    """Run the journeys in processes of their own, so many at once, and return their exit codes."""
    turns = asyncio.Semaphore(at_once)

    async def in_turn(journey: LaterJourney) -> int:
        async with turns:
            return (await run_to_end(run_later_journey, journey))[0]

    return list(await asyncio.gather(*map(in_turn, journeys)))


@pytest.mark.parametrize(
    ("backend", "operation"),
    [
        ("postgresql", Later.CAPTURE),
        ("sqlite", Later.VOID),
        # The void at an expiry takes the same steps as that on request, after another claim.
        pytest.param("postgresql", Later.EXPIRY, marks=pytest.mark.slow),
        ("sqlite", Later.REFUND),
        ("postgresql", Later.APPROVAL),
        ("sqlite", Later.LATE_ANSWER),
        ("postgresql", Later.LOST_ANSWER),
        pytest.param("sqlite", Later.LOST_REFUND, marks=pytest.mark.slow),
        pytest.param("postgresql", Later.LOST_REFUND, marks=pytest.mark.slow),
        pytest.param("sqlite", Later.LOST_ANSWER, marks=pytest.mark.slow),
        pytest.param("sqlite", Later.CHALLENGE, marks=pytest.mark.slow),
        pytest.param("postgresql", Later.PENDING, marks=pytest.mark.slow),
        pytest.param("sqlite", Later.APPROVAL, marks=pytest.mark.slow),
        pytest.param("postgresql", Later.LATE_ANSWER, marks=pytest.mark.slow),
        pytest.param("sqlite", Later.CAPTURE, marks=pytest.mark.slow),
        pytest.param("postgresql", Later.VOID, marks=pytest.mark.slow),
        pytest.param("sqlite", Later.EXPIRY, marks=pytest.mark.slow),
        pytest.param("postgresql", Later.REFUND, marks=pytest.mark.slow),
    ],
    indirect=["backend"],
)
async def test_whatever_boundary_a_process_dies_at_the_operation_happens_once(
    make_settings: Callable[..., Settings], database: Database, broker: Broker, operation: Later
) -> None:
    settings = make_settings(payment_success_rate=1, lease_s=LEASE_S)
    [first] = await prepared(database, broker, operation, 1)
    exit_code, [boundaries] = await run_to_end(run_later_journey, LaterJourney(settings, operation, first.work_item))
    assert exit_code == 0
    assert BOUNDARIES_MIN <= len(boundaries) <= BOUNDARIES_MAX, boundaries
    assert sum("in the gateway" in name for name in boundaries) >= IN_GATEWAY_MIN, boundaries
    victims = await prepared(database, broker, operation, len(boundaries))
    codes = await journeys_ended(
        [LaterJourney(settings, operation, one.work_item, number) for number, one in enumerate(victims)],
        at_once=SQLITE_AT_ONCE if database.is_sqlite else AT_ONCE,
    )
    assert_each_died(codes)
    for victim in victims:
        # A client that got no answer asks again. The relay brings what it asked for.
        await ask_for(database, operation, victim.work_item)
    status, ledger, types = ENDS[operation]
    async with later(settings) as runtime, working(runtime):
        await eventually(lambda: all_have(database, status, settles=operation is Later.PENDING), RECOVERY_S)
    for one, boundary in zip([first, *victims], ["no boundary", *boundaries], strict=True):
        assert await ledger_entries(database, one.id) == ledger, boundary
        assert await event_types(database, one) == types, boundary
    await assert_sound(database)
    if operation in REFUNDS:
        async with database.read() as connection:
            count = await connection.execute(select(refunds.c.status, func.count()).group_by(refunds.c.status))
            assert [tuple(row) for row in count] == [("COMPLETED", len(victims) + 1)]


async def all_have(database: Database, status: PaymentStatus, *, settles: bool) -> bool:
    """Return whether all payments have this status; if not, the gateway `settles` what is pending there."""
    found = await read_all(database)
    if settles:
        waiting = [payment for payment in found if payment.due_reason == HistoryReason.GATEWAY_SETTLED]
        await settle_now(database, *waiting)
        for payment in waiting:
            await ask_for(database, Later.LATE_ANSWER, payment.work_item)
    return all(payment.status is status for payment in found)


async def event_types(database: Database, payment: Payment) -> list[Any]:
    async with database.read() as connection:
        found = await connection.execute(
            select(events.c.type).where(events.c.payment_id == payment.id).order_by(events.c.type)
        )
        return list(found.scalars())
