"""One answer names every fault of a request that needs no database and no network, in the order of the schema."""

from typing import Any

import httpx
import pytest

from tests.support.api_client import VISA, RunningApi, added, card, order, pointers, problem
from tests.support.sentences import check_sentences
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]
# No database is asked.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

# For every operation with a body: the path, a body with a fault in each member, and the places in their order.
FAULTY: dict[str, tuple[str, str, dict[str, Any], list[str]]] = {
    "a payment": (
        "POST",
        "/payments",
        {
            "unknown": 1,
            "user_id": "a b",
            "callback_url": "http://10.0.0.1/hook",
            "metadata": {"k" * 41: "x", "a": 1},
            "description": "a\0b",
            "currency": "usd",
            "amount": 49,
            "payment_method_id": "pm_test_nothing",
            "order_id": "",
            "also": None,
        },
        [
            *["/order_id", "/payment_method_id", "/amount", "/currency", "/description"],
            *[f"/metadata/{'k' * 41}", "/metadata/a", "/callback_url", "/user_id", "/unknown", "/also"],
        ],
    ),
    "a card": (
        "POST",
        "/payment-methods",
        {
            "type": "CREDIT_CARD",
            "display_name": "",
            "is_default": "yes",
            "user_id": 1.5,
            "payment_details": {
                "card_number": "4242424242424241",
                "exp_month": 1,
                "exp_year": 2020,
                "cvv": "12",
                "cardholder_name": "x" * 101,
                "pin": "1234",
            },
            "more": 1,
        },
        [
            *["/display_name", "/is_default", "/user_id", "/payment_details/card_number", "/payment_details/exp_year"],
            *["/payment_details/cvv", "/payment_details/cardholder_name", "/payment_details/pin", "/more"],
        ],
    ),
    "an account": (
        "POST",
        "/payment-methods",
        {"type": "PAYPAL", "display_name": 1, "payment_details": {"email": "x", "cvv": "1"}, "x": 1},
        ["/display_name", "/payment_details/email", "/payment_details/cvv", "/x"],
    ),
    "a method without a type": (
        "POST",
        "/payment-methods",
        {"display_name": "", "payment_details": {"card_number": VISA, "exp_month": 13, "cvv": "1234"}, "x": 1},
        [
            *["/type", "/display_name", "/payment_details/exp_month", "/payment_details/exp_year"],
            *["/payment_details/cvv", "/x"],
        ],
    ),
    "a method of a wrong type with an account": (
        "POST",
        "/payment-methods",
        {"type": "CASH", "is_default": 0, "payment_details": {"email": "x"}},
        ["/type", "/is_default", "/payment_details/email"],
    ),
    "a method of a wrong type with details of no type": (
        "POST",
        "/payment-methods",
        {"type": ["CASH"], "user_id": "", "payment_details": {"iban": "x"}},
        ["/type", "/user_id"],
    ),
    "a method without anything": ("POST", "/payment-methods", {}, ["/type", "/payment_details"]),
    "a change of a method": (
        "PATCH",
        "/payment-methods/{method}",
        {"x": 1, "is_default": False, "display_name": None},
        ["/display_name", "/is_default", "/x"],
    ),
    "an endpoint": (
        "POST",
        "/webhook-endpoints",
        {"x": 1, "event_types": ["payment.failed", "nothing", 1], "url": "ftp://x.example/", "name": "a\n"},
        ["/name", "/url", "/event_types/1", "/event_types/2", "/x"],
    ),
    "a change of an endpoint": (
        "PATCH",
        "/webhook-endpoints/{endpoint}",
        {"x": 1, "enabled": None, "event_types": [], "url": "https://u:p@x.example/", "name": ""},
        ["/name", "/url", "/event_types", "/enabled", "/x"],
    ),
    "a rule": (
        "POST",
        "/simulation/rules",
        {
            "x": 1,
            "expires_in_s": 0,
            "times": 1.5,
            "effect": {"outcomes": ["x"], "delay_ms": "x", "outage": "x"},
            "match": {"percent": 0, "amount": {"max": 0}, "brand": "x"},
        },
        [
            *["/name", "/match/brand", "/match/amount/max", "/match/percent", "/effect/outcomes/0", "/effect/delay_ms"],
            *["/effect/outage", "/times", "/expires_in_s", "/x"],
        ],
    ),
    "an API key": (
        "POST",
        "/api-keys",
        {"x": 1, "expires_at": "2020-01-01T00:00:00Z", "role": "root", "name": "a b"},
        ["/name", "/role", "/expires_at", "/x"],
    ),
}


@pytest.mark.parametrize("name", FAULTY)
async def test_every_fault_of_a_body_is_named_in_the_order_of_the_schema(
    running_api: RunningApi, admin: httpx.AsyncClient, name: str
) -> None:
    method, path, body, places = FAULTY[name]
    made = {"method": await added(admin)}
    answer = await admin.post("/webhook-endpoints", json={"name": "a", "url": "https://x.example/"})
    path = path.format(**made, endpoint=answer.json()["id"])
    before = await row_counts(running_api.database)
    answer = await admin.request(method, path, json=body)
    assert pointers(answer) == places
    for error in answer.json()["errors"]:
        check_sentences(error["detail"])
    assert await row_counts(running_api.database) == before


async def test_the_faults_of_headers_query_and_body_are_named_together(admin: httpx.AsyncClient) -> None:
    method_id = await added(admin)
    lines = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await admin.post("/payments?a=1&b=2", json={"amount": "x"}, headers=lines)
    assert pointers(answer) == [
        *["/header/idempotency-key", "/query/a", "/query/b"],
        *["/order_id", "/payment_method_id", "/amount"],
    ]
    answer = await admin.patch(f"/payment-methods/{method_id}?user_id=a b&x=1", json={"display_name": 1})
    assert pointers(answer) == ["/query/x", "/query/user_id", "/display_name"]
    answer = await admin.post("/payments?a=1", json={}, headers={"Idempotency-Key": "a b"})
    assert pointers(answer)[:2] == ["/query/a", "/header/Idempotency-Key"]


async def test_the_faults_of_all_parameters_are_named_together(admin: httpx.AsyncClient) -> None:
    query = {"status": "x", "order_id": "", "user_id": "", "created_after": "2026-11-27T12:00:00", "limit": "0"}
    query |= {"created_before": "9999-12-31T23:59:59-12:00", "cursor": "x" * 2001, "nothing": "1"}
    assert pointers(await admin.get("/payments", params=query)) == [
        *["/query/nothing", "/query/status", "/query/order_id", "/query/user_id", "/query/created_after"],
        *["/query/created_before", "/query/limit", "/query/cursor"],
    ]


async def test_a_request_with_a_wrong_parameter_does_nothing(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    body = order(await added(user))
    before = await row_counts(running_api.database)
    assert pointers(await user.post("/payments?x=1", json=body)) == ["/query/x"]
    lines = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert pointers(await user.post("/payments", json=body, headers=lines)) == ["/header/idempotency-key"]
    assert await row_counts(running_api.database) == before


async def test_a_fault_with_a_code_of_its_own_keeps_it_only_alone(user: httpx.AsyncClient) -> None:
    url, name = {"callback_url": "http://10.0.0.1/"}, {"payment_method_id": "pm_test_nothing"}
    alone = await user.post("/payments", json=order("pm_test_visa", **url))
    assert [each["pointer"] for each in problem(alone, 422, "callback_url_refused")["errors"]] == ["/callback_url"]
    alone = await user.post("/payments", json=order("x") | name)
    unusable = problem(alone, 422, "payment_method_unusable")
    assert "GET /test-methods" in unusable["detail"]
    assert [each["pointer"] for each in unusable["errors"]] == ["/payment_method_id"]
    together = await user.post("/payments", json=order("x") | name | url)
    assert pointers(together) == ["/payment_method_id", "/callback_url"]
    assert "detail" not in together.json()


async def test_an_expired_card_alone_is_judged_by_the_clock_of_the_database(user: httpx.AsyncClient) -> None:
    """With another fault the clock of the host is good enough: the request is refused anyway."""
    for body, places in (
        (card(exp_year=2020), ["/payment_details/exp_year"]),
        (card(exp_year=2020, cvv="1"), ["/payment_details/exp_year", "/payment_details/cvv"]),
    ):
        answer = await user.post("/payment-methods", json=body)
        assert pointers(answer) == places
        detail = answer.json()["errors"][0]["detail"]
        assert detail == '"exp_year" is in the past: the card has expired.'


async def test_a_length_of_the_cvc_is_judged_by_the_brand_of_a_right_number(user: httpx.AsyncClient) -> None:
    wrong = [{"card_number": "378282246310005", "cvv": "123"}, {"card_number": "4242424242424241", "cvv": "1234"}]
    places = [pointers(await user.post("/payment-methods", json=card(**each))) for each in wrong]
    assert places == [["/payment_details/cvv"], ["/payment_details/card_number"]]
