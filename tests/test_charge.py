"""What the claim of a payment ends with: the gateway's answer, another try, or nothing; on both databases."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from shared.broker.client import Broker
from shared.database.engine import Database
from shared.database.tables import payments
from shared.lifecycle import FailureCode, HistoryReason, PaymentStatus
from shared.payments.outcomes import Declined, GatewayAnswer
from tests.support.processing import (
    APPROVED,
    DECLINED,
    NOTHING_HAPPENED,
    NOW,
    UNKNOWN,
    ScriptedGateway,
    due_again,
    gateway_answering,
    processing,
    settled,
    simulated_gateway,
)
from tests.support.rows import accepted, assert_sound, claimed, ledger_entries, read, reasons, write
from tests.support.waiting import eventually

# -- the gateway's answer is what is recorded


async def test_an_approved_payment_is_completed(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    async with processing(database, gateway_answering(APPROVED), broker) as worker:
        assert await worker.offer(row) == []
        [payment] = await settled(database, row)
    assert (payment.status, payment.gateway, payment.gateway_transaction_id) == ("COMPLETED", "stripe_mock", "ch_1")
    assert await reasons(database, row.id) == ["accepted", "claimed", "gateway_approved"]


async def test_a_declined_payment_is_failed_with_the_gateways_failure_code(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = gateway_answering(DECLINED)
    async with processing(database, gateway, broker) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert (payment.status, payment.failure_code, payment.outcome_rule) == ("FAILED", "card_declined", "card")
    assert await reasons(database, row.id) == ["accepted", "claimed", "gateway_declined"]
    assert len(gateway.asked) == 1
    assert gateway.voided == []


async def test_the_gateway_is_asked_for_what_the_payment_says(database: Database, broker: Broker) -> None:
    method = {"type": "PAYPAL", "details": {}, "scenario": "payer_account_restricted"}
    row = claimed(NOW, amount=4711, currency="EUR", gateway_tries=1, method=method)
    await write(database, row)
    gateway = gateway_answering(DECLINED)
    async with processing(database, gateway, broker) as worker:
        await worker.offer(row)
        await settled(database, row)
    [asked] = gateway.asked
    after_claim = replace(
        row,
        lease_version=2,
        sequence=row.sequence + 1,
        due_at=asked.due_at,
        held_until=asked.due_at,
        updated_at=asked.updated_at,
    )
    assert asked == after_claim


async def test_no_transaction_is_open_while_the_gateway_is_asked(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = ScriptedGateway()
    async with processing(database, gateway, broker) as worker:
        await worker.offer(row)
        await eventually(lambda: gateway.asked)
        # SQLite has one writer.
        async with asyncio.timeout(5), database.transaction() as connection:
            await connection.execute(select(payments.c.id).where(payments.c.id == row.id).with_for_update(nowait=True))
        gateway.opened.set()
        await settled(database, row)


# -- nothing happened, or it is not known what did


async def test_a_payment_whose_gateway_is_unreachable_is_tried_again_with_growing_waits_and_then_fails(
    database: Database, broker: Broker
) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = gateway_answering(NOTHING_HAPPENED)
    waits = []
    async with processing(database, gateway, broker, gateway_tries_max=4, gateway_backoff_s=40) as worker:
        for tries in range(1, 4):
            await worker.offer(await read(database, row.id))
            payment = await due_again(database, row, reason=HistoryReason.RETRIED)
            assert payment.due_at is not None
            assert (payment.status, payment.gateway_tries, payment.lease_version) == ("PROCESSING", tries, tries)
            waits.append((payment.due_at - payment.updated_at).total_seconds())
        await worker.offer(await read(database, row.id))
        [payment] = await settled(database, row)
    for number, wait in enumerate(waits):
        assert 40 * 2**number <= wait < 40 * 2**number + 10
    assert (payment.status, payment.failure_code, payment.gateway_tries) == ("FAILED", "network_error", 3)
    assert payment.outcome_rule == "rate"
    assert [asked.gateway_tries for asked in gateway.asked] == [0, 1, 2, 3]
    assert [code for _, code in gateway.voided] == [FailureCode.NETWORK_ERROR]
    assert await reasons(database, row.id) == [
        "accepted", "claimed", "retried", "retried", "retried", "gateway_unreachable",
    ]  # fmt: skip


async def test_out_of_tries_a_charge_that_is_on_record_after_all_completes_the_payment(
    database: Database, broker: Broker
) -> None:
    row = claimed(NOW, gateway_tries=2)
    await write(database, row)
    async with processing(database, gateway_answering(NOTHING_HAPPENED, on_record=APPROVED), broker) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert (payment.status, payment.gateway_transaction_id) == ("COMPLETED", "ch_1")
    assert (await reasons(database, row.id))[-1] == "gateway_approved"


async def test_after_a_network_error_for_good_a_late_charge_is_declined(database: Database, broker: Broker) -> None:
    method = {"type": "CREDIT_CARD", "details": {}, "scenario": "network_error"}
    row = claimed(NOW, claims=3, gateway_tries=2, method=method)
    await write(database, row)
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
        assert (payment.status, payment.failure_code) == ("FAILED", "network_error")
        assert payment.outcome_rule == "card"
        late = replace(row, method={**method, "scenario": None}, gateway_tries=3)
        assert isinstance(await gateway.charge(late), Declined)
    assert await ledger_entries(database, row.id) == ["decline"]
    await assert_sound(database)


async def test_an_unknown_outcome_is_asked_for_again_under_the_same_key(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = gateway_answering(UNKNOWN, UNKNOWN, APPROVED)
    async with processing(database, gateway, broker) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert payment.status is PaymentStatus.COMPLETED
    assert gateway.asked == [gateway.asked[0]] * 3
    assert gateway.asked[0].id == row.id
    assert (payment.lease_version, payment.gateway_tries) == (1, 0)


async def test_the_gateway_is_not_asked_again_once_the_lease_is_nearly_over(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = gateway_answering(UNKNOWN)
    # A second of the lease is margin, and half a second passes before the gateway is asked again.
    async with processing(database, gateway, broker, lease_s=1.9) as worker:
        await worker.offer(row)
        await eventually(lambda: gateway.asked and not worker.processor.in_gateway)
        assert worker.processor.free == 10
        await worker.finish()
    assert 1 <= len(gateway.asked) <= 2
    assert (await read(database, row.id)).due_reason == "lease_expired"


# -- payments that take their workers down with them


@pytest.mark.parametrize(("claims", "tries"), [(4, 0), (6, 2)])
async def test_within_the_limit_of_claims_a_payment_is_charged_as_ever(
    database: Database, broker: Broker, claims: int, tries: int
) -> None:
    row = claimed(NOW, claims=claims, gateway_tries=tries)
    await write(database, row)
    gateway = gateway_answering(APPROVED)
    async with processing(database, gateway, broker, max_claims=5) as worker:
        await worker.offer(row)
        await settled(database, row)
    assert len(gateway.asked) == 1
    assert gateway.voided == []


@pytest.mark.parametrize(
    ("on_record", "status", "failure_code"),
    [(APPROVED, "COMPLETED", None), (DECLINED, "FAILED", "card_declined"), (None, "FAILED", "processing_error")],
    ids=["charged", "declined", "nothing"],
)
async def test_beyond_the_limit_of_claims_only_the_gateways_record_counts(
    database: Database, broker: Broker, on_record: GatewayAnswer | None, status: str, failure_code: str | None
) -> None:
    row = claimed(NOW, claims=5)
    await write(database, row)
    gateway = gateway_answering(APPROVED, on_record=on_record)
    async with processing(database, gateway, broker, max_claims=5) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert gateway.asked == []
    assert (payment.status, payment.failure_code) == (status, failure_code)
    assert (await reasons(database, row.id))[-1] == "claims_exhausted"


async def test_a_payment_that_was_given_up_can_never_be_charged_later(database: Database, broker: Broker) -> None:
    row = claimed(NOW, claims=5)
    await write(database, row)
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker, max_claims=5) as worker:
        await worker.offer(row)
        await settled(database, row)
        answer = await gateway.charge(row)
    assert isinstance(answer, Declined)
    assert await ledger_entries(database, row.id) == ["decline"]
    await assert_sound(database)
