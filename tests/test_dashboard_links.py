"""Where the pages of a payment lead: everybody who sees one may follow all of its links."""

import html
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shared.config.settings import Settings
from tests.support.api_client import RunningApi, accepted, opened_with, order
from tests.support.dashboards import bearer, signed_in
from tests.support.receivers import answering, receiver
from tests.support.waiting import eventually
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]

LINK = re.compile(r'<a [^>]*?href="/dashboard([^"]*)"')
# Who looks at a payment of user 1: its user, the service that has an endpoint, and others who see the payment.
ROLES = {
    "admin": ("admin", "root"),
    "shop": ("service", "shop"),
    "other shop": ("service", "other"),
    "user": (None, "1"),
}
PAGES_MAX = 60


async def followed(browser: httpx.AsyncClient, start: str) -> dict[str, int]:
    """The status of every page that is reached from one, by links."""
    statuses: dict[str, int] = {}
    waiting = [start]
    while waiting and len(statuses) < PAGES_MAX:
        page = waiting.pop()
        answer = await browser.get(page)
        statuses[page] = answer.status_code
        found = {html.unescape(path).partition("#")[0] for path in LINK.findall(answer.text)}
        waiting += [path for path in found if path not in statuses and path not in waiting]
    return statuses


async def an_endpoint(client: httpx.AsyncClient, url: str, name: str) -> dict[str, Any]:
    answer = await client.post("/webhook-endpoints", json={"name": name, "url": url})
    answer.raise_for_status()
    endpoint: dict[str, Any] = answer.json()
    return endpoint


@pytest.mark.parametrize("who", ROLES)
@pytest.mark.parametrize("scope", ["all", "created"])
async def test_whoever_sees_a_payment_may_follow_every_link_from_it(
    make_settings: Callable[..., Settings], who: str, scope: str
) -> None:
    async with (
        opened_with(make_settings(service_scope=scope)) as running_api,
        receiver(answering(500, b"the answer of a receiver")) as hook,
        working(running_api.runtime),
    ):
        shop, admin = running_api.service(), running_api.admin()
        await an_endpoint(shop, hook.url, "of the shop")
        gone = await an_endpoint(admin, hook.url, "deleted later")
        owner = running_api.service("other") if who == "other shop" else running_api.user(1)
        payment = await accepted(owner, order("pm_test_visa", callback_url=hook.url))
        await eventually(lambda: len(hook.requests) >= 3)
        (await admin.delete(f"/webhook-endpoints/{gone['id']}")).raise_for_status()
        # With the scope `created` the shop sees the deliveries to its endpoint, but not the payment.
        sees_payment = (scope, who) != ("created", "shop")
        start = f"/payments/{payment['id']}" if sees_payment else "/webhooks"
        statuses = await followed(await signed_in(running_api, bearer(running_api, *ROLES[who])), start)
    assert {path: status for path, status in statuses.items() if status not in {200, 303}} == {}
    reached = {path.split("/")[1] for path in statuses if path}
    assert {"deliveries", "payments"} <= reached
    # Only the page of an endpoint that the visitor may manage is offered.
    assert (f"/webhooks/{gone['id']}" in statuses) is False
    assert any(path.startswith("/webhooks/") for path in statuses) == (who in {"admin", "shop"})


async def test_the_page_of_a_delivery_shows_url_and_answer_to_those_who_may_see_them(running_api: RunningApi) -> None:
    async with receiver(answering(500, b"the answer of a receiver")) as hook, working(running_api.runtime):
        await an_endpoint(running_api.service(), hook.url, "of the shop")
        payment = await accepted(running_api.user(1), order("pm_test_visa"))
        await eventually(lambda: len(hook.requests) >= 1)
        listed = (await running_api.admin().get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
        path = f"/deliveries/{listed[0]['id']}"
        for who, sees in (("admin", True), ("shop", True), ("other shop", False), ("user", False)):
            page = await (await signed_in(running_api, bearer(running_api, *ROLES[who]))).get(path)
            assert page.status_code == 200, who
            assert (hook.url in page.text) == sees, who
            assert ("What the receiver answered is for admins" in page.text) == (not sees), who
