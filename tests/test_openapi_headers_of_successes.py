"""The headers of successes: the OpenAPI document describes each one that is sent, and none that never is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from shared.config.settings import Settings
from shared.verify.reports import keep_report
from tests.support.api_client import MASTERCARD, RunningApi, added, card, order, paid
from tests.support.approvals import waiting
from tests.support.money import CAPTURED, authorized, charged, refund_ended
from tests.support.notifications import GATEWAY, notification, notify
from tests.support.sent_headers import LIMITS, described, is_problem, recorded
from tests.support.settling import APPROVED, settled
from tests.support.verified import NOW
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures", "tests.support.openapi_fixtures"]
# No header depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

KEY = {"Idempotency-Key": "k"}
HELD = {"Prefer": "wait=25"}


async def held_until(
    answer: Awaitable[httpx.Response], is_asked: Callable[[], Awaitable[Any]], end: Callable[[], Awaitable[Any]]
) -> httpx.Response:
    """The answer that is held until `end` was called, which is once `is_asked` says so."""
    holding = asyncio.ensure_future(answer)
    await eventually(is_asked)
    await end()
    return await holding


async def twice(client: httpx.AsyncClient, path: str, body: Any = None) -> dict[str, Any]:
    """POST with a key and again with the same key; return what the first answer says."""
    first, again = [await client.post(path, json=body, headers=KEY) for _ in range(2)]
    assert (first.is_success, again.status_code) == (True, first.status_code), (first.text, again.text)
    shown: dict[str, Any] = first.json()
    return shown


async def read(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def read_in_every_way(client: httpx.AsyncClient, path: str) -> None:
    """GET an object as it is, held, and if it has changed. `*` is every version: nobody waits for another one."""
    for headers in ({}, {"If-None-Match": "*"}):
        await client.get(path, headers=headers)
        await client.get(path, headers={**headers, "Prefer": "wait=1"})


async def pay(running_api: RunningApi) -> None:
    """Every operation of payments that may be held, repeated or both."""
    user, admin, database = running_api.user(), running_api.admin(), running_api.database
    intent = order(await added(user))
    payment = await twice(user, "/payments", intent)
    path = f"/payments/{payment['id']}"
    for one in (path, f"{path}/status"):
        await user.get(one)
        await user.get(one, headers={"If-None-Match": "*"})
    await settled(database, payment["id"], APPROVED)
    for one in (path, f"{path}/status"):
        await read_in_every_way(user, one)
    await user.post("/payments", json=intent, headers=KEY | HELD)
    intent = order(intent["payment_method_id"])
    listed = f"/payments?order_id={intent['order_id']}"

    async def new() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await read(user, listed))["payments"]
        return found

    async def complete() -> None:
        await settled(database, (await new())[0]["id"], APPROVED)

    answer = await held_until(user.post("/payments", json=intent, headers=HELD), new, complete)
    assert answer.status_code == 201
    await twice(user, f"/payments/{(await paid(user))['id']}/cancel")
    await twice(user, f"/payments/{(await authorized(user, database))['id']}/cancel")
    for verb, body, make, outcome in (
        ("capture", {}, authorized, CAPTURED),
        ("action", {"result": "approve"}, waiting, APPROVED),
    ):
        payment = await make(user, database)
        path = f"/payments/{payment['id']}"
        await twice(admin, f"{path}/{verb}", body)
        await settled(database, payment["id"], outcome)
        await admin.post(f"{path}/{verb}", json=body, headers=KEY | HELD)
        payment = await make(user, database)
        path = f"/payments/{payment['id']}"

        async def is_asked(path: str = path, before: str = payment["status"]) -> bool:
            return bool((await read(user, path))["status"] != before)

        async def end(payment_id: str = payment["id"], outcome: Any = outcome) -> None:
            await settled(database, payment_id, outcome)

        answer = await held_until(admin.post(f"{path}/{verb}", json=body, headers=HELD), is_asked, end)
        assert answer.status_code == 200, answer.text


async def refund(running_api: RunningApi) -> None:
    """Every operation of refunds that may be held, repeated or both."""
    user, admin, database = running_api.user(), running_api.admin(), running_api.database
    path = f"/payments/{(await charged(user, database))['id']}/refunds"
    first = await twice(admin, path, {"amount": 1})
    await user.get(f"/refunds/{first['id']}")
    await user.get(f"/refunds/{first['id']}", headers={"If-None-Match": "*"})
    await refund_ended(database, first["id"])
    await read_in_every_way(user, f"/refunds/{first['id']}")
    await admin.post(path, json={"amount": 1}, headers=KEY | HELD)

    async def second() -> str | None:
        ids = {refund["id"] for refund in (await read(user, path))["refunds"]} - {first["id"]}
        return ids.pop() if ids else None

    async def end() -> None:
        await refund_ended(database, str(await second()))

    answer = await held_until(admin.post(path, json={"amount": 2}, headers=HELD), second, end)
    assert answer.status_code == 201
    third = (await admin.post(path, json={"amount": 3})).json()
    await twice(admin, f"/refunds/{third['id']}/cancel")


async def administrate(running_api: RunningApi) -> dict[str, str]:
    """Every other operation that creates or changes something. Return ids of what is there afterwards."""
    user, admin, database = running_api.user(), running_api.admin(), running_api.database
    method = await twice(user, "/payment-methods", card(MASTERCARD))
    known = [
        await user.post("/payment-methods", json=card(MASTERCARD), headers={"Idempotency-Key": "known"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in known] == [200, 200]
    await user.patch(f"/payment-methods/{method['id']}", json={"display_name": "x"})
    endpoint = await twice(admin, "/webhook-endpoints", {"name": "o", "url": "https://o.example/"})
    await admin.patch(f"/webhook-endpoints/{endpoint['id']}", json={"name": "x"})
    payment = await charged(user, database)
    [delivery] = (await read(user, f"/payments/{payment['id']}/deliveries"))["deliveries"]
    await twice(admin, f"/webhook-deliveries/{delivery['id']}/resend")
    key = await twice(admin, "/api-keys", {"name": "orders", "role": "service"})
    rule = await twice(admin, "/simulation/rules", {"name": "r", "effect": {"outcomes": ["approve"]}})
    asked = {"payment_method": {"type": "PAYPAL"}, "amount": 100, "order_id": "1"}
    await twice(admin, "/simulation/rules/test", asked)
    await twice(admin, "/verify/run")
    async with database.transaction() as connection:
        await keep_report(connection, {}, started_at=NOW, finished_at=NOW)
    for path in ("/webhooks/payment", f"/webhooks/payment/{GATEWAY}"):
        assert (await notify(running_api, notification(payment["id"]), path=path)).status_code == 204
    refund = (await admin.post(f"/payments/{payment['id']}/refunds", json={"amount": 1})).json()
    return {
        "payment_id": payment["id"],
        "method_id": method["id"],
        "endpoint_id": endpoint["id"],
        "delivery_id": delivery["id"],
        "key_id": key["id"],
        "rule_id": rule["id"],
        "refund_id": refund["id"],
    }


async def read_and_delete(running_api: RunningApi, document: dict[str, Any], ids: dict[str, str]) -> None:
    """GET whatever there is, and DELETE whatever can be deleted: a rule before all of them."""
    for method in ("get", "delete"):
        for path in sorted(document["paths"], reverse=True):
            if method not in document["paths"][path]:
                continue
            client = running_api.user() if "/payment-methods" in path else running_api.admin()
            answer = await client.request(method, running_api.url + path.format(**ids))
            assert answer.is_success, (method, path, answer.text)


async def test_every_success_has_the_headers_that_are_described_and_no_other_one(
    make_settings: Callable[..., Settings], document: dict[str, Any]
) -> None:
    async with recorded(make_settings(**LIMITS), document) as (running_api, sent):
        # While nothing is due: nobody works here.
        await twice(running_api.admin(), "/simulation/clock/advance", {"seconds": 0})
        await pay(running_api)
        await refund(running_api)
        await read_and_delete(running_api, document, await administrate(running_api))
        # That of a service without its database is not among them.
        successes = {
            key: names for key, response, names in described(document) if not is_problem(response) and key[2] != "503"
        }
        assert successes.keys() <= sent.keys()
        assert {key: sent[key] ^ names for key, names in successes.items() if sent[key] != names} == {}
