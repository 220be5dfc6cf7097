"""What services and admins do for a user: the methods of the user that they name, and what a 409 shows them.

Who may do what is in `tests/test_authorization.py`.
"""

from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import select

from shared.config.settings import Settings
from shared.database.tables import idempotency_keys
from shared.errors import ConfigurationError
from tests.support.api_client import (
    MASTERCARD,
    VISA,
    RunningApi,
    accepted,
    added,
    card,
    opened_with,
    order,
    paid,
    paypal,
    pointers,
    problem,
)
from tests.support.settling import APPROVED, settled

pytest_plugins = ["tests.support.api_fixtures"]

type MakeSettings = Callable[..., Settings]

OF_USER = {"user_id": "7"}


@pytest.fixture(params=["service", "admin"])
def machine(running_api: RunningApi, request: pytest.FixtureRequest) -> httpx.AsyncClient:
    """A service, and an admin."""
    return running_api.user("shop", role=request.param)


# -- methods of a user who is named


async def test_a_method_that_is_added_for_a_user_is_the_users(
    running_api: RunningApi, machine: httpx.AsyncClient
) -> None:
    answer = await machine.post("/payment-methods", json={**card(), **OF_USER})
    method = answer.json()
    assert (answer.status_code, method["user_id"]) == (201, "7")
    payer = running_api.user(7)
    assert (await payer.get("/payment-methods")).json() == {"payment_methods": [method]}
    assert (await machine.get("/payment-methods", params=OF_USER)).json() == {"payment_methods": [method]}
    assert (await machine.get("/payment-methods")).json() == {"payment_methods": []}
    assert (await accepted(machine, order(method["id"], user_id=7)))["user_id"] == "7"


async def test_the_location_of_a_method_leads_to_it(running_api: RunningApi, machine: httpx.AsyncClient) -> None:
    anybody = httpx.AsyncClient(transport=running_api.transport, base_url=running_api.url, headers=machine.headers)
    for body in (card(), {**card(), **OF_USER}, {**paypal(), "user_id": "a&b=c/%?"}):
        answer = await machine.post("/payment-methods", json=body)
        assert (await anybody.get(answer.headers["location"])).json() == answer.json()


async def test_a_number_names_the_same_user_as_its_text(machine: httpx.AsyncClient) -> None:
    first = await machine.post("/payment-methods", json={**card(), "user_id": 7})
    again = await machine.post("/payment-methods", json={**card(), "user_id": "7"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


async def test_a_named_users_method_is_renamed_made_the_default_and_deleted(
    running_api: RunningApi, machine: httpx.AsyncClient
) -> None:
    payer = running_api.user(7)
    await added(payer, card(VISA))
    method_id = await added(payer, card(MASTERCARD))
    path = f"/payment-methods/{method_id}"
    changed = await machine.patch(path, params=OF_USER, json={"display_name": "New", "is_default": True})
    assert (changed.status_code, changed.json()["display_name"], changed.json()["is_default"]) == (200, "New", True)
    assert (await payer.get(path)).json() == changed.json()
    assert (await machine.delete(path, params=OF_USER)).status_code == 204
    problem(await payer.get(path), 404, "not_found")


async def test_the_method_of_another_user_than_the_named_one_is_not_found(
    running_api: RunningApi, machine: httpx.AsyncClient
) -> None:
    path = f"/payment-methods/{await added(running_api.user(8))}"
    for method, body in (("GET", None), ("PATCH", {"display_name": "x"}), ("DELETE", None)):
        problem(await machine.request(method, path, params=OF_USER, json=body), 404, "not_found")


@pytest.mark.parametrize("user_id", ["", "a b", "x" * 65, "ü", "\x00"])
async def test_what_is_no_user_id_is_422(machine: httpx.AsyncClient, user_id: str) -> None:
    assert pointers(await machine.get("/payment-methods", params={"user_id": user_id})) == ["/query/user_id"]
    assert pointers(await machine.get("/payments", params={"user_id": user_id})) == ["/query/user_id"]
    assert pointers(await machine.post("/payment-methods", json={**card(), "user_id": user_id})) == ["/user_id"]


async def test_a_user_names_nobody_not_even_themselves(running_api: RunningApi) -> None:
    payer = running_api.user(7)
    path = f"/payment-methods/{await added(payer)}"
    requests: list[tuple[str, str, Any]] = [
        ("GET", "/payment-methods", None), ("GET", path, None), ("PATCH", path, {"display_name": "x"}),
        ("DELETE", path, None), ("GET", "/payments", None),
    ]  # fmt: skip
    for method, where, body in requests:
        answer = await payer.request(method, where, params=OF_USER, json=body)
        assert problem(answer, 403, "forbidden")["detail"].startswith("Only services and admins may name a user")
    problem(await payer.post("/payment-methods", json={**card(), **OF_USER}), 403, "forbidden")


async def test_a_repeat_for_another_user_is_another_request(machine: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k"}
    for body in ({**card(), **OF_USER}, {**card(), **OF_USER}):
        assert (await machine.post("/payment-methods", json=body, headers=key)).json()["user_id"] == "7"
    for other in ({**card(), "user_id": "8"}, card()):
        problem(await machine.post("/payment-methods", json=other, headers=key), 422, "idempotency_key_reused")


async def test_the_fingerprint_of_a_request_that_names_no_user_is_that_of_the_first_release(
    running_api: RunningApi,
) -> None:
    """A repeat after an upgrade must be recognised."""
    body = card(MASTERCARD, display_name="Mine")
    await running_api.user(7).post("/payment-methods", json=body, headers={"Idempotency-Key": "k"})
    fingerprint = running_api.runtime.keyring.fingerprint
    content = {
        "type": "CREDIT_CARD", "display_name": "Mine", "is_default": False,
        "payment_details": {"exp_month": 12, "exp_year": 2040, "cardholder_name": None},
        "fingerprint": fingerprint("card", "CREDIT_CARD", MASTERCARD),
    }  # fmt: skip
    async with running_api.database.read() as connection:
        stored = (await connection.execute(select(idempotency_keys.c.fingerprint))).scalar_one()
    assert stored == fingerprint("POST /payment-methods", orjson.dumps(content, option=orjson.OPT_SORT_KEYS))


# -- the payment that a 409 names


@pytest.mark.parametrize(("state", "code"), [("PENDING", "payment_in_progress"), ("COMPLETED", "order_already_paid")])
async def test_a_409_names_the_payment_only_to_who_may_see_it(
    make_settings: MakeSettings, state: str, code: str
) -> None:
    async with opened_with(make_settings(service_scope="created")) as running_api:
        payer, shop, stall = running_api.user(7), running_api.service("shop"), running_api.service("stall")
        first = await accepted(shop, order(await added(payer), order_id="o1", user_id=7))
        if state == "COMPLETED":
            await settled(running_api.database, first["id"], APPROVED)
        again = order(first["payment_method_id"], order_id="o1")
        named = {
            name: problem(await client.post("/payments", json=body), 409, code).get("payment_id")
            for name, client, body in (
                ("payer", payer, again),
                ("shop", shop, {**again, "user_id": "7"}),
                ("stall", stall, {**again, "user_id": "7"}),
                ("admin", running_api.admin(), {**again, "user_id": "7"}),
            )
        }
    assert named == {"payer": first["id"], "shop": first["id"], "stall": None, "admin": first["id"]}


async def test_a_service_that_pays_for_a_user_does_not_see_the_users_own_payment_in_a_409(
    make_settings: MakeSettings,
) -> None:
    async with opened_with(make_settings(service_scope="created")) as running_api:
        first = await paid(running_api.user(7), order_id="o1")
        again = order(first["payment_method_id"], order_id="o1", user_id="7")
        answer = await running_api.service().post("/payments", json=again)
        assert "payment_id" not in problem(answer, 409, "payment_in_progress")
        assert first["id"] not in answer.text


# -- the setting


def test_the_scope_is_one_of_two_words(make_settings: MakeSettings) -> None:
    assert make_settings().service_scope == "all"
    assert make_settings(service_scope="Created").service_scope == "created"
    with pytest.raises(ConfigurationError, match="SERVICE_SCOPE"):
        make_settings(service_scope="none")
