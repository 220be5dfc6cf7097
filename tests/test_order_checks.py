"""A worker's payments and their orders: nothing is charged for an order that may not be paid, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from shared.db import Database
from shared.documents import Payment
from shared.errors import NeighbourUnreachable
from shared.lifecycle import FailureCode, HistoryReason, PaymentStatus
from shared.models import deliveries
from shared.queue import Carrier, Publisher
from tests.rows import accepted, assert_sound, books, claimed, read, reasons, write
from tests.test_process_payments import APPROVED, NOW, Hands, ScriptedGateway, due_again, saying, settled, simulated
from tests.waiting import eventually
from worker.gateway.protocol import ChargeRequest, Declined, Gateway, GatewayUnavailable, OutcomeUnknown
from worker.orders import NotPayable, OrderBook, Payable, Verdict
from worker.process_payments import ORDER_BACKOFF_MAX_S, Processor, Rules

UNREACHABLE = NeighbourUnreachable("nobody answers")
PAYABLE = Payable()
NOT_PAYABLE = NotPayable(FailureCode.ORDER_NOT_PAYABLE)
ORDER_CODES = [
    FailureCode.ORDER_NOT_FOUND,
    FailureCode.ORDER_NOT_OWNED,
    FailureCode.ORDER_NOT_PAYABLE,
    FailureCode.ORDER_AMOUNT_MISMATCH,
]


@dataclass
class ScriptedOrders:
    """Answers each check with the next of `script`, of which the last stays; but not before `opened` is set."""

    script: list[Verdict | Exception]
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    checked: list[Payment] = field(default_factory=list)

    async def check(self, payment: Payment) -> Verdict:
        self.checked.append(payment)
        verdict = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await self.opened.wait()
        if isinstance(verdict, Exception):
            raise verdict
        return verdict


def orders_saying(*script: Verdict | Exception) -> ScriptedOrders:
    """An order book that answers at once."""
    orders = ScriptedOrders(list(script))
    orders.opened.set()
    return orders


@asynccontextmanager
async def working(
    database: Database, gateway: Gateway, carrier: Carrier, orders: OrderBook | None, **rules: Any
) -> AsyncIterator[Hands]:
    values: dict[str, Any] = {
        "concurrency": 10,
        "lease_s": 30,
        "max_claims": 5,
        "gateway_tries_max": 3,
        "gateway_backoff_s": 1.0,
        "is_seeded": False,
        "order_check_timeout_s": 60,
        "order_backoff_s": 1.0,
        **rules,
    }
    publisher = Publisher(carrier)
    processor = Processor(database, gateway, publisher, Rules(**values), orders)
    run = asyncio.create_task(processor.run())
    await eventually(lambda: processor.free)
    try:
        yield Hands(processor, publisher, run)
    finally:
        await processor.stop(0)
        await asyncio.wait([run])


async def order_deliveries(database: Database, row: Payment) -> list[str]:
    """The kinds of the deliveries of a payment's events."""
    async with database.read() as connection:
        found = await connection.execute(select(deliveries.c.kind).where(deliveries.c.payment_id == row.id))
    return sorted(found.scalars())


# -- a verdict


async def test_a_payable_order_is_charged_and_its_service_will_be_told(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW, callback_url="https://shop.example/")
    await write(database, row)
    orders = orders_saying(PAYABLE)
    async with working(database, saying(APPROVED), carrier, orders) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert payment.status is PaymentStatus.COMPLETED
    assert [checked.id for checked in orders.checked] == [row.id]
    assert await order_deliveries(database, row) == ["callback", "order"]
    assert await reasons(database, row.id) == ["accepted", "claimed", "gateway_approved"]


async def test_without_an_order_service_none_of_this_happens(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW)
    await write(database, row)
    async with working(database, saying(APPROVED), carrier, None) as hands:
        await hands.offer(row)
        await settled(database, row)
    assert await order_deliveries(database, row) == []


@pytest.mark.parametrize("code", ORDER_CODES)
async def test_what_the_order_says_against_it_fails_a_payment_and_nothing_is_charged(
    database: Database, carrier: Carrier, code: FailureCode
) -> None:
    row = accepted(NOW)
    await write(database, row)
    async with (
        simulated(database) as gateway,
        working(database, gateway, carrier, orders_saying(NotPayable(code))) as hands,
    ):
        await hands.offer(row)
        [payment] = await settled(database, row)
        late = ChargeRequest(row.id, str(row.id), gateway_type(row), None, row.amount, row.currency, 0)
        assert isinstance(await gateway.charge(late), Declined)  # also a worker that was paused charges nothing
    assert (payment.status, payment.failure_code, payment.outcome_rule) == ("FAILED", code, "order")
    assert (payment.gateway, payment.gateway_transaction_id) == (None, None)
    assert payment.failure_reason
    assert await books(database, row.id) == ["decline"]
    assert await reasons(database, row.id) == ["accepted", "claimed", "order_refused"]
    assert await order_deliveries(database, row) == []
    await assert_sound(database)


def gateway_type(row: Payment) -> Any:
    return row.method["type"]


async def test_the_gateway_is_not_asked_before_the_order_is_known(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway, orders = saying(APPROVED), ScriptedOrders([PAYABLE])
    async with working(database, gateway, carrier, orders) as hands:
        await hands.offer(row)
        await eventually(lambda: orders.checked)
        assert gateway.asked == []
        async with asyncio.timeout(5), database.transaction() as connection:  # and no transaction is open
            await connection.execute(select(deliveries.c.id).with_for_update(nowait=True))
        orders.opened.set()
        await settled(database, row)
    assert len(gateway.asked) == 1


async def test_one_claim_checks_the_order_once_however_often_the_gateway_is_asked(
    database: Database, carrier: Carrier
) -> None:
    row = accepted(NOW)
    await write(database, row)
    orders = orders_saying(PAYABLE)
    gateway = saying(OutcomeUnknown("lost"), OutcomeUnknown("lost"), APPROVED)
    async with working(database, gateway, carrier, orders) as hands:
        await hands.offer(row)
        await settled(database, row)
    assert len(gateway.asked) == 3
    assert len(orders.checked) == 1


async def test_the_order_is_checked_again_before_the_gateway_is_tried_again(
    database: Database, carrier: Carrier
) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = saying(GatewayUnavailable("rate"))
    async with working(database, gateway, carrier, orders_saying(PAYABLE, NOT_PAYABLE)) as hands:
        await hands.offer(row)
        await hands.offer(await due_again(database, row, reason=HistoryReason.RETRIED))
        [payment] = await settled(database, row)
    assert (payment.failure_code, len(gateway.asked)) == ("order_not_payable", 1)
    assert await reasons(database, row.id) == ["accepted", "claimed", "retried", "order_refused"]


# -- what a worker before us has done


async def test_what_was_charged_before_the_order_changed_was_charged(database: Database, carrier: Carrier) -> None:
    """A worker was killed between charge and record, and the order was cancelled since."""
    row = claimed(NOW)
    await write(database, row)
    async with working(database, saying(APPROVED, on_record=APPROVED), carrier, orders_saying(NOT_PAYABLE)) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert (payment.status, payment.gateway_transaction_id) == ("COMPLETED", "ch_1")
    assert (await reasons(database, row.id))[-1] == "gateway_approved"
    assert await order_deliveries(database, row) == ["order"]  # it will find out about the conflict


async def test_what_was_only_authorized_is_let_go(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW)
    await write(database, row)
    stopped = asyncio.Event()

    async def nap(_seconds: float) -> None:
        if await books(database, row.id) == ["authorize"]:
            await stopped.wait()

    async with (
        simulated(database, sleep=nap) as gateway,
        working(database, gateway, carrier, orders_saying(PAYABLE)) as hands,
    ):
        await hands.offer(row)
        await eventually(lambda: books(database, row.id))
        await hands.processor.stop(0.01)
    async with (
        simulated(database) as gateway,
        working(database, gateway, carrier, orders_saying(NOT_PAYABLE)) as successor,
    ):
        await successor.offer(await read(database, row.id))
        [payment] = await settled(database, row)
    assert await books(database, row.id) == ["authorize", "void"]
    assert (payment.status, payment.failure_code) == ("FAILED", "order_not_payable")
    await assert_sound(database)


async def test_what_the_gateway_declined_before_stays_declined(database: Database, carrier: Carrier) -> None:
    row = claimed(NOW)
    await write(database, row)
    declined = Declined("stripe_mock", FailureCode.CARD_DECLINED, "No.", {}, "rate")
    async with working(database, saying(APPROVED, on_record=declined), carrier, orders_saying(NOT_PAYABLE)) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert (payment.failure_code, payment.gateway) == ("card_declined", "stripe_mock")
    assert (await reasons(database, row.id))[-1] == "gateway_declined"


async def test_a_refusal_that_was_not_recorded_is_found_in_the_gateways_books(
    database: Database, carrier: Carrier
) -> None:
    """A worker was killed after it had closed the payment; by now the order would be payable."""
    row = claimed(NOW)
    await write(database, row)
    request = ChargeRequest(row.id, str(row.id), gateway_type(row), None, row.amount, row.currency, 0)
    async with simulated(database) as gateway, working(database, gateway, carrier, orders_saying(PAYABLE)) as hands:
        await gateway.close(request, FailureCode.ORDER_NOT_PAYABLE)
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert (payment.status, payment.failure_code) == ("FAILED", "order_not_payable")
    await assert_sound(database)


async def test_a_payment_that_kills_its_workers_is_settled_without_a_check(
    database: Database, carrier: Carrier
) -> None:
    row = claimed(NOW, claims=5)
    await write(database, row)
    orders = orders_saying(NOT_PAYABLE)
    async with working(database, saying(APPROVED, on_record=APPROVED), carrier, orders, max_claims=5) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert payment.status is PaymentStatus.COMPLETED
    assert orders.checked == []


# -- nobody to ask


async def postponed(database: Database, row: Payment, checks: int) -> Payment:
    """The payment once it waits for its order service for the `checks`-th time."""

    async def is_so() -> Payment | None:
        found = await read(database, row.id)
        return found if found.order_checks == checks else None

    found = await eventually(is_so)
    assert found is not None
    return found


async def test_while_nobody_can_be_asked_a_payment_waits_with_growing_pauses_and_is_then_charged(
    database: Database, carrier: Carrier
) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = saying(APPROVED)
    waits = []
    orders = orders_saying(*[UNREACHABLE] * 6, PAYABLE)
    async with working(database, gateway, carrier, orders, max_claims=1, order_check_timeout_s=3600) as hands:
        for checks in range(1, 7):
            await hands.offer(await read(database, row.id))
            payment = await postponed(database, row, checks)
            assert payment.due_at is not None
            assert (payment.status, payment.due_reason) == ("PROCESSING", "order_unreachable")
            assert payment.order_check_until is not None
            waits.append((payment.due_at - payment.updated_at).total_seconds())
            await hands.idle()
        assert (gateway.asked, gateway.closed) == ([], [])
        await hands.offer(await read(database, row.id))
        [payment] = await settled(database, row)
    for wait, expected in zip(waits, (1, 2, 4, 8, ORDER_BACKOFF_MAX_S, ORDER_BACKOFF_MAX_S), strict=True):
        assert expected <= wait < expected + 10  # a slow machine records late
    assert payment.status is PaymentStatus.COMPLETED  # although it was claimed seven times: max_claims is one
    assert await reasons(database, row.id) == [
        "accepted", "claimed", *["order_unreachable"] * 6, "gateway_approved",
    ]  # fmt: skip
    await assert_sound(database, with_books=False)


async def test_waiting_for_the_order_service_takes_nothing_from_the_gateways_tries(
    database: Database, carrier: Carrier
) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = saying(GatewayUnavailable("rate"), GatewayUnavailable("rate"), APPROVED)
    orders = orders_saying(UNREACHABLE, PAYABLE, UNREACHABLE, UNREACHABLE, PAYABLE)
    async with working(database, gateway, carrier, orders, gateway_tries_max=3, max_claims=1) as hands:
        for claims in range(1, 6):
            await hands.offer(await read(database, row.id))
            await hands.idle()
            await eventually(lambda claims=claims: is_claimed(database, row, claims))  # type: ignore[misc]
        await hands.offer(await read(database, row.id))
        [payment] = await settled(database, row)
    assert payment.status is PaymentStatus.COMPLETED
    assert [request.gateway_try for request in gateway.asked] == [0, 1, 2]


async def is_claimed(database: Database, row: Payment, claims: int) -> bool:
    found = await read(database, row.id)
    return found.attempt == claims and found.due_reason != HistoryReason.LEASE_EXPIRED


@pytest.mark.parametrize("left_s", [0, -5])
async def test_at_the_end_of_its_time_a_payment_fails_and_nothing_is_charged(
    database: Database, carrier: Carrier, left_s: float
) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=2)
    row = claimed(NOW, order_checks=1, order_check_until=long_ago + timedelta(seconds=left_s))
    await write(database, row)
    async with simulated(database) as gateway, working(database, gateway, carrier, orders_saying(UNREACHABLE)) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert (payment.status, payment.failure_code) == ("FAILED", "order_service_unavailable")
    assert (payment.outcome_rule, payment.gateway) == ("order", None)
    assert (await reasons(database, row.id))[-1] == "order_check_timed_out"
    assert await books(database, row.id) == ["decline"]
    await assert_sound(database)


async def test_at_the_end_of_its_time_a_charge_on_record_completes_it(database: Database, carrier: Carrier) -> None:
    row = claimed(NOW, order_checks=1, order_check_until=datetime.now(UTC) - timedelta(minutes=2))
    await write(database, row)
    async with working(database, saying(APPROVED, on_record=APPROVED), carrier, orders_saying(UNREACHABLE)) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert payment.status is PaymentStatus.COMPLETED


async def test_its_time_begins_with_the_first_check_that_found_nobody(database: Database, carrier: Carrier) -> None:
    """A payment that waited for a worker longer than that is not failed at once."""
    row = accepted(NOW - timedelta(hours=1))
    await write(database, row)
    orders = orders_saying(UNREACHABLE)
    async with working(database, saying(APPROVED), carrier, orders, order_check_timeout_s=60) as hands:
        await hands.offer(row)
        first = await postponed(database, row, 1)
        await hands.idle()
        await hands.offer(first)
        second = await postponed(database, row, 2)
    assert first.order_check_until == second.order_check_until == first.updated_at + timedelta(seconds=60)


async def test_the_last_look_comes_exactly_at_the_end_of_its_time(database: Database, carrier: Carrier) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=100)
    row = claimed(NOW, order_checks=20, order_check_until=until)
    await write(database, row)
    orders = orders_saying(UNREACHABLE)
    async with working(database, saying(APPROVED), carrier, orders, order_backoff_s=600) as hands:
        await hands.offer(row)
        payment = await postponed(database, row, 21)
        assert payment.due_at is not None
        assert payment.due_at <= until


async def test_with_no_patience_a_payment_fails_at_the_first_look(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW)
    await write(database, row)
    orders = orders_saying(UNREACHABLE)
    async with working(database, saying(APPROVED), carrier, orders, order_check_timeout_s=0) as hands:
        await hands.offer(row)
        [payment] = await settled(database, row)
    assert payment.failure_code == "order_service_unavailable"


# -- stopping


async def test_a_payment_whose_order_is_being_read_is_released_at_once(database: Database, carrier: Carrier) -> None:
    row = accepted(NOW)
    await write(database, row)
    orders, gateway = ScriptedOrders([PAYABLE]), ScriptedGateway()
    async with working(database, gateway, carrier, orders) as hands:
        await hands.offer(row)
        await eventually(lambda: orders.checked)
        async with asyncio.timeout(10):
            await hands.processor.stop(0.01)
            await hands.run
    payment = await read(database, row.id)
    assert (payment.status, payment.due_reason, payment.order_checks) == ("PROCESSING", "released", 0)
    assert gateway.asked == []


def test_clients_do_not_see_how_often_an_order_was_looked_at() -> None:
    assert not [name for name in accepted(NOW, order_checks=3).document() if name.startswith("order_check")]
