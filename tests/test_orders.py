"""How the worker reads the order service's answers, with the stand-in at the other end of a real connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic, time
from typing import Any

import jwt
import pytest
from structlog.testing import capture_logs

from shared.errors import UpstreamUnavailable
from shared.lifecycle import FailureCode
from shared.payments.payment import Payment
from shared.upstream.client import UpstreamClient
from tests.support.receivers import a_payment, answering, receiver
from tests.support.upstreams import NEXT, Order, running
from tests.support.upstreams import OrderService as StandinService
from worker.order_updates import CONFIRM, OrderStatus, UpdateResult
from worker.orders import NotPayable, OrderService, Payable

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


# -- may it be paid


@pytest.mark.parametrize(
    ("total", "amount", "currency"),
    [
        ("15.85", 1585, "USD"),
        ("15.850", 1585, "USD"),
        ("15", 1500, "USD"),
        ("15.0", 1500, "USD"),
        ("1585e-2", 1585, "USD"),
        ("0.1", 10, "EUR"),
        ("1585", 1585, "JPY"),
        ("1585.0", 1585, "JPY"),
        ("1.585", 1585, "BHD"),
        # The same float as 90071992547409.92.
        ("90071992547409.93", 9_007_199_254_740_993, "USD"),
    ],
)
async def test_an_order_whose_total_is_the_payments_amount_is_payable(
    service: StandinService, orders: OrderService, total: str, amount: int, currency: str
) -> None:
    order = service.place(total=total, currency=currency)
    assert await orders.check(payment_for(order, amount, currency)) == Payable()


@pytest.mark.parametrize(
    ("total", "amount", "currency"),
    [
        ("15.84", 1585, "USD"),
        ("15.8500001", 1585, "USD"),
        ("15.850000000000000000000000000000000001", 1585, "USD"),
        ("15.849999999999999", 1585, "USD"),
        ("15.855", 1585, "USD"),
        ("1585", 1585, "USD"),
        ("15.85", 1585, "JPY"),
        ("15.85", 1585, "BHD"),
        ("-15.85", 1585, "USD"),
        ("0", 1585, "USD"),
        ("90071992547409.92", 9_007_199_254_740_993, "USD"),
        ("1e999999999", 1585, "USD"),
        ("1e-999999999", 1585, "USD"),
    ],
)
async def test_any_other_total_is_a_mismatch(
    service: StandinService, orders: OrderService, total: str, amount: int, currency: str
) -> None:
    order = service.place(total=total, currency=currency)
    assert await orders.check(payment_for(order, amount, currency)) == NotPayable(FailureCode.ORDER_AMOUNT_MISMATCH)


async def test_another_currency_is_a_mismatch(service: StandinService, orders: OrderService) -> None:
    check = await orders.check(payment_for(service.place(currency="EUR"), 1585, "USD"))
    assert check == NotPayable(FailureCode.ORDER_AMOUNT_MISMATCH)


async def test_an_order_of_another_user_is_not_owned(service: StandinService, orders: OrderService) -> None:
    for user_id in ("1", "21", "shop", "02"):
        check = await orders.check(payment_for(service.place(user_id=2), user_id=user_id))
        assert check == NotPayable(FailureCode.ORDER_NOT_OWNED)


@pytest.mark.parametrize("status", [status for status in NEXT if status != "PENDING"] + ["PAID", "pending"])
async def test_only_a_pending_order_is_payable(service: StandinService, orders: OrderService, status: str) -> None:
    check = await orders.check(payment_for(service.place(status=status)))
    assert check == NotPayable(FailureCode.ORDER_NOT_PAYABLE)


# -- is there no such order, or no answer


async def test_three_500s_of_a_healthy_service_over_three_seconds_mean_that_there_is_no_such_order(
    service: StandinService,
) -> None:
    pauses: list[float] = []

    async def nap(seconds: float) -> None:
        pauses.append(seconds)

    async with orders_at(service.url, not_found_after_s=3, sleep=nap) as orders:
        assert await orders.check(payment_for("999")) == NotPayable(FailureCode.ORDER_NOT_FOUND)
    assert [request.path for request in service.requests] == ["/orders/999", "/health"] * 3
    assert sum(pauses) == 3
    assert len(pauses) == 2


async def test_an_order_that_can_be_read_after_all_is_no_missing_one(service: StandinService) -> None:
    order = service.place()
    readable, service.orders = service.orders, {}

    async def nap(_seconds: float) -> None:
        # Its database was just being restarted.
        service.orders = readable

    async with orders_at(service.url, sleep=nap) as orders:
        assert await orders.check(payment_for(order)) == Payable()


@pytest.mark.parametrize("trouble", ["down", "hanging", "sick", "502", "503", "504", "501", "429", "301", "401"])
async def test_a_service_that_gives_no_answer_that_counts_decides_nothing(
    service: StandinService, trouble: str
) -> None:
    order_id = "999"
    async with orders_at(service.url, timeout_s=0.2) as orders:
        match trouble:
            case "down":
                await service.down()
            case "hanging":
                service.held = asyncio.Event()
            case "sick":
                service.is_sick = True
            case status:
                service.failing, order_id = int(status), str(service.place().id)
        with pytest.raises(UpstreamUnavailable):
            await orders.check(payment_for(order_id))


async def test_a_sick_service_is_no_reason_to_wait(service: StandinService) -> None:
    service.is_sick = True
    async with orders_at(service.url) as orders:
        with pytest.raises(UpstreamUnavailable):
            await orders.check(payment_for("999"))
    assert len(service.asked("GET", "/orders")) == 1


async def test_a_service_that_falls_ill_meanwhile_decides_nothing(service: StandinService) -> None:
    async def nap(_seconds: float) -> None:
        service.is_sick = True

    async with orders_at(service.url, sleep=nap) as orders:
        with pytest.raises(UpstreamUnavailable):
            await orders.check(payment_for("999"))


@pytest.mark.parametrize("status", [404, 410, 422])
async def test_a_newer_service_that_says_what_it_means_is_believed_at_once(
    service: StandinService, status: int
) -> None:
    async with receiver(answering(status)) as newer, orders_at(newer.url.removesuffix("/hook")) as orders:
        assert await orders.check(payment_for("999")) == NotPayable(FailureCode.ORDER_NOT_FOUND)
        assert len(newer.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b"<html>", b"\xff", b"[" * 100_000,
        b'{"id": 1, "user_id": 1, "status": "PENDING", "currency": "USD"}',
        b'{"id": 1, "user_id": 1, "status": "PENDING", "currency": "USD", "total": null}',
        b'{"id": 1, "user_id": 1, "status": "PENDING", "currency": "USD", "total": true}',
        b'{"id": 1, "user_id": 1, "status": "PENDING", "currency": "USD", "total": "15.85"}',
        b'{"id": 1, "user_id": 1, "status": "PENDING", "currency": "USD", "total": NaN}',
        b'{"id": 1, "user_id": 1, "status": "PENDING", "currency": "USD", "total": Infinity}',
        b'{"id": 1, "user_id": 1, "status": "PENDING", "currency": "USD", "total": ' + b"9" * 5000 + b"}",
        b'{"id": 1, "user_id": true, "status": "PENDING", "currency": "USD", "total": 15.85}',
        b'{"id": 1, "user_id": 1.0, "status": "PENDING", "currency": "USD", "total": 15.85}',
        b'{"id": 2, "user_id": 1, "status": "PENDING", "currency": "USD", "total": 15.85}',
    ],
)  # fmt: skip
async def test_an_answer_that_is_not_the_order_decides_nothing(body: bytes) -> None:
    async with receiver(answering(200, body)) as strange, orders_at(strange.url.removesuffix("/hook")) as orders:
        with pytest.raises(UpstreamUnavailable):
            await orders.check(payment_for("1"))
        assert (await orders.update("1", CONFIRM, notes="", correlation_id=None)).error is not None
        # Nothing was changed.
        assert {request.path for request in strange.requests} == {"/orders/1"}


async def test_one_check_is_over_in_time_whatever_happens(service: StandinService) -> None:
    service.held = asyncio.Event()
    async with orders_at(service.url, check_max_s=0.1, timeout_s=30) as orders:
        started = monotonic()
        with pytest.raises(UpstreamUnavailable):
            await orders.check(payment_for("1"))
        assert monotonic() - started < 10


@pytest.mark.parametrize("order_id", ["abc", "0", "007", "-1", "1.0", "1_0", "٤٢", "..", "1/../2", "1" * 20, ""])
async def test_what_is_no_number_of_an_order_is_no_order_and_the_service_is_not_asked(
    service: StandinService, orders: OrderService, order_id: str
) -> None:
    service.place()
    assert await orders.check(payment_for(order_id)) == NotPayable(FailureCode.ORDER_NOT_FOUND)
    assert service.requests == []


# -- tokens and names


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


# -- it was paid


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
