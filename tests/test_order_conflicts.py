"""Payments that complete although their orders are cancelled meanwhile, with ORDER_CONFLICT, on both databases."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import update

from shared.config.settings import Settings
from shared.database.refund_tables import refunds
from shared.lifecycle import PaymentStatus
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundCause, RefundReason, RefundStatus
from shared.refunds.refund import Refund
from shared.refunds.requests import RefundMoved, cancel_refund
from tests.support.order_worlds import CENTS, Shop, shop_with
from tests.support.rows import ledger_entries
from tests.support.waiting import eventually
from tests.support.workers import working
from tests.test_refunded_orders import FOR_EVER, PAID, REFUNDED

type MakeSettings = Callable[..., Settings]

CONFLICT = "payment.order_conflict"


@asynccontextmanager
async def refunding(make_settings: MakeSettings, **changes: str) -> AsyncIterator[Shop]:
    """The order service, which cancels orders before they are confirmed, and a runtime that refunds conflicts."""
    async with shop_with(make_settings, order_conflict="refund", **changes) as shop:
        shop.orders.cancels_before_update = True
        yield shop


async def refund_of_conflict(shop: Shop, payment: Payment, status: RefundStatus = RefundStatus.COMPLETED) -> Refund:
    """Return the refund that the service requested itself, once it has this status."""

    async def there() -> Refund | None:
        await shop.hurry_refunds()
        found = [each for each in await shop.refunds(payment) if each.cause == RefundCause.ORDER_CONFLICT]
        assert len(found) <= 1
        return found[0] if found and found[0].status is status else None

    found = await eventually(there, 30)
    assert found is not None
    return found


async def blocked(shop: Shop, payment: Payment, amount: int | None) -> Refund:
    """Request a refund that no worker takes up, so that the conflict is found while it is open."""
    requested = await shop.try_refund(payment, amount)
    assert isinstance(requested, RefundMoved)
    async with shop.database.transaction() as connection:
        await connection.execute(
            update(refunds).where(refunds.c.id == requested.refund.id).values(due_at=payment.created_at.replace(2999))
        )
    return requested.refund


async def found_while_blocked(shop: Shop, order_id: int, amount: int | None) -> tuple[Payment, Refund]:
    """Return a payment whose conflict was found while its refund is open."""
    shop.orders.cancels_before_update, shop.orders.updates_to_drop = False, FOR_EVER
    payment = await shop.paid(shop.orders.orders[order_id])
    other = await blocked(shop, payment, amount)
    shop.orders.orders[order_id].status = "CANCELLED"

    async def is_known() -> bool:
        return CONFLICT in await shop.event_types(payment)

    await eventually(is_known)
    return payment, other


async def test_by_default_it_is_reported_and_nothing_is_refunded(make_settings: MakeSettings) -> None:
    async with shop_with(make_settings) as shop, working(shop.runtime):
        shop.orders.cancels_before_update = True
        payment = await shop.paid(shop.orders.place())
        await shop.update(payment, PAID, "exhausted")
        assert await shop.event_types(payment) == [PAID, CONFLICT]
        assert await shop.refunds(payment) == []


@pytest.mark.parametrize("mode", ["none", "cancel"])
async def test_it_is_refunded_once_and_reported(make_settings: MakeSettings, mode: str) -> None:
    async with refunding(make_settings, order_on_refund=mode) as shop, working(shop.runtime):
        order = shop.orders.place()
        payment = await shop.paid(order)
        refund = await refund_of_conflict(shop, payment)
        assert (refund.amount, refund.reason, refund.created_by) == (CENTS, "order_cancelled", "service:payments")
        assert refund.correlation_id == payment.correlation_id
        await shop.reached(payment, PaymentStatus.REFUNDED)
        ended = await shop.update(payment, PAID, "exhausted")
        assert await shop.event_types(payment) == [PAID, CONFLICT, "refund.created", "refund.completed", REFUNDED]
        if mode == "cancel":
            # The order is CANCELLED already.
            await shop.update(payment, REFUNDED, "delivered")
        await shop.resend(ended["id"])
        await shop.update(payment, PAID, "cancelled")
        assert len(await shop.refunds(payment)) == 1
        assert await ledger_entries(shop.database, payment.id) == ["authorize", "capture", "refund"]
        assert (await shop.event_types(payment)).count(CONFLICT) == 1
        assert order.moves == []


async def test_only_what_was_captured_is_refunded(make_settings: MakeSettings) -> None:
    async with refunding(make_settings) as shop, working(shop.runtime):
        payment = await shop.accept(shop.orders.place(), manual=True)
        await shop.reached(payment, PaymentStatus.AUTHORIZED)
        await shop.request(payment, 700)
        assert (await refund_of_conflict(shop, payment)).amount == 700
        await shop.reached(payment, PaymentStatus.REFUNDED)


@pytest.mark.parametrize(("ends", "rest"), [("completed", CENTS - 85), ("failed", CENTS), ("cancelled", CENTS)])
async def test_it_waits_for_another_refund_and_takes_all_that_is_left(
    make_settings: MakeSettings, ends: str, rest: int
) -> None:
    async with refunding(make_settings) as shop, working(shop.runtime):
        payment, other = await found_while_blocked(shop, shop.orders.place().id, 85)
        waiting = await shop.update(payment, PAID, "pending")
        assert "cancelled" in waiting["last_error"]
        # It is known now, whatever becomes of the order service.
        await shop.orders.down()
        await shop.hurry_updates()
        await eventually(lambda: is_attempted_again(shop, payment, waiting["attempts_total"]))
        assert [each.id for each in await shop.refunds(payment)] == [other.id]
        if ends == "cancelled":
            async with shop.database.transaction() as connection:
                now = await shop.database.clock.now(connection)
                assert await cancel_refund(connection, other, by="service:shop", now=now)
        elif ends == "failed":
            await shop.fail_refund(other)
        else:
            async with shop.database.transaction() as connection:
                await connection.execute(update(refunds).values(due_at=payment.created_at))
            await shop.reached(payment, PaymentStatus.PARTIALLY_REFUNDED)
        await shop.hurry_updates()
        assert (await refund_of_conflict(shop, payment)).amount == rest
        await shop.reached(payment, PaymentStatus.REFUNDED)
        assert (await shop.event_types(payment)).count(CONFLICT) == 1
        await shop.update(payment, PAID, "exhausted")


async def is_attempted_again(shop: Shop, payment: Payment, attempts: int) -> bool:
    """Return whether the confirmation of the order waits again, after another attempt that found it cancelled."""
    row = (await shop.updates(payment))[PAID]
    return bool(row["attempts_total"] > attempts and row["status"] == "pending" and "cancelled" in row["last_error"])


async def test_nothing_is_left_to_refund_when_the_other_refund_takes_it_all(make_settings: MakeSettings) -> None:
    async with refunding(make_settings) as shop, working(shop.runtime):
        payment, other = await found_while_blocked(shop, shop.orders.place().id, None)
        async with shop.database.transaction() as connection:
            await connection.execute(update(refunds).values(due_at=payment.created_at))
        await shop.reached(payment, PaymentStatus.REFUNDED)
        await shop.hurry_updates()
        ended = await shop.update(payment, PAID, "cancelled")
        assert "refunded" in ended["last_error"]
        assert [each.id for each in await shop.refunds(payment)] == [other.id]


async def test_a_restart_while_it_waits_loses_nothing(make_settings: MakeSettings) -> None:
    async with refunding(make_settings) as shop:
        async with working(shop.runtime):
            payment, _ = await found_while_blocked(shop, shop.orders.place().id, 85)
        async with shop.database.transaction() as connection:
            await connection.execute(update(refunds).values(due_at=payment.created_at))
        async with working(shop.runtime):
            await shop.reached(payment, PaymentStatus.PARTIALLY_REFUNDED)
            await shop.hurry_updates()
            assert (await refund_of_conflict(shop, payment)).amount == CENTS - 85


async def test_a_client_that_looks_like_the_service_does_not_take_the_place_of_its_refund(
    make_settings: MakeSettings,
) -> None:
    async with refunding(make_settings) as shop, working(shop.runtime):
        shop.orders.cancels_before_update, shop.orders.updates_to_drop = False, FOR_EVER
        order = shop.orders.place()
        payment = await shop.paid(order)
        await shop.refund(payment, 1, created_by="service:payments", reason=RefundReason.ORDER_CANCELLED)
        await shop.reached(payment, PaymentStatus.PARTIALLY_REFUNDED)
        order.status = "CANCELLED"
        await shop.hurry_updates()
        assert (await refund_of_conflict(shop, payment)).amount == CENTS - 1
        first, second = await shop.refunds(payment)
        assert (first.cause, second.cause) == (None, "order_conflict")


async def test_a_refund_that_was_cancelled_or_failed_is_not_requested_again(make_settings: MakeSettings) -> None:
    async with refunding(make_settings) as shop, working(shop.runtime):
        payment = await shop.paid(shop.orders.place())
        ended = await shop.update(payment, PAID, "exhausted")
        [refund] = await shop.refunds(payment)
        async with shop.database.transaction() as connection:
            now = await shop.database.clock.now(connection)
            assert await cancel_refund(connection, refund, by="service:shop", now=now)
        await shop.resend(ended["id"])
        await eventually(lambda: is_exhausted_after(shop, payment, 2))
        assert len(await shop.refunds(payment)) == 1
        assert (await shop.event_types(payment)).count(CONFLICT) == 1


async def is_exhausted_after(shop: Shop, payment: Payment, attempts: int) -> bool:
    """Return whether the confirmation of the order has ended after so many attempts."""
    row = (await shop.updates(payment))[PAID]
    return bool(row["attempts_total"] == attempts and row["status"] == "exhausted")
