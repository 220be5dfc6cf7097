"""Refunds as clients ask for them and workers pay them, on both databases."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import func, select, update

from shared.broker.client import Broker, Queue
from shared.database.engine import Database
from shared.database.refund_tables import payment_balances, refund_history, refunds
from shared.database.tables import columns_of, events, gateway_ledger, payment_history, payments
from shared.errors import ValueRefused
from shared.ids import new_id
from shared.lifecycle import PaymentStatus
from shared.payments.outcomes import Approved, Pending, Unsettled
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundHistoryReason, RefundReason, RefundStatus
from shared.refunds.claim import claim_refunds
from shared.refunds.outcomes import RefundSettled, RefundWork
from shared.refunds.record import RefundRecord, record_refunds
from shared.refunds.refund import Refund
from shared.refunds.requests import (
    ExceedsBalance,
    NotRefundable,
    RefundMoved,
    RefundRequest,
    cancel_refund,
    request_refund,
)
from tests.support.authorizations import reached, whole
from tests.support.processing import RunningProcessor, processing, simulated_gateway
from tests.support.rows import accepted, write
from tests.support.waiting import eventually

type Answer = RefundMoved | NotRefundable | ExceedsBalance | None


async def charged(database: Database, worker: RunningProcessor, amount: int = 100) -> Payment:
    payment = accepted(datetime.now(UTC), amount=amount)
    await write(database, payment)
    await worker.offer(payment)
    return await reached(database, payment.id, PaymentStatus.COMPLETED)


async def refund(database: Database, payment: Payment, amount: int | None = None, **changes: Any) -> Answer:
    values: dict[str, Any] = {
        "reason": RefundReason.OTHER, "metadata": {"why": "test"}, "created_by": "service:shop", "correlation_id": None,
    } | changes  # fmt: skip
    request = RefundRequest(id=new_id(), amount=amount, **values)
    async with database.transaction() as connection:
        return await request_refund(connection, payment.id, request, now=await database.clock.now(connection))


async def ended(database: Database, refund_id: UUID) -> Refund:
    async def there() -> Any:
        async with database.read() as connection:
            found = await connection.execute(select(*columns_of(refunds)).where(refunds.c.id == refund_id))
        one = Refund.of(found.mappings().one())
        return one if one.status.has_ended else None

    found: Refund = await eventually(there)
    return found


async def test_a_part_and_then_the_rest_is_refunded(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        payment = await charged(database, worker)
        first = await refund(database, payment, 30)
        assert isinstance(first, RefundMoved)
        assert first.payment.amounts.refundable == 70
        await worker.processor.offer(first.work, Queue.REFUND)
        assert (await ended(database, first.refund.id)).status is RefundStatus.COMPLETED
        partly = await whole(database, payment.id)
        assert (partly.status, partly.amounts.refunded) == (PaymentStatus.PARTIALLY_REFUNDED, 30)
        rest = await refund(database, payment)
        assert isinstance(rest, RefundMoved)
        assert rest.refund.amount == 70
        await worker.processor.offer(rest.work, Queue.REFUND)
        await ended(database, rest.refund.id)
    refunded = await whole(database, payment.id)
    assert (refunded.status, refunded.amounts.refundable) == (PaymentStatus.REFUNDED, 0)
    assert isinstance(await refund(database, payment, 1), NotRefundable)
    async with database.read() as connection:
        types = await connection.execute(select(events.c.type).order_by(events.c.sequence, events.c.type.desc()))
        assert list(types.scalars()) == [
            "payment.completed", "refund.created", "refund.completed", "payment.partially_refunded",
            "refund.created", "refund.completed", "payment.refunded",
        ]  # fmt: skip
        columns = payment_history.c.sequence, payment_history.c.reason
        moves = await connection.execute(select(*columns).order_by("sequence"))
        assert [tuple(row) for row in moves][3:] == [
            (4, "refund_requested"), (5, "refund_completed"), (6, "refund_requested"), (7, "refund_completed"),
        ]  # fmt: skip
        of_refund = await connection.execute(
            select(refund_history.c.reason).where(refund_history.c.refund_id == rest.refund.id).order_by("sequence")
        )
        assert list(of_refund.scalars()) == ["requested", "claimed", "gateway_approved"]


async def test_fifty_refunds_at_once_never_exceed_what_was_captured(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker, concurrency=50) as worker:
        payment = await charged(database, worker)
        answers = await asyncio.gather(*(refund(database, payment, 10) for _ in range(50)))
        moved = [answer for answer in answers if isinstance(answer, RefundMoved)]
        assert len(moved) == 10
        assert sum(isinstance(answer, ExceedsBalance) for answer in answers) == 40
        await worker.processor.offer([item for each in moved for item in each.work], Queue.REFUND)
        for each in moved:
            await ended(database, each.refund.id)
    async with database.read() as connection:
        paid_back = select(func.count(), func.sum(gateway_ledger.c.amount)).where(gateway_ledger.c.kind == "refund")
        assert tuple((await connection.execute(paid_back)).one()) == (10, 100)
    refunded = await whole(database, payment.id)
    assert (refunded.status, refunded.amounts.refunded) == (PaymentStatus.REFUNDED, 100)
    assert refunded.sequence == 3 + 20


async def test_of_two_claims_of_a_refund_in_one_batch_the_later_one_is_recorded(
    database: Database, broker: Broker
) -> None:
    """A worker that was paused records its lost claim beside the one that holds."""
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        payment = await charged(database, worker)
        asked = await refund(database, payment, 40)
        assert isinstance(asked, RefundMoved)
    paid = RefundSettled(Approved("stripe_mock", "re_1", {}, "rate"), RefundHistoryReason.GATEWAY_APPROVED)
    works: list[RefundWork] = []
    items = list(asked.work)
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        for _ in range(2):
            [claimed] = await claim_refunds(connection, now, items, lease_s=30)
            assert claimed is not None
            works.append(claimed.row)
            items = [claimed.row.refund.work_item]
        older, later = await record_refunds(connection, now, [RefundRecord(work, paid) for work in works])
    assert older is None
    assert later is not None
    found = await whole(database, payment.id)
    assert (found.amounts.refunded, found.amounts.reserved) == (40, 0)


async def test_a_late_answer_of_one_claim_is_recorded_once(database: Database, broker: Broker) -> None:
    """A commit whose answer is lost is repeated."""
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        payment = await charged(database, worker)
        asked = await refund(database, payment, 40)
        assert isinstance(asked, RefundMoved)
    pending = Unsettled(Pending("stripe_mock", 10.0), 40.0)
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        [claimed] = await claim_refunds(connection, now, asked.work, lease_s=30)
        assert claimed is not None
        [first] = await record_refunds(connection, now, [RefundRecord(claimed.row, pending)])
        assert first is not None
        assert first.refund.due_reason == RefundHistoryReason.GATEWAY_SETTLED
        assert await record_refunds(connection, now, [RefundRecord(claimed.row, pending)]) == [None]


async def test_a_cancelled_refund_gives_its_amount_back(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        payment = await charged(database, worker)
        accepted_refund = await refund(database, payment)
        assert isinstance(accepted_refund, RefundMoved)
        assert isinstance(await refund(database, payment, 1), ExceedsBalance)
        async with database.transaction() as connection:
            now = await database.clock.now(connection)
            cancelled = await cancel_refund(connection, accepted_refund.refund, by="service:shop", now=now)
        assert cancelled is not None
        assert cancelled.is_moved
        await worker.processor.offer(accepted_refund.work, Queue.REFUND)
        assert isinstance(await refund(database, payment), RefundMoved)
    async with database.read() as connection:
        kinds = (await connection.execute(select(gateway_ledger.c.kind))).scalars()
        assert "refund" not in set(kinds)


async def test_the_database_itself_refuses_to_refund_more_than_was_captured(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        payment = await charged(database, worker)
        await refund(database, payment, 100)
    with pytest.raises(ValueRefused):
        async with database.transaction() as connection:
            await connection.execute(update(payment_balances).values(refunded=payment_balances.c.refunded + 1))


async def test_a_refunded_order_may_be_paid_again(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        payment = await charged(database, worker)
        all_of_it = await refund(database, payment)
        assert isinstance(all_of_it, RefundMoved)
        await worker.processor.offer(all_of_it.work, Queue.REFUND)
        await ended(database, all_of_it.refund.id)
        again = accepted(datetime.now(UTC), user_id=payment.user_id, order_id=payment.order_id)
        await write(database, again)
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(payments))).scalar_one() == 2


async def test_a_refund_in_the_gateway_counts_like_a_payment_there(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as fast, processing(database, fast, broker) as worker:
        payment = await charged(database, worker)
    async with (
        simulated_gateway(database, delay_min_ms=500, delay_max_ms=500) as gateway,
        processing(database, gateway, broker) as worker,
    ):
        answer = await refund(database, payment)
        assert isinstance(answer, RefundMoved)
        await worker.processor.offer(answer.work, Queue.REFUND)
        await eventually(lambda: worker.processor.in_gateway == 1)
        assert REGISTRY.get_sample_value("payments_in_gateway") == 1
        await ended(database, answer.refund.id)
        await eventually(lambda: worker.processor.in_gateway == 0)
    assert REGISTRY.get_sample_value("payments_in_gateway") == 0
