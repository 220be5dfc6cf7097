"""The verb that claims a payment for a worker, on both databases and with a clock of its own."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.ids import new_id
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments.outcomes import Release, Retry
from shared.payments.record import Record
from shared.payments.requests import cancel
from tests.support.claims import LEASE_S, NOW, after, claim_all, claim_one, event_types, moves, record_all
from tests.support.rows import accepted, claimed, read, reasons, write


async def test_the_first_claim_takes_a_payment_out_of_pending(database: Database) -> None:
    row = accepted(NOW)
    await write(database, row)
    payment = await claim_one(database, row.work_item, now=after(3))
    assert payment == replace(
        row,
        status=PaymentStatus.PROCESSING,
        sequence=2,
        lease_version=1,
        due_at=after(3 + LEASE_S),
        held_until=after(3 + LEASE_S),
        due_reason=HistoryReason.LEASE_EXPIRED,
        updated_at=after(3),
    )
    assert payment == await read(database, row.id)
    last = (await moves(database, row.id))[-1]
    assert (last.previous_status, last.new_status) == ("PENDING", "PROCESSING")
    assert (last.sequence, last.reason, last.created_by, last.metadata) == (2, "claimed", "worker", {"attempt": 1})
    assert last.created_at == after(3)
    assert await event_types(database) == []


async def test_a_later_claim_moves_from_processing_to_processing(database: Database) -> None:
    row = claimed(NOW, claims=1)
    await write(database, row)
    payment = await claim_one(database, row.work_item)
    assert (payment.lease_version, payment.sequence, payment.status) == (2, 3, PaymentStatus.PROCESSING)
    last = (await moves(database, row.id))[-1]
    assert (last.previous_status, last.new_status, last.reason) == ("PROCESSING", "PROCESSING", "lease_expired")


@pytest.mark.parametrize(
    ("outcome", "reason"), [(None, "lease_expired"), (Retry(1), "retried"), (Release(), "released")], ids=str
)
async def test_the_next_claim_says_how_the_one_before_it_ended(
    database: Database, outcome: Retry | Release | None, reason: str
) -> None:
    row = accepted(NOW)
    await write(database, row)
    first = await claim_one(database, row.work_item)
    if outcome is not None:
        await record_all(database, Record(first, outcome))
    await claim_one(database, first.work_item, now=after(60))
    assert await reasons(database, row.id) == ["accepted", "claimed", reason]


async def test_claims_are_answered_in_the_order_of_the_items(database: Database) -> None:
    rows = [accepted(NOW) for _ in range(4)]
    await write(database, *rows)
    items = [
        rows[2].work_item,
        WorkItem(new_id(), 0),
        rows[0].work_item,
        rows[2].work_item,
        rows[3].work_item,
        WorkItem(rows[1].id, 5),
    ]
    answers = await claim_all(database, items)
    assert [answer and answer.id for answer in answers] == [rows[2].id, None, rows[0].id, None, rows[3].id, None]
    assert (await read(database, rows[1].id)).status is PaymentStatus.PENDING
    assert await claim_all(database, []) == []


async def test_of_several_claims_with_one_item_exactly_one_wins_and_one_move_is_written(database: Database) -> None:
    rows = [accepted(NOW) for _ in range(10)]
    items = await write(database, *rows)
    answers = await asyncio.gather(*(claim_all(database, order) for order in (items, items[::-1], items, items[::-1])))
    won = [payment.id for batch in answers for payment in batch if payment]
    assert sorted(won) == sorted(row.id for row in rows)
    for row in rows:
        assert await reasons(database, row.id) == ["accepted", "claimed"]


@pytest.mark.parametrize("status", [PaymentStatus.COMPLETED, PaymentStatus.FAILED, PaymentStatus.CANCELLED])
async def test_what_has_ended_is_not_claimed_also_with_the_right_lease_version(
    database: Database, status: PaymentStatus
) -> None:
    row = accepted(NOW, status=status, due_at=None, due_reason=None)
    await write(database, row)
    assert await claim_all(database, [row.work_item]) == [None]
    assert await read(database, row.id) == row


async def test_of_a_claim_and_a_cancel_exactly_one_wins(database: Database) -> None:
    rows = [accepted(NOW) for _ in range(12)]
    items = await write(database, *rows)

    async def call_off(payment_id: UUID) -> bool:
        async with database.transaction() as connection:
            cancelled = await cancel(connection, payment_id, by="user:1", now=NOW)
        return cancelled is not None and cancelled.is_moved

    claims, cancels = await asyncio.gather(
        claim_all(database, items), asyncio.gather(*(call_off(row.id) for row in rows))
    )
    for row, payment, is_cancelled in zip(rows, claims, cancels, strict=True):
        assert (payment is not None) != is_cancelled
        assert len(await moves(database, row.id)) == 2
