"""Deliveries that are sent again over HTTP: whose, in which status, and once per request."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api.schemas.webhooks import Delivery
from shared.config.settings import Settings
from shared.runtime import Runtime
from shared.webhooks.attempts import Delivered, Exhausted, TryAgain
from tests.support.api_client import RunningApi, accepted, added, opened_with, order, paid, problem
from tests.support.receivers import answering, receiver
from tests.support.stored import row_counts
from tests.support.waiting import eventually
from tests.support.webhook_endpoints import attempted, claimed_deliveries, registered
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]


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
