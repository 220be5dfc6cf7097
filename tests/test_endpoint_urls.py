"""Where webhook endpoints may lead: to no address that deliveries may not reach, and to none of our own ports."""

from collections.abc import Callable

import httpx

from shared.config.settings import Settings
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, opened, problem
from tests.support.stored import row_counts
from tests.support.webhook_endpoints import endpoint, registered

pytest_plugins = ["tests.support.api_fixtures"]

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
