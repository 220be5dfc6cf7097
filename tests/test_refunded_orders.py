"""What becomes of the orders of refunded payments, with a real worker and the stand-in, on both databases."""

from collections.abc import Callable

import pytest

from shared.config.settings import Settings
from shared.lifecycle import PaymentStatus
from tests.support.order_worlds import CENTS, shop_with
from tests.support.waiting import eventually
from tests.support.workers import working

type MakeSettings = Callable[..., Settings]

PAID, REFUNDED = "payment.completed", "payment.refunded"
FOR_EVER = 100_000


async def test_the_order_is_cancelled_once_when_the_last_part_is_refunded(make_settings: MakeSettings) -> None:
    async with shop_with(make_settings, order_on_refund="cancel") as shop, working(shop.runtime):
        order = shop.orders.place()
        payment = await shop.paid(order)
        await shop.update(payment, PAID, "delivered")
        await shop.refund(payment, 85)
        await shop.reached(payment, PaymentStatus.PARTIALLY_REFUNDED)
        assert list(await shop.updates(payment)) == [PAID]
        await shop.refund(payment)
        await shop.reached(payment, PaymentStatus.REFUNDED)
        await shop.update(payment, REFUNDED, "delivered")
        assert order.moves == ["CONFIRMED", "CANCELLED"]
        assert order.notes == [f"Paid: payment {payment.id}", f"Refunded: payment {payment.id}"]
        assert "payment.order_conflict" not in await shop.event_types(payment)


async def test_orders_are_left_as_they_are_by_default(make_settings: MakeSettings) -> None:
    async with shop_with(make_settings) as shop, working(shop.runtime):
        order = shop.orders.place()
        payment = await shop.paid(order)
        await shop.update(payment, PAID, "delivered")
        await shop.refund(payment)
        await shop.reached(payment, PaymentStatus.REFUNDED)
        assert list(await shop.updates(payment)) == [PAID]
        assert order.moves == ["CONFIRMED"]


@pytest.mark.parametrize("status", ["SHIPPED", "DELIVERED"])
async def test_an_order_that_was_shipped_stays_so_and_the_delivery_says_why(
    make_settings: MakeSettings, status: str
) -> None:
    async with shop_with(make_settings, order_on_refund="cancel") as shop, working(shop.runtime):
        order = shop.orders.place()
        payment = await shop.paid(order)
        await shop.update(payment, PAID, "delivered")
        order.status = status
        await shop.refund(payment)
        ended = await shop.update(payment, REFUNDED, "exhausted")
        assert status.lower() in ended["last_error"]
        assert ended["attempts_total"] == 1
        assert (order.status, order.moves) == (status, ["CONFIRMED"])
        assert "payment.order_conflict" not in await shop.event_types(payment)


@pytest.mark.parametrize("status", ["CONFIRMED", "PROCESSING"])
async def test_lost_answers_and_a_restart_cancel_the_order_once(make_settings: MakeSettings, status: str) -> None:
    async with shop_with(make_settings, order_on_refund="cancel") as shop:
        order = shop.orders.place()
        async with working(shop.runtime):
            payment = await shop.paid(order)
            await shop.update(payment, PAID, "delivered")
            order.status = status
            shop.orders.updates_to_drop = FOR_EVER
            await shop.refund(payment)
            await shop.reached(payment, PaymentStatus.REFUNDED)
            await eventually(lambda: len(shop.orders.asked("PUT")) > 3)
        shop.orders.updates_to_drop, shop.orders.updates_to_lose = 0, 3
        async with working(shop.runtime):
            await shop.update(payment, REFUNDED, "delivered")
        assert order.moves == ["CONFIRMED", "CANCELLED"]


async def test_an_order_service_that_stays_away_exhausts_the_update_which_can_be_resent(
    make_settings: MakeSettings,
) -> None:
    values = {"order_on_refund": "cancel", "webhook_retry_schedule": (0.05, 0.05)}
    async with shop_with(make_settings, **values) as shop, working(shop.runtime):
        order = shop.orders.place()
        payment = await shop.paid(order)
        await shop.update(payment, PAID, "delivered")
        await shop.orders.down()
        await shop.refund(payment)
        ended = await shop.update(payment, REFUNDED, "exhausted")
        assert (ended["attempts_total"], order.status) == (3, "CONFIRMED")
        assert ended["last_error"]
        await shop.orders.up()
        await shop.resend(ended["id"])
        await shop.update(payment, REFUNDED, "delivered")
        assert order.moves == ["CONFIRMED", "CANCELLED"]


@pytest.mark.parametrize(("mode", "moves"), [("cancel", ["CANCELLED"]), ("none", [])])
async def test_an_order_is_not_confirmed_any_more_when_its_payment_is_refunded(
    make_settings: MakeSettings, mode: str, moves: list[str]
) -> None:
    async with shop_with(make_settings, order_on_refund=mode) as shop, working(shop.runtime):
        order = shop.orders.place()
        shop.orders.updates_to_drop = FOR_EVER
        payment = await shop.paid(order)
        await shop.refund(payment)
        await shop.reached(payment, PaymentStatus.REFUNDED)
        open_update = await shop.update(payment, PAID, "cancelled")
        assert "refunded" in open_update["last_error"]
        shop.orders.updates_to_drop = 0
        if mode == "cancel":
            await shop.update(payment, REFUNDED, "delivered")
        # Nor by a resend.
        await shop.resend(open_update["id"])
        again = await shop.update(payment, PAID, "cancelled")
        assert again["attempts_total"] == open_update["attempts_total"]
        assert order.moves == moves
        assert "payment.order_conflict" not in await shop.event_types(payment)


async def test_an_order_that_another_payment_has_paid_for_is_not_cancelled(make_settings: MakeSettings) -> None:
    async with shop_with(make_settings, order_on_refund="cancel") as shop, working(shop.runtime):
        order = shop.orders.place()
        shop.orders.updates_to_drop = FOR_EVER
        first = await shop.paid(order)
        await shop.refund(first)
        await shop.reached(first, PaymentStatus.REFUNDED)
        # The order is still PENDING, so it may be paid again.
        second = await shop.paid(order)
        ended = await shop.update(first, REFUNDED, "cancelled")
        assert "another payment" in ended["last_error"]
        shop.orders.updates_to_drop = 0
        await shop.update(second, PAID, "delivered")
        assert order.moves == ["CONFIRMED"]
        # Until that one is refunded too; then a resend finds nothing left to do.
        await shop.refund(second)
        await shop.update(second, REFUNDED, "delivered")
        await shop.resend(ended["id"])
        await shop.update(first, REFUNDED, "delivered")
        assert order.moves == ["CONFIRMED", "CANCELLED"]


async def test_an_order_waits_for_another_payment_that_may_still_pay_for_it(make_settings: MakeSettings) -> None:
    async with shop_with(make_settings, order_on_refund="cancel") as shop, working(shop.runtime):
        order = shop.orders.place()
        shop.orders.updates_to_drop = FOR_EVER
        first = await shop.paid(order)
        await shop.refund(first)
        await shop.reached(first, PaymentStatus.REFUNDED)
        second = await shop.accept(order, manual=True)
        await shop.reached(second, PaymentStatus.AUTHORIZED)
        shop.orders.updates_to_drop = 0

        async def waits() -> bool:
            row = (await shop.updates(first))[REFUNDED]
            return "not cancelled yet" in (row["last_error"] or "")

        await eventually(waits)
        assert order.moves == []
        await shop.request(second, voids=True)
        await shop.reached(second, PaymentStatus.CANCELLED)
        await shop.update(first, REFUNDED, "delivered")
        assert order.moves == ["CANCELLED"]


async def test_a_payment_that_cannot_succeed_does_not_keep_a_confirmed_order(make_settings: MakeSettings) -> None:
    """A payer who goes on paying for the order must not get it after the refund."""
    async with shop_with(make_settings, order_on_refund="cancel") as shop:
        order = shop.orders.place()
        async with working(shop.runtime):
            payment = await shop.paid(order)
            await shop.update(payment, PAID, "delivered")
            shop.orders.updates_to_drop = FOR_EVER
            await shop.refund(payment)
            await shop.reached(payment, PaymentStatus.REFUNDED)
        shop.orders.updates_to_drop = 0
        # Open, and no worker takes it up.
        await shop.accept(order, due_at=payment.created_at.replace(year=2999))
        async with working(shop.runtime):
            await shop.update(payment, REFUNDED, "delivered")
        assert order.moves == ["CONFIRMED", "CANCELLED"]


async def test_what_was_captured_of_an_authorization_is_all_that_is_refunded(make_settings: MakeSettings) -> None:
    async with shop_with(make_settings, order_on_refund="cancel") as shop, working(shop.runtime):
        order = shop.orders.place()
        payment = await shop.accept(order, manual=True)
        await shop.reached(payment, PaymentStatus.AUTHORIZED)
        await shop.request(payment, CENTS - 85)
        await shop.reached(payment, PaymentStatus.COMPLETED)
        await shop.update(payment, PAID, "delivered")
        await shop.refund(payment)
        await shop.update(payment, REFUNDED, "delivered")
        assert order.moves == ["CONFIRMED", "CANCELLED"]
