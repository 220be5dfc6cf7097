"""A worker's payments whose order service gives no answer: they wait, and in the end they fail; on both databases."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.broker.client import Broker
from shared.database.engine import Database
from shared.errors import UpstreamUnavailable
from shared.lifecycle import HistoryReason, PaymentStatus
from shared.payments.payment import Payment
from tests.support.processing import (
    APPROVED,
    NOTHING_HAPPENED,
    NOW,
    gateway_answering,
    orders_answering,
    processing,
    settled,
    simulated_gateway,
)
from tests.support.rows import accepted, assert_sound, claimed, ledger_entries, read, reasons, write
from tests.support.waiting import eventually
from worker.orders import Payable
from worker.payments.charge import ORDER_BACKOFF_MAX_S

UNREACHABLE = UpstreamUnavailable("no answer")
PAYABLE = Payable()


async def postponed(database: Database, row: Payment, checks: int) -> Payment:
    """Return the payment once it waits for its order service for the `checks`-th time."""

    async def is_postponed() -> Payment | None:
        found = await read(database, row.id)
        return found if found.order_checks == checks else None

    found = await eventually(is_postponed)
    assert found is not None
    return found


async def is_recorded(database: Database, row: Payment, claims: int) -> bool:
    """Return whether the payment's last claim, the `claims`-th, has ended with a record."""
    found = await read(database, row.id)
    return found.lease_version == claims and found.due_reason != HistoryReason.LEASE_EXPIRED


# -- until the order service answers


async def test_while_the_order_service_is_unreachable_a_payment_waits_with_growing_pauses_and_is_then_charged(
    database: Database, broker: Broker
) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = gateway_answering(APPROVED)
    orders = orders_answering(*[UNREACHABLE] * 6, PAYABLE)
    waits = []
    async with processing(
        database, gateway, broker, orders=orders, max_claims=1, order_check_timeout_s=3600, order_backoff_s=1
    ) as worker:
        for checks in range(1, 7):
            await worker.offer(await read(database, row.id))
            payment = await postponed(database, row, checks)
            assert payment.due_at is not None
            assert (payment.status, payment.due_reason) == ("PROCESSING", "order_unreachable")
            assert payment.order_check_until is not None
            waits.append((payment.due_at - payment.updated_at).total_seconds())
        assert (gateway.asked, gateway.voided) == ([], [])
        await worker.offer(await read(database, row.id))
        [payment] = await settled(database, row)
    for wait, expected in zip(waits, (1, 2, 4, 8, ORDER_BACKOFF_MAX_S, ORDER_BACKOFF_MAX_S), strict=True):
        # A slow machine records late.
        assert expected <= wait < expected + 10
    # Although it was claimed seven times, and `max_claims` is one.
    assert payment.status is PaymentStatus.COMPLETED
    assert await reasons(database, row.id) == [
        "accepted", "claimed", *["order_unreachable"] * 6, "gateway_approved",
    ]  # fmt: skip
    await assert_sound(database, with_ledger=False)


async def test_waiting_for_the_order_service_takes_nothing_from_the_gateways_tries(
    database: Database, broker: Broker
) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway = gateway_answering(NOTHING_HAPPENED, NOTHING_HAPPENED, APPROVED)
    orders = orders_answering(UNREACHABLE, PAYABLE, UNREACHABLE, UNREACHABLE, PAYABLE)
    async with processing(database, gateway, broker, orders=orders, gateway_tries_max=3, max_claims=1) as worker:
        for claims in range(1, 6):
            await worker.offer(await read(database, row.id))
            await eventually(lambda claims=claims: is_recorded(database, row, claims))  # type: ignore[misc]
        await worker.offer(await read(database, row.id))
        [payment] = await settled(database, row)
    assert payment.status is PaymentStatus.COMPLETED
    assert [asked.gateway_tries for asked in gateway.asked] == [0, 1, 2]


# -- until its time is over


@pytest.mark.parametrize("left_s", [0, -5])
async def test_at_the_end_of_its_time_a_payment_fails_and_nothing_is_charged(
    database: Database, broker: Broker, left_s: float
) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=2)
    row = claimed(NOW, order_checks=1, order_check_until=long_ago + timedelta(seconds=left_s))
    await write(database, row)
    async with (
        simulated_gateway(database) as gateway,
        processing(database, gateway, broker, orders=orders_answering(UNREACHABLE)) as worker,
    ):
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert (payment.status, payment.failure_code) == ("FAILED", "order_service_unavailable")
    assert (payment.outcome_rule, payment.gateway) == ("order", None)
    assert (await reasons(database, row.id))[-1] == "order_check_timed_out"
    assert await ledger_entries(database, row.id) == ["decline"]
    await assert_sound(database)


async def test_at_the_end_of_its_time_a_charge_on_record_completes_the_payment(
    database: Database, broker: Broker
) -> None:
    row = claimed(NOW, order_checks=1, order_check_until=datetime.now(UTC) - timedelta(minutes=2))
    await write(database, row)
    gateway = gateway_answering(APPROVED, on_record=APPROVED)
    async with processing(database, gateway, broker, orders=orders_answering(UNREACHABLE)) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert payment.status is PaymentStatus.COMPLETED


async def test_its_time_begins_with_the_first_check_that_got_no_answer(database: Database, broker: Broker) -> None:
    """A payment that waited for a worker longer than that is not failed at once."""
    row = accepted(NOW - timedelta(hours=1))
    await write(database, row)
    gateway, orders = gateway_answering(APPROVED), orders_answering(UNREACHABLE)
    async with processing(database, gateway, broker, orders=orders, order_check_timeout_s=60) as worker:
        await worker.offer(row)
        first = await postponed(database, row, 1)
        await worker.offer(first)
        second = await postponed(database, row, 2)
    assert first.order_check_until == second.order_check_until == first.updated_at + timedelta(seconds=60)


async def test_the_last_check_comes_exactly_at_the_end_of_its_time(database: Database, broker: Broker) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=100)
    row = claimed(NOW, order_checks=20, order_check_until=until)
    await write(database, row)
    gateway, orders = gateway_answering(APPROVED), orders_answering(UNREACHABLE)
    async with processing(database, gateway, broker, orders=orders, order_backoff_s=600) as worker:
        await worker.offer(row)
        payment = await postponed(database, row, 21)
        assert payment.due_at is not None
        assert payment.due_at <= until


async def test_without_any_time_to_wait_a_payment_fails_at_the_first_check(database: Database, broker: Broker) -> None:
    row = accepted(NOW)
    await write(database, row)
    gateway, orders = gateway_answering(APPROVED), orders_answering(UNREACHABLE)
    async with processing(database, gateway, broker, orders=orders, order_check_timeout_s=0) as worker:
        await worker.offer(row)
        [payment] = await settled(database, row)
    assert payment.failure_code == "order_service_unavailable"


def test_clients_do_not_see_how_often_an_order_was_checked() -> None:
    assert not [name for name in accepted(NOW, order_checks=3).to_json() if name.startswith("order_check")]
