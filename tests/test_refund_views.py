"""Refunds as they are read over HTTP: their lists and histories, and who may see or make them."""

from typing import Any

import httpx
import pytest

from tests.support.api_client import RunningApi, pointers, problem
from tests.support.long_polls import WAIT
from tests.support.money import charged, refund_ended, refunded
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]


# -- history


async def test_the_history_of_a_refund_has_no_gaps(
    running_api: RunningApi, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    refund = await refunded(service, await charged(user, running_api.database))
    await refund_ended(running_api.database, refund["id"])
    answer = await user.get(f"/refunds/{refund['id']}/history")
    assert answer.json()["refund_id"] == refund["id"]
    history = answer.json()["history"]
    assert [(move["sequence"], move["reason"], move["created_by"]) for move in history] == [
        (1, "requested", "service:shop"), (2, "claimed", "worker"), (3, "gateway_approved", "worker"),
    ]  # fmt: skip


# -- lists


async def test_refunds_are_listed_newest_first_by_pages_and_filters(
    running_api: RunningApi, user: httpx.AsyncClient, other: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    first, second = [await charged(user, running_api.database) for _ in range(2)]
    foreign = await charged(other, running_api.database)
    made = [await refunded(service, payment, amount=1) for payment in (first, second, first, foreign)]
    ids = [refund["id"] for refund in made]
    await refund_ended(running_api.database, ids[0])

    async def ids_of(client: httpx.AsyncClient, path: str = "/refunds", **query: Any) -> list[str]:
        answer = await client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return [refund["id"] for refund in answer.json()["refunds"]]

    assert await ids_of(service) == ids[::-1]
    assert await ids_of(user) == [ids[2], ids[1], ids[0]]
    assert await ids_of(other) == [ids[3]]
    assert await ids_of(user, status="COMPLETED") == [ids[0]]
    assert await ids_of(user, payment_id=first["id"]) == [ids[2], ids[0]]
    assert await ids_of(user, payment_id=first["id"], status="PENDING") == [ids[2]]
    assert await ids_of(user, payment_id=foreign["id"]) == []
    assert await ids_of(user, f"/payments/{first['id']}/refunds") == [ids[2], ids[0]]
    page = (await user.get("/refunds", params={"payment_id": first["id"], "limit": 1})).json()
    assert ([one["id"] for one in page["refunds"]], page["limit"]) == ([ids[2]], 1)
    rest = (await user.get("/refunds", params={"cursor": page["next_cursor"]})).json()
    assert ([one["id"] for one in rest["refunds"]], rest["next_cursor"]) == ([ids[0]], None)
    below = (await user.get(f"/payments/{first['id']}/refunds", params={"limit": 1})).json()
    last = {"cursor": below["next_cursor"]}
    assert await ids_of(user, f"/payments/{first['id']}/refunds", **last) == [ids[0]]
    for path in ("/refunds", "/payments", f"/payments/{second['id']}/refunds"):
        assert pointers(await user.get(path, params=last)) == ["/query/cursor"]
    assert pointers(await other.get("/refunds", params={"cursor": page["next_cursor"]})) == ["/query/cursor"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("status=DONE", "/query/status"),
        ("status=REFUNDED", "/query/status"),
        ("payment_id=x", "/query/payment_id"),
        ("payment_id=", "/query/payment_id"),
        ("limit=0", "/query/limit"),
        ("limit=101", "/query/limit"),
        ("limit=1e1", "/query/limit"),
        ("cursor=x", "/query/cursor"),
        ("user_id=1", "/query/user_id"),
        ("status=PENDING&status=FAILED", "/query/status"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_filter_that_is_not_known_is_refused(user: httpx.AsyncClient, query: str, pointer: str) -> None:
    assert pointers(await user.get(f"/refunds?{query}")) == [pointer]


# -- rights


@pytest.mark.parametrize("refund_id", ["x", "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00", "%00", "refunds"])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_what_does_not_exist_is_404_for_everybody(
    user: httpx.AsyncClient, service: httpx.AsyncClient, refund_id: str
) -> None:
    for client in (user, service):
        problem(await client.get(f"/refunds/{refund_id}"), 404, "not_found")
        problem(await client.get(f"/refunds/{refund_id}/history"), 404, "not_found")
        problem(await client.post(f"/refunds/{refund_id}/cancel"), 404, "not_found")
        problem(await client.post(f"/payments/{refund_id}/refunds"), 404, "not_found")
        problem(await client.get(f"/payments/{refund_id}/refunds"), 404, "not_found")


async def test_users_see_their_refunds_and_make_none(
    running_api: RunningApi, user: httpx.AsyncClient, other: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    payment = await charged(user, running_api.database)
    refund = await refunded(service, payment, amount=1)
    before = await row_counts(running_api.database)
    problem(await user.post(f"/payments/{payment['id']}/refunds"), 403, "forbidden")
    problem(await user.post(f"/refunds/{refund['id']}/cancel"), 403, "forbidden")
    problem(await other.post(f"/payments/{payment['id']}/refunds"), 404, "not_found")
    problem(await other.post(f"/refunds/{refund['id']}/cancel"), 404, "not_found")
    problem(await other.get(f"/refunds/{refund['id']}", headers=WAIT), 404, "not_found")
    assert (await user.get(f"/refunds/{refund['id']}")).json() == refund
    assert await row_counts(running_api.database) == before
