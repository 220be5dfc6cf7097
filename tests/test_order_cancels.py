"""How orders are cancelled at the order service, with the stand-in at the other end of a real connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.order_services import SECRET, orders_at
from tests.support.order_standins import NEXT, Order
from tests.support.order_standins import OrderService as StandinService
from tests.support.standins import running
from worker.order_updates import CANCEL, CANCEL_UNLESS_PENDING, CONFIRM, OrderStatus, OrderUpdate, UpdateResult
from worker.orders import OrderService


@asynccontextmanager
async def both(timeout_s: float = 10) -> AsyncIterator[tuple[StandinService, OrderService]]:
    """The stand-in, and the worker's side of it."""
    async with running(StandinService(secret=SECRET)) as service, orders_at(service.url, timeout_s=timeout_s) as orders:
        yield service, orders


async def cancelled(orders: OrderService, order: Order) -> UpdateResult:
    return await orders.update(str(order.id), CANCEL, notes="Refunded", correlation_id=None)


@pytest.mark.parametrize("update", [CONFIRM, CANCEL, CANCEL_UNLESS_PENDING])
def test_every_status_of_an_order_says_one_thing_about_an_update(update: OrderUpdate) -> None:
    classes = [set(update.possible_from), set(update.done), set(update.refused), set(update.waiting)]
    assert set.union(*classes) == set(OrderStatus)
    assert sum(map(len, classes)) == len(OrderStatus)
    # What the order service allows, and no more.
    assert {status for status in NEXT if update.to in NEXT[status]} == {*update.possible_from, *update.waiting}


@pytest.mark.parametrize("status", ["PENDING", "CONFIRMED", "PROCESSING"])
async def test_an_order_that_was_not_shipped_is_cancelled_with_a_note(status: str) -> None:
    async with both() as (service, orders):
        order = service.place(status=status)
        result = await cancelled(orders, order)
        assert (result.error, result.order_status, result.status_code) == (None, OrderStatus.CANCELLED, 200)
        assert (order.moves, order.notes) == (["CANCELLED"], ["Refunded"])
        assert [request.method for request in service.requests] == ["GET", "PUT", "GET"]


async def test_an_order_that_another_payment_may_pay_for_is_cancelled_only_once_it_is_confirmed() -> None:
    async with both() as (service, orders):
        order = service.place()
        waiting = await orders.update(str(order.id), CANCEL_UNLESS_PENDING, notes="", correlation_id=None)
        assert (waiting.is_refused, waiting.order_status) == (False, OrderStatus.PENDING)
        assert "another payment" in (waiting.error or "")
        assert service.asked("PUT") == []
        order.status = "CONFIRMED"
        done = await orders.update(str(order.id), CANCEL_UNLESS_PENDING, notes="", correlation_id=None)
        assert (done.error, order.moves) == (None, ["CANCELLED"])


async def test_a_cancelled_order_is_left_alone() -> None:
    async with both() as (service, orders):
        assert (await cancelled(orders, service.place(status="CANCELLED"))).error is None
        assert service.asked("PUT") == []


@pytest.mark.parametrize("status", ["SHIPPED", "DELIVERED"])
async def test_an_order_that_was_shipped_is_not_even_tried(status: str) -> None:
    async with both() as (service, orders):
        result = await cancelled(orders, service.place(status=status))
        assert (result.is_refused, result.order_status) == (True, status)
        assert status.lower() in (result.error or "")
        assert service.asked("PUT") == []


async def test_an_order_that_is_shipped_in_the_last_moment_is_found_shipped() -> None:
    async with both() as (service, orders):
        service.ships_before_update = True
        result = await cancelled(orders, service.place(status="PROCESSING"))
        assert (result.is_refused, result.order_status) == (True, OrderStatus.SHIPPED)
        assert result.error


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_an_update_whose_answer_was_lost_is_found_done(lost: int) -> None:
    async with both() as (service, orders):
        order = service.place(status="CONFIRMED")
        service.updates_to_lose = lost
        assert (await cancelled(orders, order)).error is None
        assert (await cancelled(orders, order)).error is None
        assert order.moves == ["CANCELLED"]


async def test_an_update_that_never_arrived_is_made_by_the_next_attempt() -> None:
    async with both() as (service, orders):
        order = service.place(status="CONFIRMED")
        # The HTTP client sends the update a second time by itself.
        service.updates_to_drop = 2
        first = await cancelled(orders, order)
        assert (first.order_status, first.status_code, first.is_refused) == (OrderStatus.CONFIRMED, None, False)
        assert first.error
        assert (await cancelled(orders, order)).error is None
        assert order.moves == ["CANCELLED"]


@pytest.mark.parametrize("trouble", ["down", "502", "500", "missing", "strange", "hanging"])
async def test_what_cannot_be_read_is_not_cancelled_and_may_be_tried_again(trouble: str) -> None:
    async with both(timeout_s=0.3) as (service, orders):
        order = service.place()
        match trouble:
            case "down":
                await service.down()
            case "missing":
                service.orders.clear()
            case "strange":
                order.status = "REFUNDED"
            case "hanging":
                service.held = asyncio.Event()
            case status:
                service.failing = int(status)
        result = await cancelled(orders, order)
        assert (result.order_status, result.is_refused) == (None, False)
        assert result.error
        assert service.asked("PUT") == []
