"""Payments that wait for their customer, and payments that their gateway settles late, as workers treat them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, update

from shared.broker.client import Broker, Queue
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import gateway_ledger, payments
from shared.lifecycle import ActionResult, CaptureMethod, HistoryReason, PaymentOperation, PaymentStatus
from shared.payments.notifications import hasten
from shared.payments.outcomes import ActionNeeded, ActionRequired, Pending, Unsettled
from shared.payments.payment import Payment
from shared.payments.record import Record, record
from shared.payments.requests import Requested, answer_action, cancel
from shared.simulation.scenarios import (
    CHALLENGED,
    CHALLENGED_THEN_DECLINED,
    PENDING,
    PENDING_THEN_DECLINED,
    Scenario,
    scenario_members,
)
from tests.support.processing import RunningProcessor, processing, simulated_gateway
from tests.support.rows import accepted, assert_sound, claim, ledger_entries, write
from tests.support.waiting import eventually
from tests.test_authorizations import reached, request, told, whole

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


# -- the customer


@pytest.mark.parametrize("is_held", [False, True])
async def test_an_approved_payment_is_charged_or_authorized_once(
    database: Database, broker: Broker, *, is_held: bool
) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        waiting = await asking(database, worker, is_held=is_held)
        assert waiting.due_at == waiting.action_expires_at
        assert waiting.gateway in {"stripe_mock", "square_mock"}
        # Nobody claims it meanwhile, and it is not done.
        await worker.processor.offer([waiting.work_item])
        assert worker.processor.settled == 0
        approved = await answer(database, waiting)
        assert not (await answer(database, waiting)).is_moved
        assert not (await answer(database, waiting, DECLINED)).is_moved
        await worker.processor.offer([waiting.work_item, *approved.work])
        end = PaymentStatus.AUTHORIZED if is_held else PaymentStatus.COMPLETED
        ended = await reached(database, waiting.id, end)
        assert worker.processor.settled == 1
        if is_held:
            await worker.processor.offer((await request(database, ended)).work)
            ended = await reached(database, ended.id, PaymentStatus.COMPLETED)
    reasons, types, _ledger = await told(database, ended)
    assert reasons[1:5] == ["claimed", "action_required", "action_approved", "claimed"]
    assert types[0] == "payment.requires_action"
    assert types[-1] == "payment.completed"
    assert await ledger_entries(database, ended.id) == ["authorize", "capture"]
    await assert_sound(database)


async def test_a_declined_payment_fails_and_nothing_is_charged(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        waiting = await asking(database, worker)
        declined = (await answer(database, waiting, DECLINED)).payment
        assert not (await answer(database, waiting)).is_moved
        await worker.processor.offer([waiting.work_item, declined.work_item])
    ended = await whole(database, waiting.id)
    assert (ended.status, ended.failure_code) == (PaymentStatus.FAILED, "authentication_failed")
    assert (ended.outcome_rule, ended.action_result) == ("customer", "declined")
    assert ended.processed_at == ended.updated_at
    assert await ledger_entries(database, ended.id) == []
    await assert_sound(database)


async def test_a_customer_who_walks_away_ends_the_payment_without_a_slot(database: Database, broker: Broker) -> None:
    async with (
        simulated_gateway(database) as gateway,
        processing(database, gateway, broker, action_valid_s=0.05, concurrency=1) as worker,
    ):
        waiting = await asking(database, worker)
        await asyncio.sleep(0.1)
        assert not (await answer(database, waiting)).is_moved
        await worker.processor.offer([waiting.work_item])
        ended = await reached(database, waiting.id, PaymentStatus.FAILED)
        assert worker.processor.free == 1
    assert (ended.failure_code, ended.outcome_rule) == ("action_expired", "customer")
    assert ended.lease_version == waiting.lease_version
    reasons, types, _ledger = await told(database, ended)
    assert reasons[-2:] == ["action_required", "action_expired"]
    assert types == ["payment.requires_action", "payment.failed"]
    await assert_sound(database)


async def test_the_time_of_a_customer_is_not_counted_as_time_to_settle(database: Database, broker: Broker) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("payments_settle_seconds_count") or 0.0

    before = counted()
    async with (
        simulated_gateway(database) as gateway,
        processing(database, gateway, broker, action_valid_s=0.5) as worker,
    ):
        left, waiting = await asking(database, worker), await asking(database, worker)
        await worker.processor.offer((await answer(database, waiting)).work)
        await reached(database, waiting.id, PaymentStatus.COMPLETED)
        await asyncio.sleep(0.6)
        await worker.processor.offer([left.work_item])
        await reached(database, left.id, PaymentStatus.FAILED)
        assert counted() == before
        plain = new(None)
        await write(database, plain)
        await worker.offer(plain)
        await reached(database, plain.id, PaymentStatus.COMPLETED)
        await eventually(lambda: counted() == before + 1)


async def test_a_payment_that_waits_for_its_customer_is_cancelled_at_once(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        waiting = await asking(database, worker)
        cancelled = await request(database, waiting, voids=True)
        assert cancelled.payment.status is PaymentStatus.CANCELLED
        assert not cancelled.work
        assert not (await answer(database, waiting)).is_moved
    assert await ledger_entries(database, waiting.id) == []
    await assert_sound(database)


async def test_an_approved_payment_whose_test_value_declines_fails(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        waiting = await asking(database, worker, CHALLENGED_THEN_DECLINED)
        await worker.processor.offer((await answer(database, waiting)).work)
        ended = await reached(database, waiting.id, PaymentStatus.FAILED)
    assert ended.failure_code == "card_declined"
    assert await ledger_entries(database, ended.id) == ["decline"]


async def test_of_all_that_happens_to_a_waiting_payment_at_once_one_thing_does(
    database: Database, broker: Broker
) -> None:
    """Approve, decline, cancel and the end of the time in every order: one wins, and the others see what it did."""
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        moved: Counter[bool] = Counter()
        for _ in range(12):
            waiting = await asking(database, worker)
            answers = await asyncio.gather(
                answer(database, waiting), answer(database, waiting, DECLINED), request(database, waiting, voids=True)
            )
            moved.update(one.is_moved for one in answers)
            await worker.processor.offer([item for one in answers for item in one.work])
        assert moved == {True: 12, False: 24}

        async def all_ended() -> bool:
            return not await open_payments(database)

        await eventually(all_ended)
    await assert_sound(database)


async def open_payments(database: Database) -> int:
    async with database.read() as connection:
        found = await connection.execute(payments.select().where(payments.c.due_at.is_not(None)))
        return len(found.all())


# -- the gateway


@pytest.mark.parametrize(
    ("scenario", "status"), [(PENDING, PaymentStatus.COMPLETED), (PENDING_THEN_DECLINED, PaymentStatus.FAILED)]
)
@pytest.mark.parametrize("is_told", [True, False])
async def test_a_late_answer_is_the_same_whether_the_gateway_notifies_or_is_polled(
    database: Database, broker: Broker, scenario: Scenario, status: PaymentStatus, *, is_told: bool
) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker, concurrency=1) as worker:
        waiting = await unsettled(database, worker, scenario)
        assert waiting.status is PaymentStatus.PROCESSING
        assert waiting.due_at is not None
        assert 34 < (waiting.due_at - waiting.updated_at).total_seconds() <= 45
        await eventually(lambda: worker.processor.free == 1)
        await settle_now(database, waiting)
        if is_told:
            assert await notified(database, waiting) == [waiting.work_item]
            # Twice changes nothing.
            assert await notified(database, waiting) == []
        await worker.processor.offer([waiting.work_item])
        ended = await reached(database, waiting.id, status)
        assert await notified(database, waiting) == []
    reasons, types, _ledger = await told(database, ended)
    assert reasons[:4] == ["accepted", "claimed", "gateway_pending", "gateway_settled"]
    assert types == [f"payment.{status.lower()}"]
    assert (await ledger_entries(database, ended.id))[0] == "pending"
    await assert_sound(database)


async def test_a_hint_before_the_answer_of_another_gateway_or_that_is_false_settles_nothing(
    database: Database, broker: Broker
) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        fresh = new(PENDING)
        await write(database, fresh)
        assert await notified(database, fresh) == []
        waiting = await unsettled(database, worker)
        assert await notified(database, waiting, gateway="paypal_mock") == []
        # It is not settled yet: the worker asks, and waits on.
        assert await notified(database, waiting) == [waiting.work_item]
        await worker.processor.offer([waiting.work_item])

        async def waits_again() -> bool:
            found = await whole(database, waiting.id)
            return found.due_reason == HistoryReason.GATEWAY_SETTLED and found.lease_version == 2

        await eventually(waits_again)
        again = await whole(database, waiting.id)
        assert again.status is PaymentStatus.PROCESSING
        assert again.claims == 0
        assert again.due_at is not None
        assert abs((again.due_at - (waiting.due_at or again.due_at)).total_seconds()) < 2
    assert await ledger_entries(database, waiting.id) == ["pending"]
    await assert_sound(database)


async def test_a_hint_does_not_disturb_the_worker_that_holds_the_payment(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        waiting = await asking(database, worker)
        approved = await answer(database, waiting)
    async with database.transaction() as connection:
        [held] = await claim(connection, datetime.now(UTC), approved.work, lease_s=30)
    assert held is not None
    assert await notified(database, held) == []
    assert (await whole(database, held.id)).due_at == held.due_at


async def test_what_one_claim_learned_is_recorded_once(database: Database, broker: Broker) -> None:
    """A commit whose answer is lost is repeated."""
    payment = new(PENDING)
    items = await write(database, payment)
    pending, required = Pending("stripe_mock", 10.0), ActionRequired("stripe_mock")
    for outcome in (Unsettled(pending, 40.0), ActionNeeded(required, 900.0)):
        async with database.transaction() as connection:
            now = await database.clock.now(connection)
            [held] = await claim(connection, now, items, lease_s=30)
            assert held is not None
            assert await record(connection, now, [Record(held, outcome)]) != [None]
            assert await record(connection, now, [Record(held, outcome)]) == [None]
            items = [held.work_item]


async def test_an_authorization_is_held_once_its_late_answer_is_there(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        waiting = await unsettled(database, worker, is_held=True)
        await settle_now(database, waiting)
        await worker.processor.offer([waiting.work_item])
        held = await reached(database, waiting.id, PaymentStatus.AUTHORIZED)
    assert held.capture_before is not None
    assert await ledger_entries(database, held.id) == ["pending", "authorize"]
    await assert_sound(database)


async def test_a_payment_that_waits_for_a_late_answer_cannot_be_cancelled(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        waiting = await unsettled(database, worker)
        async with database.transaction() as connection:
            asked = await cancel(connection, waiting.id, by="user:1", now=datetime.now(UTC))
    assert asked is not None
    assert not asked.is_moved


async def test_many_late_answers_hold_no_slot(database: Database, broker: Broker) -> None:
    count = 30
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker, concurrency=5) as worker:
        waiting = [new(PENDING) for _ in range(count)]
        await write(database, *waiting)
        left = [payment.work_item for payment in waiting]
        while left:
            left = await worker.processor.offer(left)
            await worker.processor.wait_for_free_slot(1)

        async def all_wait() -> bool:
            found = [await whole(database, payment.id) for payment in waiting]
            return all(payment.due_reason == HistoryReason.GATEWAY_SETTLED for payment in found)

        await eventually(all_wait)
        assert worker.processor.free == 5
        await settle_now(database, *waiting)
        hastened = await notified(database, *[await whole(database, payment.id) for payment in waiting])
        assert len(hastened) == count
        left = hastened
        while left:
            left = await worker.processor.offer(left, Queue.PROCESS)
            await worker.processor.wait_for_free_slot(1)
        done: Callable[[], Any] = lambda: open_payments(database)  # noqa: E731

        async def all_ended() -> bool:
            return not await done()

        await eventually(all_ended)
    await assert_sound(database)
