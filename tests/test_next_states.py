"""Requests that wait for the next state of a payment: until it is authorized, or is no longer what its ETag says."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.support.api_client import RunningApi, added, order
from tests.support.long_polls import WAIT
from tests.support.money import AUTHORIZED, CAPTURED, authorized, charged
from tests.support.settling import settled
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]


async def test_a_post_that_waits_is_answered_201_when_the_payment_is_authorized(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    body = order(await added(user), capture_method="manual")
    waiting = asyncio.create_task(user.post("/payments", json=body, headers=WAIT))

    async def listed() -> Any:
        return (await user.get("/payments")).json()["payments"]

    [payment] = await eventually(listed)
    await settled(running_api.database, payment["id"], AUTHORIZED)
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (201, "AUTHORIZED")
    got = await user.get(f"/payments/{payment['id']}", headers=WAIT)
    assert (got.json(), got.headers["preference-applied"]) == (answer.json(), "wait=20")


@pytest.mark.parametrize("path", ["", "/status"])
async def test_with_the_current_etag_a_get_waits_for_the_next_state(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient, path: str
) -> None:
    payment = await authorized(user, running_api.database)
    known = {"If-None-Match": '"3"'}
    unchanged = await user.get(f"/payments/{payment['id']}{path}", headers=known | {"Prefer": "wait=1"})
    assert (unchanged.status_code, unchanged.headers["etag"]) == (304, '"3"')
    assert unchanged.headers["preference-applied"] == "wait=1"
    waiting = asyncio.create_task(user.get(f"/payments/{payment['id']}{path}", headers=known | WAIT))
    await service.post(f"/payments/{payment['id']}/capture")
    await settled(running_api.database, payment["id"], CAPTURED)
    answer = await waiting
    assert (answer.status_code, answer.json()["status"], answer.headers["etag"]) == (200, "COMPLETED", '"6"')


@pytest.mark.parametrize("etag", ['"2"', "*", '"5-gzip", "2"', 'W/"9"'])
async def test_with_another_etag_a_get_is_answered_at_once(
    running_api: RunningApi, user: httpx.AsyncClient, etag: str
) -> None:
    payment = await authorized(user, running_api.database)
    async with asyncio.timeout(15):
        answer = await user.get(f"/payments/{payment['id']}", headers=WAIT | {"If-None-Match": etag})
    assert answer.status_code == (304 if etag == "*" else 200)
    assert answer.headers["preference-applied"] == "wait=20"


async def test_a_refund_is_a_next_state_of_its_payment(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    waiting = asyncio.create_task(user.get(f"/payments/{payment['id']}", headers=WAIT | {"If-None-Match": '"3"'}))
    await service.post(f"/payments/{payment['id']}/refunds", json={"amount": 85})
    answer = await waiting
    assert (answer.status_code, answer.json()["sequence"], answer.json()["amount_refundable"]) == (200, 4, 1500)
