"""A worker's payments and their orders: nothing is charged for an order that may not be paid, on both databases."""

import asyncio

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select

from shared.broker.client import Broker
from shared.database.engine import Database
from shared.database.tables import deliveries
from shared.lifecycle import FailureCode, HistoryReason, PaymentStatus
from shared.payments.outcomes import Declined
from shared.payments.payment import Payment
from tests.support.processing import (
    APPROVED,
    NOTHING_HAPPENED,
    NOW,
    UNKNOWN,
    RunningProcessor,
    ScriptedGateway,
    ScriptedOrders,
    due_again,
    gateway_answering,
    orders_answering,
    processing,
    settled,
    simulated_gateway,
)
from tests.support.rows import accepted, assert_sound, claimed, ledger_entries, read, reasons, write
from tests.support.waiting import eventually
from worker.orders import NotPayable, Payable

PAYABLE = Payable()
NOT_PAYABLE = NotPayable(FailureCode.ORDER_NOT_PAYABLE)
ORDER_CODES = [
    FailureCode.ORDER_NOT_FOUND,
    FailureCode.ORDER_NOT_OWNED,
    FailureCode.ORDER_NOT_PAYABLE,
    FailureCode.ORDER_AMOUNT_MISMATCH,
]


async def delivery_kinds(database: Database, row: Payment) -> list[str]:
    """Return the kinds of the deliveries of a payment's events."""
    async with database.read() as connection:
        found = await connection.execute(select(deliveries.c.kind).where(deliveries.c.payment_id == row.id))
    return sorted(found.scalars())


# -- the order service answers


async def test_a_payable_order_is_charged_and_a_delivery_to_its_service_is_emitted(
    database: Database, broker: Broker
) -> None:
    row = accepted(NOW, callback_url="https://shop.example/")
    await write(database, row)
    orders = orders_answering(PAYABLE)
    async with processing(database, gateway_answering(APPROVED), broker, orders=orders) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert payment.status is PaymentStatus.COMPLETED
    assert [checked.id for checked in orders.checked] == [row.id]
    assert await delivery_kinds(database, row) == ["callback", "order"]
    assert await reasons(database, row.id) == ["accepted", "claimed", "gateway_approved"]


async def test_without_an_order_service_none_of_this_happens(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    async with processing(database, gateway_answering(APPROVED), broker) as worker:
        await worker.offer(row)
        await settled(database, row)
    assert await delivery_kinds(database, row) == []


@pytest.mark.parametrize("code", ORDER_CODES)
async def test_what_the_order_says_against_it_fails_a_payment_and_nothing_is_charged(
    database: Database, broker: Broker, code: FailureCode
) -> None:
    row = accepted(NOW)
    await write(database, row)
    orders = orders_answering(NotPayable(code))
    async with (
        simulated_gateway(database) as gateway,
        processing(database, gateway, broker, orders=orders) as worker,
    ):
        await worker.offer(row)
        [payment] = await settled(database, row)
        # Also a worker that was paused charges nothing.
        assert isinstance(await gateway.charge(row), Declined)
    assert (payment.status, payment.failure_code, payment.outcome_rule) == ("FAILED", code, "order")
    assert (payment.gateway, payment.gateway_transaction_id) == (None, None)
    assert payment.failure_reason
    assert await ledger_entries(database, row.id) == ["decline"]
    assert await reasons(database, row.id) == ["accepted", "claimed", "order_refused"]
    assert await delivery_kinds(database, row) == []
    await assert_sound(database)


async def test_the_gateway_is_not_asked_before_the_order_is_known(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway, orders = gateway_answering(APPROVED), ScriptedOrders([PAYABLE])
    async with processing(database, gateway, broker, orders=orders) as worker:
        await worker.offer(row)
        await eventually(lambda: orders.checked)
        assert gateway.asked == []
        # No transaction is open meanwhile.
        async with asyncio.timeout(5), database.transaction() as connection:
            await connection.execute(select(deliveries.c.id).with_for_update(nowait=True))
        orders.opened.set()
        await settled(database, row)
    assert len(gateway.asked) == 1


async def test_one_claim_checks_the_order_once_however_often_the_gateway_is_asked(
    database: Database, broker: Broker
) -> None:
    row = accepted(NOW)
    await write(database, row)
    orders = orders_answering(PAYABLE)
    gateway = gateway_answering(UNKNOWN, UNKNOWN, APPROVED)
    async with processing(database, gateway, broker, orders=orders) as worker:
        await worker.offer(row)
        await settled(database, row)
    assert len(gateway.asked) == 3
    assert len(orders.checked) == 1


async def test_the_order_is_checked_again_before_the_gateway_is_tried_again(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway, orders = gateway_answering(NOTHING_HAPPENED), orders_answering(PAYABLE, NOT_PAYABLE)
    async with processing(database, gateway, broker, orders=orders) as worker:
        await worker.offer(row)
        await worker.offer(await due_again(database, row, reason=HistoryReason.RETRIED))
        [payment] = await settled(database, row)
    assert (payment.failure_code, len(gateway.asked)) == ("order_not_payable", 1)
    assert await reasons(database, row.id) == ["accepted", "claimed", "retried", "order_refused"]


# -- what an earlier worker has done


async def test_what_was_charged_before_the_order_changed_was_charged(database: Database, broker: Broker) -> None:
    """A worker was killed between charge and record, and the order was cancelled since."""
    row = claimed(NOW)
    await write(database, row)
    gateway = gateway_answering(APPROVED, on_record=APPROVED)
    async with processing(database, gateway, broker, orders=orders_answering(NOT_PAYABLE)) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert (payment.status, payment.gateway_transaction_id) == ("COMPLETED", "ch_1")
    assert (await reasons(database, row.id))[-1] == "gateway_approved"
    # The delivery to the order service finds out about the conflict.
    assert await delivery_kinds(database, row) == ["order"]


async def test_what_was_only_authorized_is_voided(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    stopped = asyncio.Event()

    async def nap(_seconds: float) -> None:
        if await ledger_entries(database, row.id) == ["authorize"]:
            await stopped.wait()

    async with (
        simulated_gateway(database, sleep=nap) as gateway,
        processing(database, gateway, broker, orders=orders_answering(PAYABLE)) as worker,
    ):
        await worker.offer(row)
        await eventually(lambda: ledger_entries(database, row.id))
        await worker.processor.stop(0.01)
    async with (
        simulated_gateway(database) as gateway,
        processing(database, gateway, broker, orders=orders_answering(NOT_PAYABLE)) as successor,
    ):
        await successor.offer(await read(database, row.id))
        [payment] = await settled(database, row)
    assert await ledger_entries(database, row.id) == ["authorize", "void"]
    assert (payment.status, payment.failure_code) == ("FAILED", "order_not_payable")
    await assert_sound(database)


async def test_what_the_gateway_declined_before_stays_declined(database: Database, broker: Broker) -> None:
    row = claimed(NOW)
    await write(database, row)
    declined = Declined("stripe_mock", FailureCode.CARD_DECLINED, "No.", {}, "rate")
    gateway = gateway_answering(APPROVED, on_record=declined)
    async with processing(database, gateway, broker, orders=orders_answering(NOT_PAYABLE)) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert (payment.failure_code, payment.gateway) == ("card_declined", "stripe_mock")
    assert (await reasons(database, row.id))[-1] == "gateway_declined"


async def test_a_refusal_that_was_not_recorded_is_found_in_the_gateways_ledger(
    database: Database, broker: Broker
) -> None:
    """A worker was killed after it had voided the payment; by now the order would be payable."""
    row = claimed(NOW)
    await write(database, row)
    async with (
        simulated_gateway(database) as gateway,
        processing(database, gateway, broker, orders=orders_answering(PAYABLE)) as worker,
    ):
        await gateway.void_or_fetch(row, FailureCode.ORDER_NOT_PAYABLE)
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert (payment.status, payment.failure_code) == ("FAILED", "order_not_payable")
    await assert_sound(database)


async def test_a_payment_that_kills_its_workers_is_settled_without_a_check(database: Database, broker: Broker) -> None:
    row = claimed(NOW, claims=5)
    await write(database, row)
    gateway, orders = gateway_answering(APPROVED, on_record=APPROVED), orders_answering(NOT_PAYABLE)
    async with processing(database, gateway, broker, orders=orders, max_claims=5) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert payment.status is PaymentStatus.COMPLETED
    assert orders.checked == []


# -- meanwhile


async def test_a_payment_counts_as_checking_its_order_and_then_as_in_the_gateway(
    database: Database, broker: Broker
) -> None:
    rows = [accepted(NOW) for _ in range(2)]
    await write(database, *rows)
    gateway, orders = ScriptedGateway(), ScriptedOrders([PAYABLE])
    async with processing(database, gateway, broker, orders=orders) as worker:
        await worker.offer(*rows)
        await eventually(lambda: len(orders.checked) == 2)
        assert_counted(worker, checking_orders=2, in_gateway=0)
        orders.opened.set()
        await eventually(lambda: len(gateway.asked) == 2)
        assert_counted(worker, checking_orders=0, in_gateway=2)
        gateway.opened.set()
        await settled(database, *rows)
        assert_counted(worker, checking_orders=0, in_gateway=0)


async def test_a_check_that_a_stop_interrupts_counts_no_longer(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    orders = ScriptedOrders([PAYABLE])
    async with processing(database, gateway_answering(APPROVED), broker, orders=orders) as worker:
        await worker.offer(row)
        await eventually(lambda: orders.checked)
        assert_counted(worker, checking_orders=1, in_gateway=0)
        await worker.processor.stop(0)
        assert_counted(worker, checking_orders=0, in_gateway=0)


def assert_counted(worker: RunningProcessor, *, checking_orders: int, in_gateway: int) -> None:
    """Compare what the processor says, and the metrics, with what they must be."""
    assert (worker.processor.checking_orders, worker.processor.in_gateway) == (checking_orders, in_gateway)
    assert REGISTRY.get_sample_value("payments_checking_orders") == checking_orders
    assert REGISTRY.get_sample_value("payments_in_gateway") == in_gateway


async def test_a_payment_whose_order_is_being_read_is_released_at_once(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    orders, gateway = ScriptedOrders([PAYABLE]), ScriptedGateway()
    async with processing(database, gateway, broker, orders=orders) as worker:
        await worker.offer(row)
        await eventually(lambda: orders.checked)
        async with asyncio.timeout(10):
            await worker.processor.stop(0.01)
            await worker.run
    payment = await read(database, row.id)
    assert (payment.status, payment.due_reason, payment.order_checks) == ("PROCESSING", "released", 0)
    assert gateway.asked == []
