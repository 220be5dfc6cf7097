"""Webhook endpoints over HTTP, on both databases: created, changed and deleted by those whose they are."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from api.schemas.webhooks import Endpoint, EndpointWithSecret
from shared.database.tables import webhook_endpoints
from shared.event_types import EventType
from shared.ids import new_id
from tests.support.api_client import RunningApi, paid, pointers, problem
from tests.support.settling import APPROVED, settled
from tests.support.stored import row_counts
from tests.support.webhook_endpoints import TERMINAL, deliveries_of, endpoint, registered

pytest_plugins = ["tests.support.api_fixtures"]


# -- endpoints


async def test_a_new_endpoint_is_answered_with_its_secret_once(service: httpx.AsyncClient) -> None:
    answer = await service.post("/webhook-endpoints", json=endpoint())
    made = answer.json()
    EndpointWithSecret.model_validate(made)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/webhook-endpoints/{made['id']}"
    assert made["secret"].startswith("whsec_")
    assert (made["event_types"], made["enabled"], made["disabled_reason"]) == (TERMINAL, True, None)
    assert made["created_by"] == "service:shop"
    shown = (await service.get(f"/webhook-endpoints/{made['id']}")).json()
    Endpoint.model_validate(shown)
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert (await service.get("/webhook-endpoints")).json() == {"webhook_endpoints": [shown]}
    changed = (await service.patch(f"/webhook-endpoints/{made['id']}", json={"name": "new"})).json()
    assert "secret" not in changed


async def test_every_endpoint_has_a_secret_of_its_own_that_is_encrypted_at_rest(
    running_api: RunningApi, service: httpx.AsyncClient
) -> None:
    secrets = [(await registered(service))["secret"] for _ in range(3)]
    assert len(set(secrets)) == 3
    async with running_api.database.read() as connection:
        query = select(webhook_endpoints.c.secret).order_by(webhook_endpoints.c.id)
        stored = (await connection.execute(query)).scalars().all()
    assert [running_api.runtime.keyring.decrypt(secret) for secret in stored] == secrets
    for secret, kept in zip(secrets, stored, strict=True):
        assert secret.removeprefix("whsec_") not in kept


async def test_a_replay_shows_the_endpoint_but_not_its_secret(
    running_api: RunningApi, service: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": "k1"}
    first = await service.post("/webhook-endpoints", json=endpoint(), headers=key)
    again = await service.post("/webhook-endpoints", json=endpoint(), headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == {name: value for name, value in first.json().items() if name != "secret"}
    other = await service.post("/webhook-endpoints", json=endpoint(name="x"), headers=key)
    problem(other, 422, "idempotency_key_reused")
    assert (await row_counts(running_api.database))["webhook_endpoints"] == 1


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked
@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"name": "a\0"}, "/name"),
        ({"name": None}, "/name"),
        ({"url": ""}, "/url"),
        ({"url": 7}, "/url"),
        ({"url": "https://x.example/" + "a" * 2048}, "/url"),
        ({"event_types": []}, "/event_types"),
        ({"event_types": ["payment.done"]}, "/event_types/0"),
        ({"event_types": ["payment.failed", 7]}, "/event_types/1"),
        ({"event_types": ["payment.failed"] * (len(EventType) + 1)}, "/event_types"),
        ({"event_types": "payment.failed"}, "/event_types"),
        ({"secret": "mine"}, "/secret"),
        ({"enabled": True}, "/enabled"),
    ],
)
async def test_what_is_wrong_with_an_endpoint_is_named(
    running_api: RunningApi, service: httpx.AsyncClient, changes: dict[str, Any], pointer: str
) -> None:
    assert pointers(await service.post("/webhook-endpoints", json=endpoint(**changes))) == [pointer]
    assert await row_counts(running_api.database) == {}


async def test_endpoints_are_for_services_and_admins(running_api: RunningApi) -> None:
    made = await registered(running_api.service())
    path = f"/webhook-endpoints/{made['id']}"
    for client in (
        running_api.user(),
        running_api.user("shop"),
        running_api.user(1, role="manager"),
        running_api.user(1, roles=[]),
    ):
        for method, where, body in (
            ("POST", "/webhook-endpoints", endpoint()),
            ("GET", "/webhook-endpoints", None),
            ("GET", path, None),
            ("PATCH", path, {"enabled": False}),
            ("DELETE", path, None),
            ("GET", f"{path}/deliveries", None),
        ):
            problem(await client.request(method, where, json=body), 403, "forbidden")
    assert (await row_counts(running_api.database))["webhook_endpoints"] == 1


async def test_a_service_manages_its_own_endpoints_and_admins_manage_all(running_api: RunningApi) -> None:
    shop, other, admin = running_api.service("shop"), running_api.service("other"), running_api.admin()
    of_shop, of_admin = await registered(shop), await registered(admin)
    assert [e["id"] for e in (await shop.get("/webhook-endpoints")).json()["webhook_endpoints"]] == [of_shop["id"]]
    assert (await other.get("/webhook-endpoints")).json() == {"webhook_endpoints": []}
    listed = (await admin.get("/webhook-endpoints")).json()["webhook_endpoints"]
    assert [e["id"] for e in listed] == [of_admin["id"], of_shop["id"]]
    for made, stranger in ((of_shop, other), (of_admin, shop)):
        path = f"/webhook-endpoints/{made['id']}"
        for method, where, body in (
            ("GET", path, None),
            ("PATCH", path, {"enabled": False}),
            ("DELETE", path, None),
            ("GET", f"{path}/deliveries", None),
        ):
            problem(await stranger.request(method, where, json=body), 404, "not_found")
    path = f"/webhook-endpoints/{of_shop['id']}"
    assert (await admin.patch(path, json={"name": "x"})).status_code == 200
    assert (await admin.get(f"{path}/deliveries")).status_code == 200
    assert (await admin.delete(path)).status_code == 204


async def test_an_endpoint_can_be_changed(service: httpx.AsyncClient) -> None:
    made = await registered(service)
    path = f"/webhook-endpoints/{made['id']}"
    changes = {"name": "new", "url": "https://new.example/", "event_types": ["payment.failed", "payment.failed"]}
    changed = (await service.patch(path, json=changes)).json()
    assert (changed["name"], changed["url"], changed["event_types"]) == (
        "new",
        "https://new.example/",
        ["payment.failed"],
    )
    assert changed["updated_at"] >= made["updated_at"]
    assert (await service.get(path)).json() == changed
    disabled = (await service.patch(path, json={"enabled": False})).json()
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "disabled by its owner")
    enabled = (await service.patch(path, json={"enabled": True})).json()
    assert (enabled["enabled"], enabled["disabled_reason"]) == (True, None)
    for wrong, pointer in (
        ({"name": ""}, "/name"),
        ({"enabled": 1}, "/enabled"),
        ({"secret": "x"}, "/secret"),
        ([], ""),
    ):
        assert pointers(await service.patch(path, json=wrong)) == [pointer]


@pytest.mark.parametrize("how", ["disable", "delete"])
async def test_disabling_or_deleting_an_endpoint_ends_its_open_deliveries(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient, how: str
) -> None:
    made, kept = await registered(service), await registered(service, name="kept")
    payment = await paid(user)
    await settled(running_api.database, payment["id"], APPROVED)
    path = f"/webhook-endpoints/{made['id']}"
    ended = await (service.delete(path) if how == "delete" else service.patch(path, json={"enabled": False}))
    assert ended.status_code in {200, 204}
    shown = (await user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
    assert {d["endpoint_id"]: d["status"] for d in shown} == {made["id"]: "cancelled", kept["id"]: "pending"}
    await settled(running_api.database, (await paid(user))["id"], APPROVED)
    assert len(await deliveries_of(service, kept["id"])) == 2
    if how == "disable":
        assert len(await deliveries_of(service, made["id"])) == 1


async def test_a_deleted_endpoint_is_not_found_any_more(service: httpx.AsyncClient) -> None:
    made = await registered(service)
    path = f"/webhook-endpoints/{made['id']}"
    assert (await service.delete(path)).status_code == 204
    for method, where, body in (
        ("GET", path, None),
        ("PATCH", path, {"enabled": True}),
        ("DELETE", path, None),
        ("GET", f"{path}/deliveries", None),
    ):
        problem(await service.request(method, where, json=body), 404, "not_found")
    assert (await service.get("/webhook-endpoints")).json() == {"webhook_endpoints": []}


async def test_what_is_no_id_of_ours_is_not_found(admin: httpx.AsyncClient) -> None:
    for wrong in (str(new_id()), "1", "x" * 3000, "%00", "ü"):
        for method, path in (
            ("GET", f"/webhook-endpoints/{wrong}"),
            ("PATCH", f"/webhook-endpoints/{wrong}"),
            ("DELETE", f"/webhook-endpoints/{wrong}"),
            ("GET", f"/webhook-endpoints/{wrong}/deliveries"),
            ("POST", f"/webhook-deliveries/{wrong}/resend"),
        ):
            body = {"name": "x"} if method == "PATCH" else None
            problem(await admin.request(method, path, json=body), 404, "not_found")


# -- the callback secret


async def test_ten_who_change_an_endpoint_at_once_leave_one_of_their_changes(service: httpx.AsyncClient) -> None:
    made = await registered(service)
    names = [f"name-{n}" for n in range(10)]
    answers = await asyncio.gather(
        *(service.patch(f"/webhook-endpoints/{made['id']}", json={"name": name}) for name in names)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert (await service.get(f"/webhook-endpoints/{made['id']}")).json()["name"] in names
    assert UUID(made["id"]).version == 7
