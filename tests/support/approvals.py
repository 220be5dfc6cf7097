"""Payments that wait for their customer, over a running API and without a worker, and what a browser does with them."""

import html
import re
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select

from shared.database.engine import Database
from shared.database.tables import payments
from shared.payments.outcomes import ActionNeeded, ActionRequired
from tests.support.api_client import RunningApi, accepted, added, card, order
from tests.support.settling import settled

RETURN_URL = "https://shop.example/paid?basket=7#top"
VALID_S = 900
DIRECTIVES = {"default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"}
FORM = re.compile(r'name="form" value="([^"]+)"')


async def waiting(
    client: httpx.AsyncClient, database: Database, *, valid_s: float = VALID_S, **changes: Any
) -> dict[str, Any]:
    """A new payment of the client that is REQUIRES_ACTION, as the client sees it; without time if `valid_s` is over."""
    method_id = changes.pop("method_id", None) or await added(client, card())
    body = order(method_id, **{"return_url": RETURN_URL, **changes})
    payment = await accepted(client, body)
    await require_action(database, payment["id"], valid_s=valid_s)
    answer = await client.get(f"/payments/{payment['id']}")
    shown: dict[str, Any] = answer.json()
    assert shown["status"] == "REQUIRES_ACTION", answer.text
    return shown


async def require_action(database: Database, payment_id: str, *, valid_s: float = VALID_S) -> None:
    """Record that the gateway wants the customer to approve the payment."""
    await settled(database, payment_id, ActionNeeded(ActionRequired("stripe_mock"), valid_s))


async def row(database: Database, payment_id: str) -> Any:
    """The payment's row."""
    async with database.read() as connection:
        return (await connection.execute(select(payments).where(payments.c.id == UUID(payment_id)))).one()


def path_of(payment: dict[str, Any]) -> str:
    """The path of the payment's approval page."""
    url: str = payment["next_action"]["url"]
    return urlsplit(url).path


def customer(running_api: RunningApi) -> httpx.AsyncClient:
    """A browser: it has no token, and follows nothing by itself."""
    return running_api.client(base="")


async def form_of(browser: httpx.AsyncClient, path: str) -> str:
    """The value that the form of an approval page sends back."""
    found = FORM.search((await browser.get(path)).text)
    assert found, path
    return found[1]


async def pressed(browser: httpx.AsyncClient, path: str, result: str = "approve", **fields: str) -> httpx.Response:
    """What is answered to a press of a button on the page."""
    sent = {"form": await form_of(browser, path), "result": result, **fields}
    return await browser.post(path, data=sent)


def page(answer: httpx.Response, status: int, *words: str) -> str:
    """The readable text of an answer that must be a page of ours with this status and these words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = set(answer.headers["content-security-policy"].split("; "))
    assert {directive for directive in policy if not directive.startswith("style-src 'sha256-")} == DIRECTIVES
    assert '<html lang="en">' in answer.text
    assert re.search(r"<title>[^<]{10,}</title>", answer.text)
    assert "<script" not in answer.text
    text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", answer.text, flags=re.DOTALL)))
    for word in (*words, "no money moves"):
        assert word in text, (word, text)
    return text


@pytest.fixture
def browser(running_api: RunningApi) -> httpx.AsyncClient:
    return customer(running_api)
