"""Authorization, capture, void and expiry of a payment, as workers do them, on both databases."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from sqlalchemy import select, update

from shared.broker.client import Broker
from shared.database.engine import Database
from shared.database.refund_tables import payment_balances
from shared.database.tables import events, payments
from shared.lifecycle import CaptureMethod, HistoryReason, PaymentOperation, PaymentStatus
from shared.payments.outcomes import Authorized, Release, Retry
from shared.payments.record import Record, record
from tests.support.authorizations import authorized, reached, request, told, whole
from tests.support.processing import APPROVED, processing, simulated_gateway
from tests.support.rows import accepted, claim, write


async def test_an_authorization_is_held_and_then_captured_in_part(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        held = await authorized(database, worker)
        assert held.capture_before is not None
        assert held.due_at == held.capture_before
        assert held.amounts.to_json() == {
            "amount_authorized": held.amount, "amount_captured": 0, "amount_refunded": 0, "amount_refundable": 0,
        }  # fmt: skip
        requested = await request(database, held, 60)
        assert requested.is_moved
        await worker.processor.offer(requested.work)
        captured = await reached(database, held.id, PaymentStatus.COMPLETED)
    assert captured.amounts.captured == captured.amounts.refundable == 60
    assert captured.gateway_transaction_id == held.gateway_transaction_id
    assert captured.capture_before is captured.due_at is None
    reasons, types, ledger = await told(database, captured)
    assert reasons[2:] == ["authorized", "capture_requested", "claimed", "captured"]
    assert types == ["payment.authorized", "payment.completed"]
    assert ledger == [(1, "authorize", held.amount), (4, "capture", 60)]


@pytest.mark.parametrize("expires", [False, True])
async def test_an_authorization_is_voided_on_request_and_at_its_end(
    database: Database, broker: Broker, *, expires: bool
) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        held = await authorized(database, worker)
        await worker.processor.offer([held.work_item])
        assert (await whole(database, held.id)).status is PaymentStatus.AUTHORIZED
        if expires:
            async with database.transaction() as connection:
                over = datetime.now(UTC) - timedelta(seconds=1)
                await connection.execute(update(payments).values(capture_before=over, due_at=over))
            assert not (await request(database, held)).is_moved
            await worker.processor.offer([held.work_item])
        else:
            await worker.processor.offer((await request(database, held, voids=True)).work)
        cancelled = await reached(database, held.id, PaymentStatus.CANCELLED)
    reasons, types, ledger = await told(database, cancelled)
    why = [HistoryReason.AUTHORIZATION_EXPIRED] if expires else [HistoryReason.VOID_REQUESTED, HistoryReason.CLAIMED]
    assert reasons[3:] == [*why, "voided"]
    assert types == ["payment.authorized", "payment.cancelled"]
    assert [kind for _, kind, _ in ledger] == ["authorize", "void"]
    assert cancelled.processed_at is cancelled.capture_before is None
    assert cancelled.amounts.refundable == 0
    async with database.read() as connection:
        body = await connection.execute(select(events.c.body).where(events.c.type == "payment.cancelled"))
    assert orjson.loads(body.scalar_one())["data"]["payment"] == cancelled.to_json()


async def test_the_balance_has_a_row_only_beyond_the_plain_charge(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        plain = accepted(datetime.now(UTC))
        await write(database, plain)
        await worker.offer(plain)
        completed = await reached(database, plain.id, PaymentStatus.COMPLETED)
        held = await authorized(database, worker)
    assert completed.amounts.captured == completed.amounts.refundable == plain.amount
    async with database.read() as connection:
        rows = (await connection.execute(select(payment_balances.c.payment_id))).scalars().all()
    assert rows == [held.id]


async def test_a_record_that_is_repeated_after_the_next_request_changes_nothing(
    database: Database, broker: Broker
) -> None:
    """The answer to a commit may be lost: then the worker repeats the record, and meanwhile a client was faster."""
    payment = replace(
        accepted(datetime.now(UTC)), capture_method=CaptureMethod.MANUAL, operation=PaymentOperation.AUTHORIZE
    )
    await write(database, payment)
    async with database.transaction() as connection:
        [held] = await claim(connection, await database.clock.now(connection), [payment.work_item], lease_s=30)
    assert held is not None
    repeated = [Record(held, Authorized(APPROVED, 60)), Record(held, Retry(1)), Record(held, Release())]
    async with database.transaction() as connection:
        assert await record(connection, await database.clock.now(connection), repeated[:1]) != [None]
    requested = (await request(database, payment, 60)).payment
    for one in repeated:
        async with database.transaction() as connection:
            assert await record(connection, await database.clock.now(connection), [one]) == [None]
    assert await whole(database, payment.id) == requested


async def test_the_gateway_refuses_to_capture_what_was_released_there(database: Database, broker: Broker) -> None:
    async with simulated_gateway(database) as gateway, processing(database, gateway, broker) as worker:
        held = await authorized(database, worker)
        await gateway.void(held)
        await worker.processor.offer((await request(database, held)).work)
        again = await reached(database, held.id, PaymentStatus.AUTHORIZED)
    assert again.last_capture_error is not None
    assert again.last_capture_error["code"] == "capture_declined"
    assert (await told(database, held))[2] == [(1, "authorize", held.amount), (2, "void", held.amount)]
