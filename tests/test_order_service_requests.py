"""What the worker's requests to the order service carry, and where an order's id may lead."""

from dataclasses import replace
from time import time

import jwt
import pytest
from structlog.testing import capture_logs

from tests.support.order_services import SECRET, orders, payment_for, service
from tests.support.order_standins import OrderService as StandinService
from worker.order_updates import CONFIRM
from worker.orders import OrderService

__all__ = ["orders", "service"]


async def test_every_request_has_a_token_of_its_own_that_is_soon_over(
    service: StandinService, orders: OrderService
) -> None:
    payment = replace(payment_for(service.place()), correlation_id="shop-4711")
    with capture_logs() as logs:
        await orders.check(payment)
        await orders.update(payment.order_id, CONFIRM, notes="Paid", correlation_id="shop-4711")
        service.failing = 503
        await orders.update(payment.order_id, CONFIRM, notes="Paid", correlation_id="shop-4711")
    for request in service.requests:
        claims = jwt.decode(request.token, SECRET, algorithms=["HS256"])
        assert time() < claims.pop("exp") <= time() + 300
        assert claims.pop("email").startswith("payments@")
        assert claims == {"user_id": 0, "role": "order_admin", "type": "access"}
        assert request.headers["x-correlation-id"] == "shop-4711"
    assert logs
    assert "eyJ" not in str(logs)


async def test_an_id_is_one_segment_of_the_path_whatever_it_is(service: StandinService, orders: OrderService) -> None:
    for order_id in ("1/status", "a b", "ü", "?", "#", "%2F", "..;"):
        await orders.update(order_id, CONFIRM, notes="", correlation_id=None)
    assert [request.path for request in service.requests] == [
        "/orders/1%2Fstatus", "/orders/a%20b", "/orders/%C3%BC", "/orders/%3F", "/orders/%23", "/orders/%252F",
        "/orders/..%3B",
    ]  # fmt: skip


@pytest.mark.parametrize("order_id", [".", ".."])
async def test_an_id_that_would_lead_elsewhere_is_asked_about_nowhere(
    service: StandinService, orders: OrderService, order_id: str
) -> None:
    confirmation = await orders.update(order_id, CONFIRM, notes="", correlation_id=None)
    assert confirmation.order_status is None
    assert "no address" in (confirmation.error or "")
    assert service.requests == []
