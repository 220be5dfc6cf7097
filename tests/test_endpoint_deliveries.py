"""The deliveries of a webhook endpoint over HTTP: the events it asked for, listed, filtered and paged."""

import httpx

from api.schemas.webhooks import Delivery
from shared.webhooks.attempts import Delivered, TryAgain
from tests.support.api_client import RunningApi, paid, pointers
from tests.support.settling import APPROVED, settled
from tests.support.webhook_endpoints import TERMINAL, attempted, deliveries_of, registered

pytest_plugins = ["tests.support.api_fixtures"]


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
