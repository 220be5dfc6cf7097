"""The intake of payments over HTTP: what is accepted and answered, and which members of a request are refused."""

import re
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.schemas.payments import Payment as PaymentModel
from shared.ids import new_id
from shared.runtime import Runtime
from tests.support.api_client import (
    MASTERCARD,
    RunningApi,
    accepted,
    added,
    card,
    opened,
    order,
    paid,
    paypal,
    pointers,
    problem,
)
from tests.support.sentences import MOMENT
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]


# -- accepting


async def test_an_accepted_payment_is_pending_and_says_where_to_look_and_when(user: httpx.AsyncClient) -> None:
    answer = await user.post("/payments", json=order(await added(user)))
    payment = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/payments/{payment['id']}"
    assert (answer.headers["retry-after"], answer.headers["etag"]) == ("1", '"1"')
    assert "preference-applied" not in answer.headers
    assert UUID(payment["id"]).version == 7
    PaymentModel.model_validate(payment)
    assert (payment["status"], payment["sequence"], payment["livemode"]) == ("PENDING", 1, False)
    assert re.fullmatch(MOMENT, payment["created_at"])
    assert payment["updated_at"] == payment["created_at"]
    found = await user.get(f"/payments/{payment['id']}")
    assert (found.status_code, found.json()) == (200, payment)


async def test_a_payment_shows_what_was_asked_for_and_how_it_is_paid(user: httpx.AsyncClient) -> None:
    asked = {
        "order_id": 1042,
        "amount": 99,
        "currency": "JPY",
        "description": "Zwei Krüge ☕",
        "metadata": {"basket": "7", "größe": ""},
        "callback_url": "https://shop.example/hooks?a=1",
    }
    method_id = await added(user)
    payment = await accepted(user, {**asked, "payment_method_id": method_id})
    assert payment | asked == payment | {"order_id": 1042}
    assert payment["order_id"] == "1042"
    assert (payment["user_id"], payment["payment_method_id"]) == ("1", method_id)
    assert payment["payment_method_details"] == {
        "type": "CREDIT_CARD",
        "brand": "visa",
        "last4": "4242",
        "exp_month": 12,
        "exp_year": 2040,
    }
    nothing_yet = ("gateway", "gateway_transaction_id", "gateway_details", "failure_code", "failure_reason")
    assert {payment[name] for name in (*nothing_yet, "outcome_rule", "processed_at")} == {None}


async def test_a_paypal_payment_shows_the_masked_address_only(user: httpx.AsyncClient) -> None:
    payment = await accepted(user, order(await added(user, paypal("shopper@example.com"))))
    assert payment["payment_method_details"] == {"type": "PAYPAL", "email": "s***r@example.com"}


async def test_what_is_left_out_has_its_default(user: httpx.AsyncClient) -> None:
    payment = await paid(user)
    defaults: dict[str, Any] = {"currency": "USD", "description": None, "metadata": {}, "callback_url": None}
    assert payment | defaults == payment


async def test_a_payment_is_written_down_with_its_history_and_nothing_that_nobody_wants(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    await paid(user)
    assert await row_counts(running_api.database) == {
        "payment_methods": 1,
        "payments": 1,
        "payment_history": 1,
    }


@pytest.mark.parametrize("order_id", ["A.b_c-9", "x" * 64, "0", "-", 0, 7, 2**63 - 1, -5])
async def test_order_ids_are_short_names_or_integers(user: httpx.AsyncClient, order_id: Any) -> None:
    assert (await paid(user, order_id=order_id))["order_id"] == str(order_id)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("order_id", ["", "x" * 65, "a b", "a/b", "ü", "1\n", 2**63, 10**22, 1.5, 1.0, True, None, [], {}]),
        ("amount", [0, -1, 1.0, 15.85, "1585", True, None, [], 2**63, 10**22, 1e3]),
        ("currency", ["usd", "US", "USDX", "XXX", "", "U\0D", 840, None]),
        ("description", ["x" * 256, "a\nb", "a\0b", "\x7f", "\x85", 7, []]),
        ("metadata", [{str(n): "" for n in range(21)}, {"": "x"}, {"k" * 41: "x"}, {"k": "v" * 501}, {"k": 1}, [], ""]),
        ("metadata", [{"k": None}, {"k": "\0"}, {"\0": "k"}, {str(n): "ü" * 500 for n in range(20)}, None]),
        ("callback_url", ["", "https://x.example/" + "a" * 2048, 7, "https://x.example/\n", []]),
        ("payment_method_id", ["", "x" * 65, 7, None, True]),
        ("user_id", ["", "x" * 65, "a b", "ü", "1\n", 2**63, 1.5, True, []]),
        ("card_number", ["4242424242424242"]),
    ],
)
async def test_every_member_that_is_wrong_is_named_and_nothing_is_written(
    running_api: RunningApi, admin: httpx.AsyncClient, member: str, values: list[Any]
) -> None:
    method_id = await added(admin)
    for value in values:
        answer = await admin.post("/payments", json={**order(method_id), member: value})
        named = pointers(answer)
        assert named, value
        assert all(f"{place}/".startswith(f"/{member}/") for place in named), (value, named)
    assert await row_counts(running_api.database) == {"payment_methods": 1}


@pytest.mark.parametrize("member", ["order_id", "amount", "payment_method_id"])
async def test_a_member_that_is_missing_is_named(user: httpx.AsyncClient, member: str) -> None:
    body = order(str(new_id()))
    del body[member]
    assert pointers(await user.post("/payments", json=body)) == [f"/{member}"]


async def test_every_wrong_member_is_named_at_once(user: httpx.AsyncClient) -> None:
    wrong = {"order_id": "", "amount": 0, "currency": "x", "payment_method_id": "m", "metadata": {"a/b~c": 1}}
    found = pointers(await user.post("/payments", json=wrong))
    assert sorted(found) == ["/amount", "/currency", "/metadata/a~1b~0c", "/order_id"]


async def test_amounts_are_bounded_by_the_settings(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    for amount, is_right in ((49, False), (50, True), (100_000_000, True), (100_000_001, False)):
        answer = await user.post("/payments", json=order(method_id, amount=amount))
        if is_right:
            assert answer.status_code == 202
        else:
            assert pointers(answer) == ["/amount"]
            assert "between 50 and 100000000" in answer.text


async def test_where_an_order_service_numbers_the_orders_an_order_id_is_a_positive_integer(runtime: Runtime) -> None:
    settings = runtime.settings.model_copy(update={"order_service_url": "http://127.0.0.1:1"})
    async with opened(Runtime(settings, runtime.database, runtime.broker, runtime.keyring)) as running_api:
        user = running_api.user()
        method_id = await added(user)
        for order_id in ("abc", "0", "-1", "1.0", "0042", "٤٢", str(2**63), "9" * 64):
            answer = await user.post("/payments", json=order(method_id, order_id=order_id))
            assert pointers(answer) == ["/order_id"], order_id
        assert (await accepted(user, order(method_id, order_id="42")))["order_id"] == "42"
        assert (await accepted(user, order(method_id, order_id=43)))["order_id"] == "43"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/hook",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/hook",
        "https://user:secret@shop.example/",
        "https://shop.example/#part",
        "ftp://shop.example/",
        "shop.example/hook",
        "http://0x7f.1/",
        "http://shop.example:0/",
    ],
)
async def test_no_callback_is_promised_to_an_address_that_may_not_be_reached(
    running_api: RunningApi, user: httpx.AsyncClient, url: str
) -> None:
    answer = await user.post("/payments", json=order(await added(user), callback_url=url))
    body = problem(answer, 422, "callback_url_refused")
    assert [error["pointer"] for error in body["errors"]] == ["/callback_url"]
    assert "secret" not in answer.text
    assert await row_counts(running_api.database) == {"payment_methods": 1}


async def test_loopback_takes_callbacks_in_development_but_our_own_ports_never_do(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    for port in running_api.settings.own_ports:
        for host in ("127.0.0.1", "localhost", "127.9.9.9", "0.0.0.0", "[::1]"):  # noqa: S104
            answer = await user.post("/payments", json=order("x", callback_url=f"http://{host}:{port}/"))
            problem(answer, 422, "callback_url_refused")
    await paid(user, callback_url="http://127.0.0.1:1/hook")


# -- cancelling


async def test_a_second_card_of_the_same_user_pays_as_well(user: httpx.AsyncClient) -> None:
    payment = await accepted(user, order(await added(user, card(MASTERCARD, type="DEBIT_CARD"))))
    assert payment["payment_method_details"]["type"] == "DEBIT_CARD"
    assert payment["payment_method_details"]["brand"] == "mastercard"
