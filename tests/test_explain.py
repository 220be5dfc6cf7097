"""`GET /payments/{payment_id}/explain`: who sees what, and the requests to paste, sent to a running API and worker."""

import asyncio
import json
import shlex
from collections.abc import Callable
from socket import gethostname
from typing import Any

import httpx
import pytest

from api.schemas.explain import Explanation
from shared.config.settings import Settings
from shared.keyring import open_keyring
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, added, card, opened_with, order, paypal
from tests.support.models import strict
from tests.support.receivers import register
from tests.support.servers import free_port
from tests.support.waiting import eventually
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]

type MakeSettings = Callable[..., Settings]

SHOP = "https://shop.example/paid"
WAIT = {"Prefer": "wait=20"}


async def explained(client: httpx.AsyncClient, payment_id: str) -> dict[str, Any]:
    answer = await client.get(f"/payments/{payment_id}/explain")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    strict(Explanation).model_validate(shown)
    return shown


# -- who sees what


async def with_deliveries(running_api: RunningApi, endpoint: str, callback: str) -> str:
    """Return the id of a payment of user 1 that failed, with deliveries to an endpoint and a callback, given up."""
    database, settings = running_api.database, running_api.settings
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        await register(connection, open_keyring(settings), endpoint, now=now, name="orders", created_by="service:x")
    body = order("pm_test_card_declined", callback_url=callback)
    async with working(running_api.runtime):
        payment = (await running_api.user().post("/payments", json=body, headers=WAIT)).json()

        async def are_given_up() -> bool:
            shown = (await running_api.admin().get(f"/payments/{payment['id']}/deliveries")).json()
            return [each["status"] for each in shown["deliveries"]] == ["exhausted", "exhausted"]

        await eventually(are_given_up, timeout_s=20)
    assert payment["status"] == "FAILED"
    payment_id: str = payment["id"]
    return payment_id


async def test_who_sees_what(make_settings: MakeSettings) -> None:
    """Nobody listens at the addresses of the receivers, which are of this host."""
    settings = make_settings(
        simulation="on",
        webhook_retry_schedule=(0.01,),
        webhook_allowed_networks="127.0.0.0/8",
        simulator_seed="a secret seed",
    )
    endpoint, callback = (f"http://127.0.0.1:{free_port()}/{name}?token=1" for name in ("endpoint", "callback"))
    async with opened_with(settings) as running_api:
        payment_id = await with_deliveries(running_api, endpoint, callback)
        user, service, admin = running_api.user(), running_api.service(), running_api.admin()
        of_user, of_service, of_admin = [await explained(each, payment_id) for each in (user, service, admin)]
        assert (await running_api.user(2).get(f"/payments/{payment_id}/explain")).status_code == 404

    worker = of_admin["operations"][0]["claims"][0]["worker"]
    assert worker.startswith(f"{gethostname()}-")
    assert f"Worker {worker} took it up for the first time." in json.dumps(of_admin)
    assert len(of_admin["deliveries"]) == 2
    for shown in (of_user, of_service):
        text = json.dumps(shown)
        for hidden in ("127.0.0.1", "token=", "seed_key", ":decline", worker, "secret seed"):
            assert hidden not in text, hidden
        assert all("url" not in delivery for delivery in shown["deliveries"])
        assert all("key" not in entry for operation in shown["operations"] for entry in operation["ledger"])
    assert {each["url"] for each in of_admin["deliveries"]} == {endpoint, callback}
    assert of_admin["operations"][0]["ledger"][0]["key"] == f"{payment_id}:decline"
    assert of_admin["seed_key"].startswith("1 order o-")
    assert "a secret seed" not in json.dumps(of_admin)
    # Draws are for everybody.
    for member in ("decision", "operations", "time"):
        assert without_keys(of_user[member]) == without_keys(of_service[member]) == without_keys(of_admin[member])


def without_keys(value: Any) -> Any:
    if isinstance(value, list):
        return [without_keys(each) for each in value]
    if isinstance(value, dict):
        return {name: without_keys(each) for name, each in value.items() if name not in {"key", "worker"}}
    return value


# -- what has not happened is not foretold


async def test_an_undecided_payment_shows_no_number_that_foretells_its_outcome(running_api: RunningApi) -> None:
    user = running_api.user()
    answer = await user.post("/payments", json=order(await added(user, card("4012888888881881"))))
    shown = await explained(user, answer.json()["id"])
    assert shown["decision"] == {"by": None, "rule": None, "failure_code": None, "draws": []}
    assert shown["again"]["is_same_outcome"] is False
    assert [part["name"] for part in shown["time"]["parts"]] in ([], ["queue_and_claim"])


# -- the requests to paste


PAID: dict[str, dict[str, Any]] = {
    "steered": {"payment_method_id": "pm_test_visa", "simulation": {"outcomes": ["network_error", "timeout_charged"]}},
    "by rate": {"payment_method_id": "pm_test_random_debit"},
    "test card": {"card": "4000000000009995"},
    "test address": {"email": "restricted@paypal.test"},
    "ready-made": {"payment_method_id": "pm_test_lost_card"},
    "network error": {"payment_method_id": "pm_test_visa", "simulation": {"outcomes": ["network_error"]}},
    "customer": {"payment_method_id": "pm_test_3ds_required", "return_url": SHOP, "then": "decline"},
    "3-D Secure": {"payment_method_id": "pm_test_3ds_declined", "return_url": SHOP, "then": "approve"},
    "captured": {"payment_method_id": "pm_test_visa", "capture_method": "manual", "then": "capture"},
    "voided": {"payment_method_id": "pm_test_visa", "capture_method": "manual", "then": "cancel"},
    "refunded": {"payment_method_id": "pm_test_visa", "then": "refunds"},
    "refund declined": {"payment_method_id": "pm_test_refund_declined", "then": "refunds"},
    "cancelled": {
        "payment_method_id": "pm_test_visa",
        "simulation": {"outcomes": ["approve"], "pending_ms": 50_000},
        "then": "cancel",
    },
}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_the_requests_to_paste_make_the_same_outcome(make_settings: MakeSettings) -> None:
    settings = make_settings(simulation="on", max_payment_methods_per_user=20)
    async with opened_with(settings) as running_api, working(running_api.runtime):
        user, admin = running_api.user(), running_api.admin()
        first = dict(
            zip(PAID, await asyncio.gather(*(pay(user, admin, dict(each)) for each in PAID.values())), strict=True)
        )
        again = await asyncio.gather(*(paste(admin, each) for each in first.values()))
    for kind, once, twice in zip(PAID, first.values(), again, strict=True):
        assert once["again"]["is_same_outcome"] is True, kind
        assert outcome(twice) == outcome(once), kind


async def pay(user: httpx.AsyncClient, admin: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """Pay, do what comes then, and return the explanation that an admin gets."""
    then = body.pop("then", None)
    if "card" in body:
        body["payment_method_id"] = await added(user, card(body.pop("card")))
    if "email" in body:
        body["payment_method_id"] = await added(user, paypal(body.pop("email")))
    answer = await user.post(
        "/payments", json=order(body.pop("payment_method_id"), **body), headers=WAIT if then != "cancel" else {}
    )
    assert answer.status_code in {201, 202}, answer.text
    payment_id = answer.json()["id"]
    if "capture_method" in body:
        await settled(admin, payment_id)
    if then in {"approve", "decline"}:
        await send(admin, f"/payments/{payment_id}/action", {"result": then})
    elif then == "capture":
        await send(admin, f"/payments/{payment_id}/capture", {"amount": 1000})
    elif then == "refunds":
        await send(admin, f"/payments/{payment_id}/refunds", {"amount": 500, "reason": "duplicate"})
    elif then == "cancel":
        await send(admin, f"/payments/{payment_id}/cancel", None)
    await settled(admin, payment_id)
    return await explained(admin, payment_id)


async def paste(admin: httpx.AsyncClient, shown: dict[str, Any]) -> dict[str, Any]:
    """Send the commands of an explanation as a shell would, and return the explanation of the new payment."""
    payment_id = ""
    for request in shown["again"]["requests"]:
        words = shlex.split(request["curl"])
        assert words[:3] == ["curl", "-X", request["method"]]
        assert words[3] == f"$API{request['path']}"
        body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
        assert body == request["body"]
        answer = await send(admin, request["path"].replace("$ID", payment_id), body)
        payment_id = payment_id or answer["id"]
        await settled(admin, payment_id)
    return await explained(admin, payment_id)


async def send(client: httpx.AsyncClient, path: str, body: Any) -> dict[str, Any]:
    # A payment that is to be cancelled while it is PENDING is not waited for.
    headers = {} if body and "pending_ms" in body.get("simulation", {}) else WAIT
    answer = await client.post(path, json=body, headers=headers)
    assert answer.is_success, answer.text
    sent: dict[str, Any] = answer.json()
    return sent


async def settled(client: httpx.AsyncClient, payment_id: str) -> None:
    """Wait until the payment has ended, waits for somebody, or is to stay PENDING."""

    async def is_settled() -> bool:
        payment = (await client.get(f"/payments/{payment_id}")).json()
        stays = payment["status"] == "PENDING" and (payment["simulation"] or {}).get("pending_ms")
        return bool(stays) or payment["status"] not in {"PENDING", "PROCESSING"}

    await eventually(is_settled, timeout_s=20)


def outcome(shown: dict[str, Any]) -> Any:
    """Return how a payment ended, step by step, whatever the times and ids."""
    return (
        shown["status"],
        shown["decision"]["failure_code"],
        [[row["reason"] for row in each["history"]] for each in shown["operations"]],
        [[entry["kind"] for entry in each["ledger"]] for each in shown["operations"]],
        [(each["status"], each["amount"]) for each in shown["refunds"]],
    )


# -- where nothing can be steered


async def test_it_also_explains_where_simulation_is_off(make_settings: MakeSettings) -> None:
    settings = make_settings(simulation="off", payment_success_rate=1)
    async with opened_with(settings) as running_api, working(running_api.runtime):
        user = running_api.user()
        for number, is_same in (("4000000000009995", True), ("4012888888881881", False)):
            method_id = await added(user, card(number))
            paid = (await user.post("/payments", json=order(method_id), headers=WAIT)).json()
            shown = await explained(user, paid["id"])
            assert shown["again"]["is_same_outcome"] is is_same
            [request] = shown["again"]["requests"]
            assert (request["body"]["payment_method_id"], "simulation" in request["body"]) == (method_id, False)


async def test_settings_that_were_others_are_named(make_settings: MakeSettings, runtime: Runtime) -> None:
    async with opened_with(make_settings(payment_success_rate=1)) as running_api, working(running_api.runtime):
        user = running_api.user()
        paid = (await user.post("/payments", json=order("pm_test_random_card"), headers=WAIT)).json()
    async with opened_with(make_settings(payment_success_rate=0)) as running_api:
        sentences = [
            each
            for section in (await explained(running_api.user(), paid["id"]))["words"]
            for each in section["sentences"]
        ]
    assert any("PAYMENT_SUCCESS_RATE or SIMULATOR_SEED was another one then" in each for each in sentences)
