"""How the worker reads the order service's answers: whether an order may be paid, is missing, or nothing is known."""

import asyncio
from time import monotonic

import pytest

from shared.errors import UpstreamUnavailable
from shared.lifecycle import FailureCode
from tests.support.order_services import orders, orders_at, payment_for, service
from tests.support.order_standins import NEXT
from tests.support.order_standins import OrderService as StandinService
from tests.support.receivers import answering, receiver
from worker.order_updates import CONFIRM
from worker.orders import NotPayable, OrderService, Payable

__all__ = ["orders", "service"]


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
