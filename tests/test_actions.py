"""Payments that wait for their customer, as workers treat them: approved, declined, left alone or cancelled."""

import asyncio
from collections import Counter

import pytest
from prometheus_client import REGISTRY

from shared.broker.client import Broker
from shared.database.engine import Database
from shared.lifecycle import PaymentStatus
from shared.simulation.scenarios import CHALLENGED_THEN_DECLINED
from tests.support.authorizations import reached, request, told, whole
from tests.support.processing import processing, simulated_gateway
from tests.support.rows import assert_sound, ledger_entries, write
from tests.support.waiting import eventually
from tests.support.waiting_payments import DECLINED, answer, asking, new, open_payments


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
