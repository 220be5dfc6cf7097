"""Webhook endpoints, their deliveries and the callback secret over HTTP, on both databases."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from api.schemas.webhooks import CallbackSecret, Delivery, Endpoint, EndpointWithSecret
from shared.config.settings import Settings
from shared.database.leases import WorkItem
from shared.database.tables import deliveries, webhook_endpoints
from shared.event_types import EventType
from shared.ids import new_id
from shared.runtime import Runtime
from shared.webhooks.attempts import Delivered, DeliveryAttempt, Exhausted, TryAgain, record_attempts
from shared.webhooks.deliveries import ClaimedDelivery, claim_deliveries
from tests.support.api_client import (
    APPROVED,
    RunningApi,
    accepted,
    added,
    opened,
    opened_with,
    order,
    paid,
    pointers,
    problem,
    row_counts,
    settled,
    working,
)
from tests.support.receivers import answering, receiver
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]

TERMINAL = ["payment.cancelled", "payment.completed", "payment.failed"]


def endpoint(**changes: Any) -> dict[str, Any]:
    """The body that registers an endpoint."""
    return {"name": "orders", "url": "https://orders.example/hook", **changes}


async def registered(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    """A new endpoint, as its creator saw it."""
    answer = await client.post("/webhook-endpoints", json=endpoint(**changes))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def claimed_deliveries(running_api: RunningApi) -> list[ClaimedDelivery]:
    """Every delivery there is, claimed."""
    async with running_api.database.transaction() as connection:
        now = await running_api.database.clock.now(connection)
        found = await connection.execute(select(deliveries.c.id, deliveries.c.lease_version))
        items = [WorkItem(row.id, row.lease_version) for row in found]
        return [claim for claim in await claim_deliveries(connection, now, items, lease_s=30) if claim]


async def attempted(running_api: RunningApi, outcome: Delivered | Exhausted | TryAgain) -> None:
    """Every delivery there is gets one attempt."""
    claims = await claimed_deliveries(running_api)
    is_delivered = isinstance(outcome, Delivered)
    attempts = [
        DeliveryAttempt(
            delivery=claim,
            outcome=outcome,
            duration_ms=12,
            status_code=200 if is_delivered else 500,
            error=None if is_delivered else "the receiver answered 500",
            response_body=b"oops",
        )
        for claim in claims
    ]
    async with running_api.database.transaction() as connection:
        now = await running_api.database.clock.now(connection)
        assert all(await record_attempts(connection, now, attempts))


async def deliveries_of(client: httpx.AsyncClient, endpoint_id: str, **params: Any) -> list[dict[str, Any]]:
    answer = await client.get(f"/webhook-endpoints/{endpoint_id}/deliveries", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["deliveries"]
    return found


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


REFUSED_URLS = [
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data",
    "http://[fe80::1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[64:ff9b::a00:1]/",
    "http://100.64.0.1/",
    "http://0.0.0.0/",
    "http://2130706433/",
    "http://0177.0.0.1/",
    "https://user@orders.example/",
    "https://user:secret@orders.example/",
    "https://@orders.example/",
    "https://orders.example/#fragment",
    "https://orders.example/#",
    "ftp://orders.example/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "//orders.example/",
    "orders.example",
    "https://",
    "https:///path",
    "http://orders.example:99999/",
    "http://orders.example:0/",
    "http://örders.example/",
    "http://orders.example/a b",
    "http://[::1",
    "http://orders example/",
]


async def test_no_endpoint_leads_where_deliveries_may_not_go(
    running_api: RunningApi, service: httpx.AsyncClient
) -> None:
    made = await registered(service)
    for url in REFUSED_URLS:
        for answer in (
            await service.post("/webhook-endpoints", json=endpoint(url=url)),
            await service.patch(f"/webhook-endpoints/{made['id']}", json={"url": url}),
        ):
            body = problem(answer, 422, "callback_url_refused")
            assert [error["pointer"] for error in body["errors"]] == ["/url"], url
            assert "secret" not in answer.text
    assert (await row_counts(running_api.database))["webhook_endpoints"] == 1
    assert (await service.get(f"/webhook-endpoints/{made['id']}")).json()["url"] == made["url"]


async def test_our_own_ports_are_closed_to_deliveries_and_other_ports_of_loopback_open(
    running_api: RunningApi, service: httpx.AsyncClient
) -> None:
    for port in running_api.settings.own_ports:
        answer = await service.post("/webhook-endpoints", json=endpoint(url=f"http://localhost:{port}/hook"))
        problem(answer, 422, "callback_url_refused")
    await registered(service, url="http://localhost:1/hook")


async def test_without_allowed_networks_loopback_is_closed(
    runtime: Runtime, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(webhook_allowed_networks="")
    async with opened(Runtime(settings, runtime.database, runtime.broker, runtime.keyring)) as running_api:
        answer = await running_api.service().post("/webhook-endpoints", json=endpoint(url="http://127.0.0.1:1/"))
        problem(answer, 422, "callback_url_refused")


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


# -- deliveries


async def test_an_endpoint_gets_the_events_it_asked_for(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    every = ["payment.initiated", "payment.completed", "payment.failed", "payment.cancelled"]
    wanted = {
        (await registered(service, event_types=types))["id"]: set(types)
        for types in (every, every[:1], every[1:2], every[2:])
    }
    default = (await registered(service))["id"]
    completed, cancelled = await paid(user), await paid(user)
    await settled(running_api.database, completed["id"], APPROVED)
    await user.post(f"/payments/{cancelled['id']}/cancel")
    happened = {"payment.initiated", "payment.completed", "payment.cancelled"}
    for endpoint_id, types in (wanted | {default: set(TERMINAL)}).items():
        got = {delivery["event_type"] for delivery in await deliveries_of(service, endpoint_id)}
        assert got == types & happened


async def test_an_endpoints_deliveries_are_listed_with_attempts_the_newest_first(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    made = await registered(service, event_types=["payment.initiated"])
    payments = [await paid(user) for _ in range(3)]
    await attempted(running_api, TryAgain(300))
    found = await deliveries_of(service, made["id"])
    assert [d["payment_id"] for d in found] == [p["id"] for p in reversed(payments)]
    Delivery.model_validate(found[0])
    assert (found[0]["status"], found[0]["tries"], found[0]["url"]) == ("pending", 1, made["url"])
    assert found[0]["last_error"] == "the receiver answered 500"
    [attempt] = found[0]["attempts"]
    assert (attempt["number"], attempt["status_code"], attempt["url"]) == (1, 500, made["url"])
    [for_owner] = (await user.get(f"/payments/{payments[0]['id']}/deliveries")).json()["deliveries"]
    assert not {"url", "response_body"} & for_owner["attempts"][0].keys()


async def test_an_endpoints_deliveries_are_filtered_by_status_and_paged(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    made = await registered(service, event_types=["payment.initiated"])
    path = f"/webhook-endpoints/{made['id']}/deliveries"
    for _ in range(3):
        await paid(user)
    await attempted(running_api, Delivered())
    for _ in range(2):
        await paid(user)
    assert len(await deliveries_of(service, made["id"], status="delivered")) == 3
    assert len(await deliveries_of(service, made["id"], status="pending")) == 2
    assert await deliveries_of(service, made["id"], status="exhausted") == []
    first = (await service.get(path, params={"status": "delivered", "limit": 2})).json()
    assert (len(first["deliveries"]), first["limit"]) == (2, 2)
    second = (await service.get(path, params={"cursor": first["next_cursor"], "limit": 2})).json()
    assert (len(second["deliveries"]), second["next_cursor"]) == (1, None)
    assert {d["status"] for d in first["deliveries"] + second["deliveries"]} == {"delivered"}
    wrong = await service.get(path, params={"cursor": first["next_cursor"], "status": "pending"})
    assert pointers(wrong) == ["/query/cursor"]
    assert pointers(await service.get(path, params={"status": "lost"})) == ["/query/status"]
    other = await registered(service)
    foreign = await service.get(f"/webhook-endpoints/{other['id']}/deliveries", params={"cursor": first["next_cursor"]})
    assert pointers(foreign) == ["/query/cursor"]


# -- sending again


async def only_delivery(client: httpx.AsyncClient, payment: dict[str, Any]) -> dict[str, Any]:
    [delivery] = (await client.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
    found: dict[str, Any] = delivery
    return found


@pytest.mark.parametrize("outcome", [Delivered(), Exhausted(), TryAgain(300)])
async def test_a_delivery_can_be_sent_again_however_it_ended(
    running_api: RunningApi,
    user: httpx.AsyncClient,
    service: httpx.AsyncClient,
    outcome: Delivered | Exhausted | TryAgain,
) -> None:
    await registered(service, event_types=["payment.initiated"])
    payment = await paid(user)
    await attempted(running_api, outcome)
    delivery = await only_delivery(user, payment)
    answer = await user.post(f"/webhook-deliveries/{delivery['id']}/resend")
    again = answer.json()
    Delivery.model_validate(again)
    assert answer.status_code == 202
    assert (again["id"], again["status"], again["tries"]) == (delivery["id"], "pending", 0)
    assert again["next_attempt_at"] <= again["updated_at"]
    assert len(again["attempts"]) == 1


async def test_a_delivery_that_is_being_sent_is_409(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    await registered(service, event_types=["payment.initiated"])
    payment = await paid(user)
    await claimed_deliveries(running_api)
    delivery = await only_delivery(user, payment)
    answer = await user.post(f"/webhook-deliveries/{delivery['id']}/resend", headers={"Idempotency-Key": "k1"})
    assert problem(answer, 409, "delivery_in_progress")["detail"] == (
        f"The delivery has been in the status sending since {delivery['updated_at']}, so it cannot be sent again at "
        "the same time. Wait for the end of this attempt."
    )
    assert "idempotency_keys" not in await row_counts(running_api.database)


@pytest.mark.parametrize("scope", ["all", "created"])
async def test_a_delivery_is_resent_by_those_who_may_see_it(make_settings: Callable[..., Settings], scope: str) -> None:
    async with opened_with(make_settings(service_scope=scope)) as running_api:
        payer, other = running_api.user(7), running_api.service("other")
        creator, registrar = running_api.service("creator"), running_api.service("registrar")
        await registered(registrar, event_types=["payment.initiated"])
        payment = await accepted(creator, order(await added(payer), user_id=7))
        delivery = await only_delivery(payer, payment)
        path = f"/webhook-deliveries/{delivery['id']}/resend"
        for stranger in (running_api.user(8), running_api.user("registrar"), *([other] if scope == "created" else [])):
            problem(await stranger.post(path), 404, "not_found")
        for client in (payer, creator, registrar, running_api.admin(), *([other] if scope == "all" else [])):
            assert (await client.post(path)).status_code == 202


async def test_to_an_endpoint_that_is_disabled_or_gone_nothing_is_resent(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    made = await registered(service, event_types=["payment.initiated"])
    payment = await paid(user)
    delivery = await only_delivery(user, payment)
    await service.patch(f"/webhook-endpoints/{made['id']}", json={"enabled": False})
    answer = await user.post(f"/webhook-deliveries/{delivery['id']}/resend")
    assert "disabled" in problem(answer, 422, "validation_error")["detail"]
    await service.delete(f"/webhook-endpoints/{made['id']}")
    gone = await user.post(f"/webhook-deliveries/{delivery['id']}/resend")
    assert "the endpoint is gone" in problem(gone, 422, "validation_error")["detail"]


async def test_a_repeated_resend_sends_once(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    await registered(service, event_types=["payment.initiated"])
    payment = await paid(user)
    await attempted(running_api, Delivered())
    path = f"/webhook-deliveries/{(await only_delivery(user, payment))['id']}/resend"
    key = {"Idempotency-Key": "again"}
    first = await user.post(path, headers=key)
    assert (first.status_code, "idempotent-replayed" in first.headers) == (202, False)
    await attempted(running_api, Delivered())
    again = await user.post(path, headers=key)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert (again.json()["status"], len(again.json()["attempts"])) == ("delivered", 2)


async def test_a_resent_delivery_arrives_with_its_old_id(
    runtime: Runtime, running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    async with receiver(answering(500), answering(500), answering(500), answering(200)) as shop, working(runtime):
        payment = await paid(user, callback_url=shop.url)

        async def is_exhausted() -> bool:
            found = (await user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
            return [delivery["status"] for delivery in found] == ["exhausted"]

        _: bool = await eventually(is_exhausted)
        delivery = await only_delivery(user, payment)
        assert (await user.post(f"/webhook-deliveries/{delivery['id']}/resend")).status_code == 202
        await eventually(lambda: len(shop.requests) == 4)
        secret = (await user.get("/callback-secret")).json()["secret"]
        assert shop.requests[-1].verified(secret)["data"]["payment"]["id"] == payment["id"]
        assert {request.headers["webhook-id"] for request in shop.requests} == {delivery["id"]}


# -- the callback secret


async def test_every_principal_has_a_callback_secret_of_its_own_that_stays_the_same(running_api: RunningApi) -> None:
    secrets = []
    for client in (running_api.user(1), running_api.user(2), running_api.service("1"), running_api.user(1)):
        answer = await client.get("/callback-secret")
        CallbackSecret.model_validate(answer.json())
        assert answer.headers["cache-control"] == "no-store"
        secrets.append(answer.json()["secret"])
    assert secrets[0] == secrets[3]
    assert len(set(secrets)) == 3
    assert all(secret.startswith("whsec_") for secret in secrets)


async def test_ten_who_change_an_endpoint_at_once_leave_one_of_their_changes(service: httpx.AsyncClient) -> None:
    made = await registered(service)
    names = [f"name-{n}" for n in range(10)]
    answers = await asyncio.gather(
        *(service.patch(f"/webhook-endpoints/{made['id']}", json={"name": name}) for name in names)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert (await service.get(f"/webhook-endpoints/{made['id']}")).json()["name"] in names
    assert UUID(made["id"]).version == 7
