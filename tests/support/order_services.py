"""The worker's client of the order service, with the stand-in at the other end of a real connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.payments.payment import Payment
from shared.upstream.client import UpstreamClient
from tests.support.order_standins import Order
from tests.support.order_standins import OrderService as StandinService
from tests.support.receivers import a_payment
from tests.support.standins import running
from worker.orders import OrderService

SECRET = "secret-of-the-tests-with-more-than-32-bytes"


@pytest.fixture
async def service() -> AsyncIterator[StandinService]:
    async with running(StandinService(secret=SECRET)) as service:
        yield service


@asynccontextmanager
async def orders_at(url: str, **options: Any) -> AsyncIterator[OrderService]:
    values: dict[str, Any] = {"not_found_after_s": 0, "check_max_s": 30, **options}
    async with UpstreamClient("orders", url, timeout_s=values.pop("timeout_s", 10), connections_max=5) as client:
        yield OrderService(client, secret=SECRET, algorithm="HS256", **values)


@pytest.fixture
async def orders(service: StandinService) -> AsyncIterator[OrderService]:
    async with orders_at(service.url) as orders:
        yield orders


def payment_for(order: Order | str, amount: int = 1585, currency: str = "USD", user_id: str = "1") -> Payment:
    order_id = order if isinstance(order, str) else str(order.id)
    payment = a_payment(datetime.now(UTC))
    return replace(payment, order_id=order_id, amount=amount, currency=currency, user_id=user_id)
