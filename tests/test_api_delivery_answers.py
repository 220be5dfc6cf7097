"""One delivery over HTTP: who sees where it went and what its receiver answered."""

from collections.abc import Callable
from typing import Any

import httpx
from sqlalchemy import select

from api.schemas.webhooks import Delivery
from shared.config.settings import Settings
from shared.database.leases import WorkItem
from shared.database.tables import deliveries, events
from shared.keyring import open_keyring
from shared.runtime import Runtime
from shared.webhooks.attempts import DeliveryAttempt, TryAgain, record_attempts
from shared.webhooks.deliveries import claim_deliveries
from tests.support.api_client import RunningApi, accepted, added, opened, order, paid, problem
from tests.support.settling import APPROVED, settled

pytest_plugins = ["tests.support.api_fixtures"]

CALLBACK = "https://me.example/back?token=1"
HOOK = "https://orders.example/hook?token=2"


async def attempt_all(running_api: RunningApi) -> dict[str, str]:
    """Attempt every delivery once, in vain; return their ids by kind."""
    async with running_api.database.transaction() as connection:
        now = await running_api.database.clock.now(connection)
        found = (await connection.execute(select(deliveries.c.id, deliveries.c.lease_version, deliveries.c.kind))).all()
        items = [WorkItem(row.id, row.lease_version) for row in found]
        claims = [claim for claim in await claim_deliveries(connection, now, items, lease_s=30) if claim]
        attempts = [
            DeliveryAttempt(
                delivery=claim,
                outcome=TryAgain(300),
                duration_ms=12,
                status_code=500,
                error="the receiver answered 500",
                response_body=b"the receiver's words",
            )
            for claim in claims
        ]
        assert None not in await record_attempts(connection, now, attempts)
    return {row.kind: str(row.id) for row in found}


async def seen(client: httpx.AsyncClient, delivery_id: str) -> tuple[bool, bool]:
    """Return whether the client sees the URL and the answer."""
    answer = await client.get(f"/webhook-deliveries/{delivery_id}")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    Delivery.model_validate(shown)
    [attempt] = shown["attempts"]
    assert ("url" in attempt) == ("url" in shown)
    if "url" in shown:
        assert attempt["url"] == shown["url"]
        assert shown["url"] in {CALLBACK, HOOK}
    else:
        assert "example" not in answer.text.replace("orders.example is", "")
    if "response_body" in attempt:
        assert attempt["response_body"] == "the receiver's words"
    return "url" in shown, "response_body" in attempt


async def of_two_kinds(running_api: RunningApi) -> dict[str, str]:
    """Deliveries of a payment that `creator` made for user 7: its callback, and an endpoint of `registrar`."""
    body = {"name": "x", "url": HOOK}
    assert (await running_api.service("registrar").post("/webhook-endpoints", json=body)).status_code == 201
    method = await added(running_api.user(7))
    payment = await accepted(running_api.service("creator"), order(method, user_id=7, callback_url=CALLBACK))
    await settled(running_api.database, payment["id"], APPROVED)
    return await attempt_all(running_api)


async def test_who_gave_the_url_sees_it_and_what_was_answered(running_api: RunningApi) -> None:
    ids = await of_two_kinds(running_api)
    payer, creator, registrar = running_api.user(7), running_api.service("creator"), running_api.service("registrar")
    both, neither = (True, True), (False, False)
    assert await seen(running_api.admin(), ids["callback"]) == both
    assert await seen(running_api.admin(), ids["endpoint"]) == both
    assert await seen(creator, ids["callback"]) == both
    assert await seen(creator, ids["endpoint"]) == neither
    assert await seen(payer, ids["callback"]) == neither
    assert await seen(payer, ids["endpoint"]) == neither
    assert await seen(registrar, ids["endpoint"]) == both
    # Services see every payment, and so its deliveries.
    assert await seen(registrar, ids["callback"]) == neither
    for delivery_id in ids.values():
        assert await seen(running_api.service("other"), delivery_id) == neither
        problem(await running_api.user(8).get(f"/webhook-deliveries/{delivery_id}"), 404, "not_found")


async def test_with_private_networks_open_the_answers_to_callbacks_are_for_admins(
    runtime: Runtime, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(webhook_allowed_networks="10.0.0.0/8")
    async with opened(Runtime(settings, runtime.database, runtime.broker, runtime.keyring)) as running_api:
        ids = await of_two_kinds(running_api)
        assert await seen(running_api.service("creator"), ids["callback"]) == (True, False)
        assert await seen(running_api.service("registrar"), ids["endpoint"]) == (True, True)
        assert await seen(running_api.admin(), ids["callback"]) == (True, True)


async def test_lists_have_no_answers(running_api: RunningApi) -> None:
    await of_two_kinds(running_api)
    admin = running_api.admin()
    [payment] = (await admin.get("/payments")).json()["payments"]
    [endpoint] = (await admin.get("/webhook-endpoints")).json()["webhook_endpoints"]
    for path in (f"/payments/{payment['id']}/deliveries", f"/webhook-endpoints/{endpoint['id']}/deliveries"):
        answer = await admin.get(path)
        assert answer.json()["deliveries"]
        assert "response_body" not in answer.text
        assert "words" not in answer.text


async def test_an_event_names_itself_and_who_created_its_payment(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:

    wanted = {"name": "x", "url": HOOK, "event_types": ["payment.initiated"]}
    assert (await running_api.service().post("/webhook-endpoints", json=wanted)).status_code == 201
    mine = await paid(user)
    for_user = await accepted(running_api.service("orders"), order(await added(user), user_id=1))
    assert (mine["created_by"], for_user["created_by"]) == ("user:1", "service:orders")
    async with running_api.database.read() as connection:
        found = (await connection.execute(select(events.c.id, events.c.body).order_by(events.c.id))).all()
    bodies = [httpx.Response(200, text=row.body).json() for row in found]
    assert [body["id"] for body in bodies] == [str(row.id) for row in found]
    assert {body["data"]["payment"]["created_by"] for body in bodies} == {"user:1", "service:orders"}


async def test_an_endpoint_whose_secret_cannot_be_read_says_so(
    runtime: Runtime, running_api: RunningApi, make_settings: Callable[..., Settings]
) -> None:

    service = running_api.service()
    made = (await service.post("/webhook-endpoints", json={"name": "x", "url": HOOK})).json()
    assert made["problem"] is None
    settings = make_settings(data_key="another key that is in use from now on")
    other = Runtime(settings, runtime.database, runtime.broker, open_keyring(settings))
    async with opened(other) as restarted:
        shown = (await restarted.service().get(f"/webhook-endpoints/{made['id']}")).json()
        assert shown["enabled"] is True
        assert "DATA_KEY" in shown["problem"]
        [listed] = (await restarted.service().get("/webhook-endpoints")).json()["webhook_endpoints"]
        assert listed == shown
    assert (await service.get(f"/webhook-endpoints/{made['id']}")).json()["problem"] is None
