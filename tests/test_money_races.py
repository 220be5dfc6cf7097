"""Two of capture, cancel, expiry, refund and claim at the same time, in every pair that can meet, on both databases.

One wins, and the other hears a refusal or sees that nothing moved. Each race is run many times, so that each order
comes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from shared.broker.client import Broker, Queue
from shared.database.engine import Database
from shared.database.refund_tables import refunds
from shared.database.tables import gateway_ledger, payment_history, payments
from shared.lifecycle import PaymentStatus
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundStatus
from shared.refunds.claim import claim_refunds
from shared.refunds.refund import Refund
from shared.refunds.requests import ExceedsBalance, NotRefundable, RefundMoved, cancel_refund
from tests.support.authorizations import authorized, request, whole
from tests.support.processing import RunningProcessor, processing, simulated_gateway
from tests.support.rows import assert_sound, claim
from tests.support.waiting import eventually
from tests.test_refunds import charged, ended, refund

ROUNDS = 12

type Racer = Callable[[Database, Payment], Awaitable[bool]]


# -- what races; each says whether it moved the payment


async def capture(database: Database, payment: Payment) -> bool:
    return (await request(database, payment, 60)).is_moved


async def cancel(database: Database, payment: Payment) -> bool:
    return (await request(database, payment, voids=True)).is_moved


async def expire(database: Database, payment: Payment) -> bool:
    """A worker claims the payment, whose authorization is over."""
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        return await claim(connection, now, [payment.work_item], lease_s=30) != [None]


async def refund_it(database: Database, payment: Payment) -> bool:
    answer = await refund(database, payment)
    assert isinstance(answer, RefundMoved | NotRefundable | ExceedsBalance)
    return isinstance(answer, RefundMoved)


async def together(database: Database, payment: Payment, *racers: Racer) -> list[bool]:
    return list(await asyncio.gather(*(racer(database, payment) for racer in racers)))


async def let_end(database: Database, payment: Payment) -> None:
    """Let the authorization be over, as seen by every clock from now on."""
    async with database.transaction() as connection:
        over = await database.clock.now(connection) - timedelta(milliseconds=1)
        of_payment = payments.c.id == payment.id
        await connection.execute(update(payments).where(of_payment).values(capture_before=over, due_at=over))


@pytest.mark.parametrize(
    ("racers", "winners"),
    [
        pytest.param((capture, capture), 1, id="capture against capture"),
        pytest.param((capture, cancel), 1, id="capture against cancel"),
        pytest.param((cancel, cancel), 1, id="cancel against cancel"),
        pytest.param((capture, refund_it), 1, id="capture against refund"),
        pytest.param((cancel, refund_it), 1, id="cancel against refund"),
        pytest.param((capture, cancel, refund_it, capture, cancel), 1, id="all against all"),
    ],
)
async def test_of_requests_for_one_authorization_one_wins(
    database: Database, broker: Broker, racers: tuple[Racer, ...], winners: int
) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        for number in range(ROUNDS):
            held = await authorized(database, worker)
            order = racers[number % len(racers) :] + racers[: number % len(racers)]
            assert sum(await together(database, held, *order)) == winners
            await finish(database, worker, held)
    await assert_sound(database)
    await assert_one_request_each(database)


@pytest.mark.parametrize(
    "racers",
    [
        pytest.param((expire, cancel), id="expiry against cancel"),
        pytest.param((expire, expire), id="expiry against expiry"),
        pytest.param((expire, capture), id="expiry against capture"),
        pytest.param((expire, refund_it), id="expiry against refund"),
    ],
)
async def test_at_the_end_of_an_authorization_one_wins(
    database: Database, broker: Broker, racers: tuple[Racer, ...]
) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        for number in range(ROUNDS):
            held = await authorized(database, worker)
            await let_end(database, held)
            order = racers[number % 2 :] + racers[: number % 2]
            moved = await together(database, held, *order)
            # A cancel that comes first makes the payment due for a void, which the claim is then for.
            assert sum(moved) == 1 or (set(racers) == {expire, cancel} and sum(moved) == 2)
            await finish(database, worker, held)
            assert (await whole(database, held.id)).status is PaymentStatus.CANCELLED
    await assert_sound(database)
    async with database.read() as connection:
        kinds = await connection.execute(
            select(gateway_ledger.c.kind, func.count()).group_by(gateway_ledger.c.kind).order_by("kind")
        )
        assert [tuple(row) for row in kinds] == [("authorize", ROUNDS), ("void", ROUNDS)]


async def test_a_capture_just_before_the_end_wins_over_the_expiry(database: Database, broker: Broker) -> None:
    """Whoever comes first, the payment is captured or voided, and never both."""
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        ends = set()
        for wait_s in (0.05, 0.0, 0.01, 0.02, 0.005, 0.1):
            held = await authorized(database, worker)
            async with database.transaction() as connection:
                until = await database.clock.now(connection) + timedelta(seconds=0.02)
                of_payment = payments.c.id == held.id
                await connection.execute(update(payments).where(of_payment).values(capture_before=until, due_at=until))

            async def claim_at_the_end(database: Database, payment: Payment) -> bool:
                await asyncio.sleep(0.02)
                return await expire(database, payment)

            async def capture_after(database: Database, payment: Payment, wait_s: float = wait_s) -> bool:
                await asyncio.sleep(wait_s)
                return await capture(database, payment)

            await together(database, held, claim_at_the_end, capture_after)
            await finish(database, worker, held)
            ends.add((await whole(database, held.id)).status)
    assert ends <= {PaymentStatus.COMPLETED, PaymentStatus.CANCELLED}
    await assert_sound(database)


async def test_a_refund_against_a_capture_that_is_being_recorded(database: Database, broker: Broker) -> None:
    """A refund is accepted once the capture is recorded, and refused before, and never above what was captured."""
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        for _ in range(ROUNDS):
            held = await authorized(database, worker)
            requested = await request(database, held, 60)

            async def work(work: Any = requested.work) -> None:
                await worker.processor.offer(work)

            await asyncio.gather(work(), *(refund_it(database, held) for _ in range(4)))
            await finish(database, worker, held)
            completed = await whole(database, held.id)
            assert completed.status is PaymentStatus.COMPLETED
            assert completed.amounts.captured == 60
            assert completed.amounts.reserved in {0, 60}
    await assert_sound(database)


async def test_a_refund_is_cancelled_or_claimed_and_never_both(database: Database, broker: Broker) -> None:
    async def claim_it(one: Refund) -> bool:
        async with database.transaction() as connection:
            now = await database.clock.now(connection)
            return await claim_refunds(connection, now, [one.work_item], lease_s=30) != [None]

    async def cancel_it(one: Refund) -> bool:
        async with database.transaction() as connection:
            now = await database.clock.now(connection)
            answer = await cancel_refund(connection, one, by="service:shop", now=now)
        assert answer is not None
        return answer.is_moved

    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        payment = await charged(database, worker)
        for number in range(ROUNDS):
            answer = await refund(database, payment, 1)
            assert isinstance(answer, RefundMoved)
            racers = [claim_it, cancel_it, cancel_it, claim_it]
            moved = await asyncio.gather(*(racer(answer.refund) for racer in racers[number % 2 :]))
            assert sum(moved) == 1
    async with database.read() as connection:
        is_claimed = refunds.c.status == RefundStatus.PROCESSING
        claimed = (await connection.execute(select(func.count()).where(is_claimed))).scalar_one()
    assert (await whole(database, payment.id)).amounts.reserved == claimed
    await assert_sound(database)


async def test_a_refund_is_claimed_once_and_paid_once(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        payment = await charged(database, worker)
        answer = await refund(database, payment)
        assert isinstance(answer, RefundMoved)
        await asyncio.gather(*(worker.processor.offer(answer.work, Queue.REFUND) for _ in range(8)))
        assert (await ended(database, answer.refund.id)).status is RefundStatus.COMPLETED
    await assert_sound(database)
    assert (await whole(database, payment.id)).sequence == 5


async def finish(database: Database, worker: RunningProcessor, payment: Payment) -> None:
    """Let a worker do what the payment is due for; a claim whose worker does nothing is over at once."""
    found = await whole(database, payment.id)
    if found.status is PaymentStatus.PROCESSING:
        await worker.processor.offer([found.work_item])

    async def is_settled() -> bool:
        return (await whole(database, payment.id)).status.is_settled

    await eventually(is_settled)


async def assert_one_request_each(database: Database) -> None:
    """Every payment was captured or voided on one request."""
    asked = payment_history.c.reason.in_(["capture_requested", "void_requested"])
    async with database.read() as connection:
        found = await connection.execute(select(func.count()).where(asked).group_by(payment_history.c.payment_id))
        assert list(found.scalars()) == [1] * ROUNDS
