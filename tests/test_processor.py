"""A worker's slots and claims, with a gateway that is passed in, on both databases."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import update
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from shared.broker.client import Broker
from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import payments
from shared.lifecycle import HistoryReason, PaymentStatus
from tests.support.processing import (
    APPROVED,
    NOW,
    ScriptedGateway,
    UnreliableDatabase,
    gateway_answering,
    locked_payments,
    processing,
    settled,
    simulated_gateway,
)
from tests.support.rows import accepted, claimed, read, read_all, reasons, write
from tests.support.waiting import eventually

CLAIM_REASONS = (
    HistoryReason.CLAIMED,
    HistoryReason.LEASE_EXPIRED,
    HistoryReason.RETRIED,
    HistoryReason.RELEASED,
    HistoryReason.ORDER_UNREACHABLE,
)

# -- slots


async def test_never_more_payments_than_slots_and_the_leftover_is_for_other_workers(
    database: Database, broker: Broker
) -> None:
    rows = [accepted(NOW) for _ in range(12)]
    items = await write(database, *rows)
    gateway = ScriptedGateway()
    async with processing(database, gateway, broker, concurrency=5) as worker:
        assert await worker.processor.offer(items) == items[5:]
        await eventually(lambda: worker.processor.in_gateway == 5)
        assert worker.processor.free == 0
        assert await worker.processor.offer(items[5:]) == items[5:]
        assert [row.lease_version for row in await read_all(database)] == [1] * 5 + [0] * 7
        gateway.opened.set()
        await settled(database, *rows[:5])
        await eventually(lambda: worker.processor.free == 5)
        assert await worker.processor.offer(items[5:]) == items[10:]
        await worker.finish()


async def test_a_slot_is_free_again_when_the_gateway_has_answered(database: Database, broker: Broker) -> None:
    """What is left to do is the database's: if it is slow, the slots need not stand empty."""
    rows = [accepted(NOW) for _ in range(5)]
    items = await write(database, *rows)
    gateway = ScriptedGateway()
    async with processing(database, gateway, broker, concurrency=5) as worker:
        await worker.processor.offer(items)
        await eventually(lambda: worker.processor.in_gateway == 5)
        assert not await worker.processor.wait_for_free_slot(0.01)
        waiting = asyncio.create_task(worker.processor.wait_for_free_slot(10))
        async with locked_payments(database):
            gateway.opened.set()
            await eventually(lambda: worker.processor.free == 5)
            async with asyncio.timeout(2):
                assert await waiting
            assert {payment.status for payment in await read_all(database)} == {PaymentStatus.PROCESSING}
        await settled(database, *rows)


# SQLite cannot lock the first five alone.
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_no_slot_is_given_out_while_too_many_answers_wait_to_be_recorded(
    database: Database, broker: Broker
) -> None:
    rows = [accepted(NOW) for _ in range(11)]
    items = await write(database, *rows)
    gateway = ScriptedGateway()
    async with processing(database, gateway, broker, concurrency=5) as worker:
        await worker.processor.offer(items[:5])
        await eventually(lambda: worker.processor.in_gateway == 5)
        async with locked_payments(database, payments.c.id.in_([item.id for item in items[:5]])):
            gateway.opened.set()
            await eventually(lambda: worker.processor.free == 5)
            assert await worker.processor.offer(items[5:10]) == []
            await eventually(lambda: len(gateway.asked) == 10 and not worker.processor.in_gateway)
            assert worker.processor.free == 0
            assert await worker.processor.offer(items[10:]) == items[10:]
        await settled(database, *rows[:10])
        await worker.finish()
    assert (await read(database, rows[10].id)).lease_version == 0


async def test_offers_at_the_same_time_share_the_slots(database: Database, broker: Broker) -> None:
    items = await write(database, *(accepted(NOW) for _ in range(12)))
    gateway = ScriptedGateway()
    async with processing(database, gateway, broker, concurrency=5) as worker:
        leftovers = await asyncio.gather(*(worker.processor.offer(items[start : start + 4]) for start in (0, 4, 8)))
        assert [len(leftover) for leftover in leftovers] == [0, 3, 4]
        await eventually(lambda: len(gateway.asked) == 5)
        assert worker.processor.free == 0


async def test_an_offer_that_is_cancelled_keeps_no_slot(database: Database, broker: Broker) -> None:
    """arq cancels a job that takes too long, for instance because the database hangs."""
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    async with processing(database, gateway_answering(APPROVED), broker) as worker:
        async with locked_payments(database):
            offer = asyncio.create_task(worker.offer(*rows))
            await eventually(lambda: worker.processor.free == 7)
            offer.cancel()
            await asyncio.wait([offer])
        assert worker.processor.free == 10
        await worker.finish()
    assert offer.cancelled()


# -- claims


async def test_duplicates_and_stale_items_are_no_ops_and_keep_no_slot(database: Database, broker: Broker) -> None:
    row, ended = claimed(NOW, claims=2), accepted(NOW, status=PaymentStatus.CANCELLED, due_at=None, due_reason=None)
    await write(database, row, ended)
    items = [row.work_item, WorkItem(row.id, 1), row.work_item, WorkItem(row.id, 7), ended.work_item]
    gateway = ScriptedGateway()
    async with processing(database, gateway, broker) as worker:
        assert await worker.processor.offer(items) == []
        await eventually(lambda: gateway.asked)
        assert worker.processor.free == 9
        assert await worker.processor.offer(items) == []
        assert worker.processor.free == 9
        gateway.opened.set()
        await settled(database, row)
        assert worker.processor.free == 10
        await worker.finish()
    assert len(gateway.asked) == 1
    assert await reasons(database, row.id) == [
        "accepted",
        "claimed",
        "lease_expired",
        "lease_expired",
        "gateway_approved",
    ]


async def test_two_workers_with_the_same_message_charge_once(database: Database, broker: Broker) -> None:
    rows = [accepted(NOW) for _ in range(20)]
    items = await write(database, *rows)
    gateway = gateway_answering(APPROVED)
    async with (
        processing(database, gateway, broker, concurrency=20) as one,
        processing(database, gateway, broker, concurrency=20) as other,
    ):
        await asyncio.gather(one.processor.offer(items), other.processor.offer(items[::-1]))
        await settled(database, *rows)
    assert len(gateway.asked) == 20
    assert {payment.sequence for payment in await read_all(database)} == {3}


async def test_a_bug_with_one_payment_leaves_the_others_alone(database: Database, broker: Broker) -> None:
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    broken = replace(rows[0], method={"type": "BARTER", "details": {}, "scenario": None})
    async with database.transaction() as connection:
        await connection.execute(update(payments).where(payments.c.id == broken.id).values(method=broken.method))
    with capture_logs(processors=[merge_contextvars]) as logs:
        async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
            await worker.offer(*rows)
            await settled(database, *rows[1:])
            await worker.finish()
    assert [line["payment_id"] for line in logs if line["event"] == "payment.crashed"] == [str(broken.id)]
    assert (await read(database, broken.id)).due_reason == "lease_expired"


async def test_items_that_could_not_be_claimed_are_dropped_and_keep_no_slot(database: Database, broker: Broker) -> None:
    rows = [accepted(NOW) for _ in range(3)]
    await write(database, *rows)
    unreliable = UnreliableDatabase(database)
    async with processing(unreliable, gateway_answering(APPROVED), broker) as worker:
        unreliable.is_away = True
        assert await worker.offer(*rows) == []
        assert worker.processor.free == 10
        unreliable.is_away = False
        await worker.offer(*rows)
        await settled(database, *rows)
        await worker.finish()


async def test_a_claim_whose_commit_got_no_answer_is_left_to_its_lease(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    unreliable, gateway = UnreliableDatabase(database), gateway_answering(APPROVED)
    async with processing(unreliable, gateway, broker) as worker:
        unreliable.commits_lost = 1
        await worker.offer(row)
        assert worker.processor.free == 10
        assert gateway.asked == []
        lost = await read(database, row.id)
        assert (lost.lease_version, lost.due_reason) == (1, "lease_expired")
        await worker.offer(lost)
        await settled(database, row)
    assert await reasons(database, row.id) == ["accepted", "claimed", "lease_expired", "gateway_approved"]


async def test_claims_are_counted_by_their_reason(database: Database, broker: Broker) -> None:
    first = accepted(NOW)
    later = [claimed(NOW, due_reason=reason) for reason in CLAIM_REASONS[1:]]
    await write(database, first, *later)
    before = claims_counted()
    async with processing(database, gateway_answering(APPROVED), broker) as worker:
        await worker.offer(first, *later)
        await settled(database, first, *later)
    assert claims_counted() == {reason: count + 1 for reason, count in before.items()}


async def test_a_claim_that_another_worker_made_or_that_failed_is_not_counted(
    database: Database, broker: Broker
) -> None:
    row, ended = claimed(NOW, claims=2), accepted(NOW, status=PaymentStatus.CANCELLED, due_at=None, due_reason=None)
    await write(database, row, ended)
    unreliable = UnreliableDatabase(database)
    before = claims_counted()
    async with processing(unreliable, gateway_answering(APPROVED), broker) as worker:
        await worker.processor.offer([WorkItem(row.id, 1), WorkItem(row.id, 7), ended.work_item])
        unreliable.is_away = True
        await worker.offer(row)
    assert claims_counted() == before


def claims_counted() -> dict[str, float]:
    """Return how many claims this process has counted, by reason."""
    return {
        reason: REGISTRY.get_sample_value("payments_claimed_total", {"reason": reason}) or 0.0
        for reason in CLAIM_REASONS
    }
