"""One voice: whatever is wrong with a field or a parameter, the answer says it in whole sentences of our own."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.faults import PATTERNS
from tests.support.api_client import RunningApi, added, card, order, paypal
from tests.support.approvals import RETURN_URL
from tests.support.money import authorized, charged
from tests.support.notifications import GATEWAY, PATH, notification, signed
from tests.support.sentences import check_sentences

pytest_plugins = ["tests.support.api_fixtures"]
# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

BASE = "/api/v1"
WRONG: list[Any] = [
    *[None, True, False, 0, -1, 1.5, 10**30, "", " ", "x", "x" * 3000, "\ud800", "a\0b", "é", "2026-11-27T12:00:00"],
    *["2026-13-40T00:00:00Z", "2020-01-01T00:00:00Z", [], [1], ["x"], ["payment.failed"] * 50, {}, {"a": 1}],
    *[{"k" * 41: "v"}, {"k": "v" * 501}, {str(n): "v" for n in range(21)}, {str(n): "v" * 500 for n in range(20)}],
    *["http://10.0.0.1/", "https://u:p@x.example/", "ftp://x.example", "https://x.example/#a", "https://[::1/"],
    *["4242424242424241", "9999999999999995", "42424242424242424242", "12345", "pm_test_nothing", "a@b", "XXX"],
]
NO_BODIES: list[Any] = [None, True, 1, 1.5, "x", [], [{}], {}, {"x": 1, "y": [], "z": None}]
WRONG_IN_QUERY = [
    *["", " ", "x", "x" * 3000, "1.0", "-1", "0", "101", "9" * 5000, "é", "\0", "PENDING"],
    *["2026-11-27", "2026-11-27T12:00:00", "9999-12-31T23:59:59-12:00"],
]


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def fields(document: dict[str, Any], schema: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The place of every member of a body, at every depth."""
    schema = resolved(document, schema)
    for variant in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        yield from fields(document, variant, place)
    for name, member in schema.get("properties", {}).items():
        yield (*place, name)
        yield from fields(document, member, (*place, name))


def changed(body: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    name, *rest = place
    inner = changed(body[name], tuple(rest), value) if rest else value
    return {**body, name: inner}


def has_room(body: Any, place: tuple[str, ...]) -> bool:
    """Whether the member of the place is there, or its object is the body itself."""
    *outer, name = place
    for part in outer:
        body = body.get(part) if isinstance(body, dict) else None
    return not outer or (isinstance(body, dict) and name in body)


def check_voice(answer: httpx.Response) -> list[str]:
    """Check every text of an answer. Return the places that it names."""
    assert answer.status_code < 500, answer.text
    if answer.status_code < 400:
        return []
    document = answer.json()
    if "detail" in document:
        check_sentences(document["detail"])
    for error in document.get("errors", ()):
        check_sentences(error["detail"])
    assert document["code"] == "not_found" or document.get("errors") or document.get("detail"), document
    return [error["pointer"] for error in document.get("errors", ())]


STEERED = {"outcomes": ["approve"], "delay_ms": 0, "pending_ms": 1000}


async def bodies(running_api: RunningApi, admin: httpx.AsyncClient) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """A valid body of each kind for every operation with a body, and the path to send it to."""
    endpoint = {"name": "a", "url": "https://x.example/", "event_types": ["payment.failed"]}
    endpoint_id = (await admin.post("/webhook-endpoints", json=endpoint)).json()["id"]
    method_id = await added(admin)
    intent = order(method_id, currency="USD", description="d", metadata={"a": "b"})
    intent |= {"callback_url": "https://x.example/", "user_id": "root"}
    new_card = card(cardholder_name="c") | {"user_id": "root", "display_name": "d", "is_default": True}
    new_account = paypal(user_id="root", display_name="d", is_default=True)
    match: dict[str, Any] = {"user_id": "1", "order_id": "1", "method_type": "CREDIT_CARD", "brand": "visa"}
    match |= {"last4": "4242"}
    match |= {"currency": "USD", "amount": {"min": 1, "max": 2}, "metadata": {"a": "b"}, "gateway": "stripe_mock"}
    match |= {"operation": "charge", "percent": 10}
    delays = {"outcomes": ["approve"], "delay_ms": {"min": 1, "max": 2}}
    rules: list[dict[str, Any]] = [{"name": "n", "match": match, "effect": delays, "times": 1, "expires_in_s": 1}]
    rules += [{"name": "n", "effect": {"outage": "slow"}, "expires_in_s": 1}]
    steered = {"outcomes": ["approve"], "delay_ms": 1, "pending_ms": 1}
    tested = {"order_id": "1", "amount": 500, "simulation": steered, "call_number": 1}
    described = {"payment_method": {"type": "CREDIT_CARD", "brand": "visa", "last4": "4242"}}
    rule_tests = [tested | described | {"operation": "charge", "idempotency_key": "k", "return_url": RETURN_URL}]
    held, done = await authorized(admin, running_api.database), await charged(admin, running_api.database)
    notifications = [notification(done["id"]), notification(done["id"], refund_id=done["id"])]
    return {
        "post /payments": (
            "/payments",
            [intent | {"capture_method": "automatic", "return_url": RETURN_URL, "simulation": STEERED}],
        ),
        "post /payments/{payment_id}/action": (f"/payments/{held['id']}/action", [{"result": "approve"}]),
        "post /payments/{payment_id}/capture": (
            f"/payments/{held['id']}/capture",
            [{"amount": 1, "simulation": STEERED}],
        ),
        "post /payments/{payment_id}/refunds": (
            f"/payments/{done['id']}/refunds",
            [{"amount": 1, "reason": "other", "metadata": {"a": "b"}, "simulation": STEERED}],
        ),
        "post /payment-methods": ("/payment-methods", [new_card, new_account]),
        "patch /payment-methods/{method_id}": (
            f"/payment-methods/{method_id}",
            [{"display_name": "d", "is_default": True}],
        ),
        "post /webhook-endpoints": ("/webhook-endpoints", [endpoint]),
        "patch /webhook-endpoints/{endpoint_id}": (
            f"/webhook-endpoints/{endpoint_id}",
            [{**endpoint, "enabled": True}],
        ),
        "post /api-keys": (
            "/api-keys",
            [{"name": "orders", "role": "service", "expires_at": "2099-01-01T00:00:00Z"}],
        ),
        "post /simulation/rules": ("/simulation/rules", rules),
        "post /simulation/clock/advance": ("/simulation/clock/advance", [{"seconds": 0}]),
        "post /simulation/rules/test": ("/simulation/rules/test", rule_tests),
        "post /webhooks/payment": (PATH, notifications),
        "post /webhooks/payment/{gateway}": (f"{PATH}/{GATEWAY}", notifications),
    }


async def document_of(running_api: RunningApi) -> dict[str, Any]:
    found: dict[str, Any] = (await running_api.client(base="").get("/openapi.json")).json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path.removeprefix(BASE)}", operation


@pytest.mark.parametrize("values", [WRONG[::5], pytest.param(WRONG, marks=pytest.mark.slow)], ids=["a_fifth", "all"])
async def test_every_wrong_value_of_every_member_is_answered_in_sentences(
    running_api: RunningApi, admin: httpx.AsyncClient, values: list[Any]
) -> None:
    document, known = await document_of(running_api), await bodies(running_api, admin)
    with_body = {key: operation for key, operation in operations(document) if "requestBody" in operation}
    assert with_body.keys() == known.keys()
    for key, operation in with_body.items():
        path, valid = known[key]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        places = set(fields(document, schema))
        named: set[str] = set()
        for body in valid:
            for place in places:
                if not has_room(body, place):
                    continue
                for value in values:
                    answer = await sent(running_api, admin, key, path, changed(body, place, value))
                    named.update(check_voice(answer))
        assert {f"/{'/'.join(place)}" for place in places} <= named, key


async def sent(running_api: RunningApi, client: httpx.AsyncClient, key: str, path: str, body: Any) -> httpx.Response:
    # As ASCII, because httpx does not send lone surrogates.
    content = json.dumps(body).encode()
    headers = signed(running_api, content) if path.startswith(PATH) else {"content-type": "application/json"}
    return await client.request(key.partition(" ")[0].upper(), path, content=content, headers=headers)


async def test_every_body_that_is_no_object_is_answered_in_sentences(
    running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    for key, (path, _) in (await bodies(running_api, admin)).items():
        for value in NO_BODIES:
            answer = await sent(running_api, admin, key, path, value)
            check_voice(answer)
            if not isinstance(value, dict):
                assert answer.json()["errors"] == [{"pointer": "", "detail": "The body must be a JSON object."}]


async def test_every_wrong_value_of_every_parameter_is_answered_in_sentences(
    running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    document = await document_of(running_api)
    named: set[str] = set()
    asked: set[str] = set()
    for key, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] != "query":
                continue
            method, path = key.split(" ")
            asked.add(parameter["name"])
            for value in WRONG_IN_QUERY:
                url = path.format(payment_id="x", method_id="x", endpoint_id="01a21e56-b118-7d10-8e4c-5c1f3f0e2b77")
                answer = await admin.request(method.upper(), url, params={parameter["name"]: value})
                named.update(check_voice(answer))
    assert {f"/query/{name}" for name in asked} <= named
    answer = await admin.get("/payments?nothing=1&limit=1&limit=1")
    assert check_voice(answer) == ["/query/nothing", "/query/limit"]
    for value in ('"', "a b", "a" * 300):
        answer = await admin.post("/api-keys", json={}, headers={"Idempotency-Key": value})
        assert "/header/Idempotency-Key" in check_voice(answer)


def patterns(node: Any) -> Iterator[str]:
    match node:
        case dict():
            if isinstance(node.get("pattern"), str):
                yield node["pattern"]
            for value in node.values():
                yield from patterns(value)
        case list():
            for value in node:
                yield from patterns(value)
        case _:
            pass


async def test_every_pattern_of_a_request_has_words(running_api: RunningApi) -> None:
    # A currency is judged by the list of currencies, and a key by its own check.
    by_code = {"^[A-Z]{3}$", "^[!-~]+$"}
    assert set(patterns(await document_of(running_api))) - by_code == set(PATTERNS)
