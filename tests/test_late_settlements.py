"""Payments that their gateway settles late, as workers treat them: by a notification or when they are asked about."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.broker.client import Broker, Queue
from shared.database.engine import Database
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments.outcomes import ActionNeeded, ActionRequired, Pending, Unsettled
from shared.payments.record import Record, record
from shared.payments.requests import cancel
from shared.simulation.scenarios import PENDING, PENDING_THEN_DECLINED, Scenario
from tests.support.authorizations import reached, told, whole
from tests.support.processing import processing, simulated_gateway
from tests.support.rows import assert_sound, claim, ledger_entries, write
from tests.support.waiting import eventually
from tests.support.waiting_payments import answer, asking, new, notified, open_payments, settle_now, unsettled


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
