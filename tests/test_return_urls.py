"""Where a payment's customer returns to: which return URLs are taken, and what is said of the others."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shared.config.settings import Settings
from tests.support.api_client import added, opened_with, order, paid, pointers, problem
from tests.support.approvals import RETURN_URL, waiting
from tests.support.sentences import check_sentences

pytest_plugins = ["tests.support.api_fixtures"]

MISTAKEN_RETURN_URLS = [
    "javascript:alert(1)",
    "ftp://shop.example/",
    "//shop.example/paid",
    "https://shop.example/a b",
    "https://user:secret@shop.example/",
    'https://shop.example/"><script>',
    "https://shöp.example/",
    "https://",
    "https://shop.example:0/",
    "https://shop.example/" + "x" * 2048,
    "https://shop.example/\r\nSet-Cookie: a=b",
    "",
    7,
]


@pytest.mark.parametrize("url", MISTAKEN_RETURN_URLS)
async def test_a_return_url_that_is_none_is_422(user: httpx.AsyncClient, url: Any) -> None:
    body = order(await added(user), return_url=url)
    answer = await user.post("/payments", json=body)
    assert pointers(answer) == ["/return_url"]
    check_sentences(answer.json()["errors"][0]["detail"])


@pytest.mark.parametrize("url", ["http://localhost:3000/done", "https://10.0.0.7/x?a=%20#b", "https://shop.example"])
async def test_a_customer_may_return_to_every_place_that_a_browser_reaches(user: httpx.AsyncClient, url: str) -> None:
    payment = await paid(user, return_url=url)
    assert (payment["return_url"], payment["next_action"]) == (url, None)


async def test_without_links_for_customers_a_return_url_is_422_with_the_remedy(
    make_settings: Callable[..., Settings],
) -> None:
    without_links = {"host": "pay.internal.example", "data_key": "k" * 32}
    async with opened_with(make_settings(**without_links)) as running_api:
        user = running_api.user()
        answer = await user.post("/payments", json=order(await added(user), return_url=RETURN_URL))
        assert pointers(answer) == ["/return_url"]
        assert "PUBLIC_URL" in answer.json()["errors"][0]["detail"]
        assert (await paid(user))["return_url"] is None
    async with opened_with(make_settings(**without_links, public_url="https://pay.example/shop")) as running_api:
        payment = await waiting(running_api.user(), running_api.database)
        assert payment["next_action"]["url"].startswith("https://pay.example/shop/approve/")


async def test_a_repeat_with_another_return_url_is_another_request(user: httpx.AsyncClient) -> None:
    body = order(await added(user), return_url=RETURN_URL)
    key = {"Idempotency-Key": "k1"}
    first = await user.post("/payments", json=body, headers=key)
    again = await user.post("/payments", json=body, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    for other in ({**body, "return_url": "https://other.example/"}, {**body, "return_url": None}):
        problem(await user.post("/payments", json=other, headers=key), 422, "idempotency_key_reused")
