"""The verb that records what became of a claim, on both databases and with a clock of its own."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from shared.database.engine import Database
from shared.database.leases import WorkItem
from shared.database.tables import deliveries
from shared.ids import new_id
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments.find import earlier_payments
from shared.payments.outcomes import ClaimOutcome, Release, Retry, Settled
from shared.payments.record import Record, Recorded
from tests.support.claims import LEASE_S, NOW, after, claim_all, claim_one, event_types, moves, record_all
from tests.support.rows import accepted, claimed, read, write
from tests.support.settling import APPROVED, DECLINED

SETTLING: list[ClaimOutcome] = [APPROVED, DECLINED]
OUTCOMES: list[ClaimOutcome] = [APPROVED, DECLINED, Retry(2.5), Release()]


def name_of(outcome: ClaimOutcome) -> str:
    return type(outcome.answer if isinstance(outcome, Settled) else outcome).__name__


async def test_an_approval_completes_the_payment(database: Database) -> None:
    row = accepted(NOW)
    await write(database, row)
    payment = await claim_one(database, row.work_item)
    [recorded] = await record_all(database, Record(payment, APPROVED), now=after(2))
    assert recorded is not None
    assert recorded.payment == await read(database, row.id)
    assert recorded.payment == replace(
        payment,
        status=PaymentStatus.COMPLETED,
        sequence=3,
        due_at=None,
        held_until=None,
        due_reason=None,
        gateway="stripe_mock",
        gateway_transaction_id="ch_1",
        gateway_details={"authorization_code": "A1B2C3"},
        outcome_rule="rate",
        updated_at=after(2),
        processed_at=after(2),
    )
    last = (await moves(database, row.id))[-1]
    assert (last.previous_status, last.new_status) == ("PROCESSING", "COMPLETED")
    assert (last.sequence, last.reason, last.created_by) == (3, "gateway_approved", "worker")
    assert last.metadata == {"gateway": "stripe_mock", "gateway_transaction_id": "ch_1"}
    assert await event_types(database) == ["payment.completed"]


async def test_a_decline_fails_the_payment(database: Database) -> None:
    row = accepted(NOW)
    await write(database, row)
    payment = await claim_one(database, row.work_item)
    [recorded] = await record_all(database, Record(payment, DECLINED), now=after(2))
    assert recorded is not None
    assert recorded.payment == await read(database, row.id)
    assert recorded.payment == replace(
        payment,
        status=PaymentStatus.FAILED,
        sequence=3,
        due_at=None,
        held_until=None,
        due_reason=None,
        gateway="stripe_mock",
        gateway_details={"avs_result": "Y"},
        outcome_rule="card",
        failure_code="card_declined",
        failure_reason="The issuer declined the card.",
        updated_at=after(2),
        processed_at=after(2),
    )
    assert (await moves(database, row.id))[-1].metadata == {"gateway": "stripe_mock", "failure_code": "card_declined"}
    assert await event_types(database) == ["payment.failed"]


async def test_a_settlement_has_its_deliveries_in_the_same_transaction(database: Database) -> None:
    row = claimed(NOW, callback_url="https://shop.example/hook", correlation_id="order-4711")
    await write(database, row)
    [recorded] = await record_all(database, Record(row, APPROVED), now=after(2))
    assert recorded is not None
    async with database.read() as connection:
        [delivery] = await connection.execute(select(deliveries))
    assert recorded.deliveries.to_publish == (WorkItem(delivery.id, 0),)
    assert (delivery.payment_id, delivery.kind, delivery.correlation_id) == (row.id, "callback", "order-4711")
    assert delivery.due_at > after(2)


async def test_a_retry_is_counted_and_due_after_its_wait(database: Database) -> None:
    row = claimed(NOW, gateway_tries=1)
    await write(database, row)
    [recorded] = await record_all(database, Record(row, Retry(2.5)), now=after(1))
    assert recorded == Recorded(replace(row, gateway_tries=2, due_at=after(3.5), due_reason=HistoryReason.RETRIED))
    assert recorded is not None
    assert recorded.payment == await read(database, row.id)
    # It has not moved.
    assert len(await moves(database, row.id)) == 2
    assert await event_types(database) == []


async def test_a_released_payment_is_due_at_once_and_nothing_is_counted(database: Database) -> None:
    row = claimed(NOW, due_at=after(LEASE_S))
    await write(database, row)
    [recorded] = await record_all(database, Record(row, Release()), now=after(1))
    assert recorded is not None
    found = await read(database, row.id)
    assert found == recorded.payment
    assert (found.due_at, found.due_reason, found.gateway_tries) == (after(1), "released", 0)
    assert (found.status, found.lease_version, found.sequence) == (row.status, row.lease_version, row.sequence)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=name_of)
async def test_the_record_of_a_claim_that_was_lost_changes_nothing(database: Database, outcome: ClaimOutcome) -> None:
    row = accepted(NOW)
    await write(database, row)
    stale = await claim_one(database, row.work_item)
    await claim_one(database, stale.work_item, now=after(LEASE_S))
    before, history = await read(database, row.id), await moves(database, row.id)
    assert await record_all(database, Record(stale, outcome), now=after(LEASE_S + 1)) == [None]
    assert await read(database, row.id) == before
    assert await moves(database, row.id) == history
    assert await event_types(database) == []


@pytest.mark.parametrize("late", OUTCOMES, ids=name_of)
@pytest.mark.parametrize("outcome", SETTLING, ids=name_of)
async def test_nothing_moves_a_payment_that_has_ended(
    database: Database, outcome: ClaimOutcome, late: ClaimOutcome
) -> None:
    row = claimed(NOW)
    await write(database, row)
    await record_all(database, Record(row, outcome))
    before, history = await read(database, row.id), await moves(database, row.id)
    assert await record_all(database, Record(row, late), now=after(1)) == [None]
    assert await read(database, row.id) == before
    assert await moves(database, row.id) == history
    assert len(await event_types(database)) == 1


async def test_of_several_records_of_one_claim_exactly_one_is_written(database: Database) -> None:
    row = claimed(NOW)
    await write(database, row)
    answers = await asyncio.gather(*(record_all(database, Record(row, outcome)) for outcome in SETTLING * 3))
    assert len([answer for [answer] in answers if answer]) == 1
    assert len(await moves(database, row.id)) == 3
    assert len(await event_types(database)) == 1


async def test_a_retry_recorded_twice_is_counted_once(database: Database) -> None:
    """As after a COMMIT whose answer was lost: the worker cannot know and writes it again."""
    row = claimed(NOW)
    await write(database, row)
    for _ in range(2):
        await record_all(database, Record(row, Retry(1)))
    assert (await read(database, row.id)).gateway_tries == 1


async def test_a_batch_of_records_is_answered_in_order_and_one_that_is_stale_spoils_nothing(database: Database) -> None:
    rows = [claimed(NOW) for _ in range(5)]
    await write(database, *rows)
    stale = replace(rows[1], lease_version=0)
    unknown = replace(rows[0], id=new_id())
    answers = await record_all(
        database,
        Record(rows[4], DECLINED),
        Record(stale, APPROVED),
        Record(rows[0], APPROVED),
        Record(unknown, APPROVED),
        Record(rows[2], Retry(1)),
        Record(rows[3], Release()),
    )
    ids = [rows[4].id, None, rows[0].id, None, rows[2].id, rows[3].id]
    assert [answer and answer.payment.id for answer in answers] == ids
    found = [(await read(database, row.id)).status.value for row in rows]
    assert found == ["COMPLETED", "PROCESSING", "PROCESSING", "PROCESSING", "FAILED"]
    assert await record_all(database) == []


async def test_a_claim_and_the_record_of_the_one_before_it_never_both_win(database: Database) -> None:
    """The relay's message for an expired lease meets the late record of its holder."""
    rows = [claimed(NOW) for _ in range(20)]
    items = await write(database, *rows)
    claims, records = await asyncio.gather(
        claim_all(database, items), record_all(database, *(Record(row, APPROVED) for row in rows))
    )
    for row, again, settled in zip(rows, claims, records, strict=True):
        assert (again is None) != (settled is None)
        assert len(await moves(database, row.id)) == 3


async def test_earlier_payments_are_those_of_the_same_user_for_the_same_order(database: Database) -> None:
    failed: dict[str, Any] = {"status": PaymentStatus.FAILED, "due_at": None, "due_reason": None}
    first, second = accepted(NOW, order_id="7", **failed), accepted(NOW, order_id="7", **failed)
    foreign, other = accepted(NOW, order_id="7", user_id="2"), accepted(NOW, order_id="8")
    third = accepted(NOW, order_id="7")
    rows = [first, second, foreign, other, third]
    await write(database, *rows)
    async with database.read() as connection:
        counted = await earlier_payments(connection, [row.id for row in rows])
    assert counted == {first.id: 0, second.id: 1, foreign.id: 0, other.id: 0, third.id: 2}
