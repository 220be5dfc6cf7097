"""How the worker confirms an order that was paid: once, and only where it still can be."""

import asyncio

import pytest

from shared.upstream.client import UpstreamClient
from tests.support.order_services import orders, orders_at, service
from tests.support.order_standins import Order
from tests.support.order_standins import OrderService as StandinService
from worker.order_updates import CONFIRM, OrderStatus, UpdateResult
from worker.orders import OrderService

__all__ = ["orders", "service"]


def is_done(confirmation: UpdateResult) -> bool:
    return confirmation.error is None


async def confirmed(orders: OrderService, order: Order, notes: str = "Paid") -> UpdateResult:
    return await orders.update(str(order.id), CONFIRM, notes=notes, correlation_id=None)


async def test_a_pending_order_is_confirmed_with_a_note(service: StandinService, orders: OrderService) -> None:
    order = service.place()
    confirmation = await confirmed(orders, order, "Paid: payment 1" + "x" * 600)
    assert is_done(confirmation)
    assert (confirmation.order_status, confirmation.status_code) == (OrderStatus.CONFIRMED, 200)
    assert order.moves == ["CONFIRMED"]
    assert order.notes[0].startswith("Paid: payment 1x")
    assert [request.method for request in service.requests] == ["GET", "PUT", "GET"]


@pytest.mark.parametrize("status", ["CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED"])
async def test_an_order_that_is_confirmed_or_further_is_left_alone(
    service: StandinService, orders: OrderService, status: str
) -> None:
    order = service.place(status=status)
    assert is_done(await confirmed(orders, order))
    assert service.asked("PUT") == []


async def test_a_cancelled_order_can_never_be_confirmed_and_is_not_updated(
    service: StandinService, orders: OrderService
) -> None:
    order = service.place(status="CANCELLED")
    confirmation = await confirmed(orders, order)
    assert confirmation.order_status is OrderStatus.CANCELLED
    assert "cancelled" in (confirmation.error or "")
    assert service.asked("PUT") == []


async def test_an_order_that_is_cancelled_in_the_last_moment_is_found_cancelled(
    service: StandinService, orders: OrderService
) -> None:
    service.cancels_before_update = True
    confirmation = await confirmed(orders, service.place())
    assert confirmation.order_status is OrderStatus.CANCELLED
    assert confirmation.error


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_an_update_whose_answer_was_lost_is_found_done(
    service: StandinService, orders: OrderService, lost: int
) -> None:
    order = service.place()
    service.updates_to_lose = lost
    assert is_done(await confirmed(orders, order))
    assert is_done(await confirmed(orders, order))
    assert order.moves == ["CONFIRMED"]


async def test_an_update_that_never_arrived_is_made_by_the_next_attempt(
    service: StandinService, orders: OrderService
) -> None:
    order = service.place()
    # The HTTP client sends the update a second time by itself.
    service.updates_to_drop = 2
    first = await confirmed(orders, order)
    assert (first.order_status, first.status_code) == (OrderStatus.PENDING, None)
    assert first.error
    assert is_done(await confirmed(orders, order))
    assert order.moves == ["CONFIRMED"]


async def test_an_update_that_is_refused_is_an_error_with_its_status(service: StandinService) -> None:
    order = service.place()
    async with UpstreamClient("orders", service.url, timeout_s=10, connections_max=1) as client:
        stranger = OrderService(client, secret="another" * 8, algorithm="HS256", not_found_after_s=0, check_max_s=10)
        confirmation = await confirmed(stranger, order)
    assert (confirmation.order_status, confirmation.status_code) == (None, 500)
    assert confirmation.error
    assert order.moves == []


@pytest.mark.parametrize("trouble", ["down", "502", "missing", "strange"])
async def test_what_cannot_be_read_is_not_changed(service: StandinService, trouble: str) -> None:
    order = service.place()
    async with orders_at(service.url, timeout_s=0.5) as orders:
        match trouble:
            case "down":
                await service.down()
            case "missing":
                service.orders.clear()
            case "strange":
                order.status = "REFUNDED"
            case status:
                service.failing = int(status)
        confirmation = await confirmed(orders, order)
    assert confirmation.order_status is None
    assert confirmation.error
    assert service.asked("PUT") == []


async def test_an_attempt_that_could_not_read_back_is_repeated_without_a_second_transition(
    service: StandinService,
) -> None:
    order = service.place()
    async with orders_at(service.url, timeout_s=0.3) as orders:
        # A proxy that gives up too early: everything arrives, no answer does.
        service.held = asyncio.Event()
        assert (await confirmed(orders, order)).error
        service.held.set()
        service.held = None
        service.updates_to_lose = 1
        assert is_done(await confirmed(orders, order))
        assert is_done(await confirmed(orders, order))
    assert order.moves == ["CONFIRMED"]
