"""The orders of authorized payments: checked again before the capture, confirmed after it, on both databases."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from shared.config.settings import Settings
from shared.database.tables import payments
from shared.lifecycle import PaymentStatus
from shared.payments.payment import Payment
from tests.support.order_standins import Order
from tests.support.order_worlds import CENTS, Shop, shop_with
from tests.support.rows import ledger_entries, reasons
from tests.support.waiting import eventually
from tests.support.workers import working
from tests.test_refunded_orders import FOR_EVER, PAID

type MakeSettings = Callable[..., Settings]

UNFIT: dict[str, dict[str, Any]] = {
    "order_not_payable": {"status": "CANCELLED"},
    "order_not_owned": {"user_id": 2},
    "order_amount_mismatch": {"total": "15.86"},
}


async def held(shop: Shop, order: Order) -> Payment:
    """Return an authorized payment for the order."""
    return await shop.reached(await shop.accept(order, manual=True), PaymentStatus.AUTHORIZED)


async def capture_failed(shop: Shop, payment: Payment) -> dict[str, Any]:
    """Return the error of the payment's capture, once it is AUTHORIZED again after the request."""

    async def there() -> bool:
        return (await reasons(shop.database, payment.id))[-1] == "capture_failed"

    await eventually(there, 30)
    found = await shop.reached(payment, PaymentStatus.AUTHORIZED)
    assert found.last_capture_error is not None
    return found.last_capture_error


@pytest.mark.parametrize("amount", [None, 700])
async def test_the_order_is_confirmed_when_the_payment_is_captured_and_not_before(
    make_settings: MakeSettings, amount: int | None
) -> None:
    async with shop_with(make_settings) as shop:
        order = shop.orders.place()
        async with working(shop.runtime):
            payment = await held(shop, order)
        checks = len(shop.orders.asked("GET"))
        assert checks == 1
        assert (await shop.updates(payment), order.moves) == ({}, [])
        shop.orders.updates_to_lose = 2
        async with working(shop.runtime):
            await shop.request(payment, amount)
            captured = await shop.reached(payment, PaymentStatus.COMPLETED)
            await shop.update(payment, PAID, "delivered")
        assert captured.amounts.captured == (amount or CENTS)
        assert order.moves == ["CONFIRMED"]
        # Once more before the capture, and then before and after the update.
        assert len(shop.orders.asked("GET")) >= checks + 3


@pytest.mark.parametrize("code", UNFIT)
async def test_an_order_that_may_not_be_paid_is_not_authorized(make_settings: MakeSettings, code: str) -> None:
    async with shop_with(make_settings) as shop, working(shop.runtime):
        order = shop.orders.place()
        payment = await shop.accept(order, manual=True, due_at=datetime.now(UTC) + timedelta(seconds=1))
        for name, value in UNFIT[code].items():
            setattr(order, name, value)
        failed = await shop.reached(payment, PaymentStatus.FAILED)
        assert (failed.failure_code, failed.capture_before) == (code, None)
        assert await ledger_entries(shop.database, payment.id) == ["decline"]


@pytest.mark.parametrize("code", [*UNFIT, "order_not_found"])
async def test_an_order_that_may_not_be_paid_any_more_fails_the_capture_and_nothing_is_voided(
    make_settings: MakeSettings, code: str
) -> None:
    async with shop_with(make_settings) as shop, working(shop.runtime):
        order = shop.orders.place()
        payment = await held(shop, order)
        fit = {name: getattr(order, name) for name in UNFIT.get(code, {})}
        for name, value in UNFIT.get(code, {}).items():
            setattr(order, name, value)
        if code == "order_not_found":
            del shop.orders.orders[order.id]
        await shop.request(payment)
        error = await capture_failed(shop, payment)
        assert error["code"] == code
        assert error["reason"]
        assert await ledger_entries(shop.database, payment.id) == ["authorize", "capture_decline"]
        assert await shop.event_types(payment) == ["payment.authorized", "payment.capture_failed"]
        assert shop.orders.asked("PUT") == []
        # What is held can be captured later.
        for name, value in fit.items():
            setattr(order, name, value)
        shop.orders.orders[order.id] = order
        await shop.request(payment)
        captured = await shop.reached(payment, PaymentStatus.COMPLETED)
        assert captured.last_capture_error is None
        await shop.update(payment, PAID, "delivered")


@pytest.mark.parametrize("trouble", ["down", "sick", "503"])
async def test_the_capture_waits_for_an_order_service_that_does_not_answer(
    make_settings: MakeSettings, trouble: str
) -> None:
    async with shop_with(make_settings) as shop:
        order = shop.orders.place()
        async with working(shop.runtime):
            payment = await held(shop, order)
            # A sick service answers 500, which says nothing.
            readable = shop.orders.orders
            match trouble:
                case "down":
                    await shop.orders.down()
                case "sick":
                    shop.orders.is_sick, shop.orders.orders = True, {}
                case status:
                    shop.orders.failing = int(status)
            await shop.request(payment)

            async def is_postponed() -> bool:
                return (await reasons(shop.database, payment.id)).count("order_unreachable") > 1

            await eventually(is_postponed, 30)
            assert await ledger_entries(shop.database, payment.id) == ["authorize"]
        shop.orders.is_sick, shop.orders.orders, shop.orders.failing = False, readable, None
        if trouble == "down":
            await shop.orders.up()
        async with working(shop.runtime):
            await shop.reached(payment, PaymentStatus.COMPLETED)
            await shop.update(payment, PAID, "delivered")
        assert await ledger_entries(shop.database, payment.id) == ["authorize", "capture"]


async def test_a_capture_that_waited_too_long_fails_and_the_payment_is_authorized_again(
    make_settings: MakeSettings,
) -> None:
    async with shop_with(make_settings, order_check_timeout=0.3) as shop, working(shop.runtime):
        order = shop.orders.place()
        payment = await held(shop, order)
        await shop.orders.down()
        waits = []
        for _ in range(2):
            await shop.request(payment)
            assert (await capture_failed(shop, payment))["code"] == "order_service_unavailable"
            waits.append((await reasons(shop.database, payment.id)).count("order_unreachable"))
        # Each capture has the whole time for itself.
        assert 0 < waits[0] < waits[1]
        await shop.orders.up()
        await shop.request(payment)
        await shop.reached(payment, PaymentStatus.COMPLETED)
        assert await ledger_entries(shop.database, payment.id) == [
            "authorize", "capture_decline", "capture_decline", "capture",
        ]  # fmt: skip


@pytest.mark.parametrize("expires", [False, True])
async def test_a_void_asks_no_order_service(make_settings: MakeSettings, *, expires: bool) -> None:
    async with shop_with(make_settings) as shop, working(shop.runtime):
        payment = await held(shop, shop.orders.place())
        await shop.orders.down()
        if expires:
            over = datetime.now(UTC) - timedelta(seconds=1)
            async with shop.database.transaction() as connection:
                await connection.execute(update(payments).values(capture_before=over, due_at=over))
        else:
            await shop.request(payment, voids=True)
        await shop.reached(payment, PaymentStatus.CANCELLED)
        assert await ledger_entries(shop.database, payment.id) == ["authorize", "void"]


async def test_what_was_captured_before_the_order_was_cancelled_was_captured(make_settings: MakeSettings) -> None:
    """A worker was killed between the capture and its record, and the order was cancelled since."""
    async with shop_with(make_settings) as shop:
        order = shop.orders.place()
        async with working(shop.runtime):
            payment = await held(shop, order)
        await shop.request(payment)
        await shop.capture_without_record(payment)
        order.status = "CANCELLED"
        async with working(shop.runtime):
            await shop.reached(payment, PaymentStatus.COMPLETED)
            await shop.update(payment, PAID, "exhausted")
        assert await ledger_entries(shop.database, payment.id) == ["authorize", "capture"]
        assert (await shop.event_types(payment)).count("payment.order_conflict") == 1


async def test_an_authorized_order_is_not_confirmed_while_updates_are_lost(make_settings: MakeSettings) -> None:
    async with shop_with(make_settings) as shop:
        order = shop.orders.place()
        shop.orders.updates_to_drop = FOR_EVER
        async with working(shop.runtime):
            payment = await held(shop, order)
            await shop.request(payment)
            await shop.reached(payment, PaymentStatus.COMPLETED)
            await eventually(lambda: len(shop.orders.asked("PUT")) > 3)
        shop.orders.updates_to_drop = 0
        async with working(shop.runtime):
            await shop.update(payment, PAID, "delivered")
        assert order.moves == ["CONFIRMED"]
