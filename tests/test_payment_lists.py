"""Lists of payments over HTTP: their order and pages, who sees which, filters, and cursors."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from shared.config.settings import Settings
from tests.support.api_client import RunningApi, accepted, added, opened_with, order, paid, pointers, problem
from tests.support.settling import DECLINED, change, settled

pytest_plugins = ["tests.support.api_fixtures"]


async def pages(client: httpx.AsyncClient, **params: Any) -> list[list[dict[str, Any]]]:
    """Every page of a list; from the second on, the cursor alone says what is listed."""
    found = []
    answer = await client.get("/payments", params=params)
    while True:
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found.append(body["payments"])
        if body["next_cursor"] is None:
            return found
        kept = {"limit": params["limit"]} if "limit" in params else {}
        answer = await client.get("/payments", params={**kept, "cursor": body["next_cursor"]})


async def test_a_list_has_the_newest_first_in_pages_without_gaps_or_repeats(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    made = [await accepted(user, order(method_id)) for _ in range(7)]
    found = await pages(user, limit=3)
    assert [len(page) for page in found] == [3, 3, 1]
    assert [payment for page in found for payment in page] == list(reversed(made))
    assert [len(page) for page in await pages(user, limit=7)] == [7]
    whole = (await user.get("/payments")).json()
    assert (len(whole["payments"]), whole["limit"], whole["next_cursor"]) == (7, 20, None)


async def test_a_page_is_not_disturbed_by_what_happens_meanwhile(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    made = [await accepted(user, order(method_id)) for _ in range(4)]
    first = (await user.get("/payments", params={"limit": 2})).json()
    await accepted(user, order(method_id))
    second = (await user.get("/payments", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [payment["id"] for payment in second["payments"]] == [made[1]["id"], made[0]["id"]]


async def test_an_empty_list_is_a_list(user: httpx.AsyncClient) -> None:
    assert (await user.get("/payments")).json() == {"payments": [], "limit": 20, "next_cursor": None}


async def test_users_list_their_own_services_and_admins_all(running_api: RunningApi) -> None:
    payer, other, creator = running_api.user(7), running_api.user(8), running_api.service("shop")
    own = await paid(payer)
    made = await accepted(creator, order(await added(payer), user_id=7))
    foreign = await paid(other)
    seen = {}
    for name, client in {"payer": payer, "other": other, "creator": creator, "admin": running_api.admin()}.items():
        seen[name] = {payment["id"] for payment in (await client.get("/payments")).json()["payments"]}
    assert seen == {
        "payer": {own["id"], made["id"]},
        "other": {foreign["id"]},
        "creator": {own["id"], made["id"], foreign["id"]},
        "admin": {own["id"], made["id"], foreign["id"]},
    }
    for client in (creator, running_api.admin()):
        of_user = (await client.get("/payments", params={"user_id": "7"})).json()["payments"]
        assert {payment["id"] for payment in of_user} == {own["id"], made["id"]}
    problem(await payer.get("/payments", params={"user_id": "7"}), 403, "forbidden")


async def test_with_the_scope_created_a_service_lists_what_it_created(make_settings: Callable[..., Settings]) -> None:
    async with opened_with(make_settings(service_scope="created")) as running_api:
        payer, creator = running_api.user(7), running_api.service("shop")
        await paid(payer)
        made = await accepted(creator, order(await added(payer), user_id=7))
        assert [payment["id"] for payment in (await creator.get("/payments")).json()["payments"]] == [made["id"]]
        refused = problem(await creator.get("/payments", params={"user_id": "7"}), 403, "forbidden")
        assert refused["detail"] == "Only admins may name a user here. Leave out user_id."


async def test_lists_are_filtered_by_status_and_order(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    one, two = await paid(user, order_id="o1"), await paid(user, order_id="o2")
    await settled(running_api.database, one["id"], DECLINED)
    three = await paid(user, order_id="o1")

    async def listed(**params: str) -> list[str]:
        return [payment["id"] for page in await pages(user, limit=1, **params) for payment in page]

    assert await listed(status="PENDING") == [three["id"], two["id"]]
    assert await listed(status="FAILED") == [one["id"]]
    assert await listed(order_id="o1") == [three["id"], one["id"]]
    assert await listed(order_id="o1", status="PENDING") == [three["id"]]
    assert await listed(order_id="nothing") == []


async def test_created_after_is_inclusive_and_created_before_is_not(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    made = [await paid(user) for _ in range(3)]
    for seconds, payment in enumerate(made):
        await change(running_api.database, payment["id"], created_at=start + timedelta(seconds=seconds))

    async def listed(**params: str) -> list[int]:
        found = {payment["id"] for page in await pages(user, limit=1, **params) for payment in page}
        return [number for number, payment in enumerate(made) if payment["id"] in found]

    assert await listed(created_after="2026-03-01T12:00:01Z") == [1, 2]
    assert await listed(created_before="2026-03-01T12:00:01Z") == [0]
    assert await listed(created_after="2026-03-01T14:00:01+02:00", created_before="2026-03-01T12:00:02.000Z") == [1]
    assert await listed(created_after="2026-03-01T12:00:01.001Z") == [2]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "limit=",
        "limit=99999999999999999999",
        "status=DONE",
        "status=pending",
        "status=",
        "order_id=",
        "order_id=a%20b",
        "order_id=%00",
        "created_after=yesterday",
        "created_after=0.5",
        "created_before=1795380367",
        "created_after=2026-03-01",
        "created_after=2026-03-01T12:00:00",
        "created_after=9999-12-31T23:59:59-12:00",
        "created_before=0001-01-01T00:00:00%2B12:00",
        "created_before=nan",
        "created_before=99999999999999999999999",
        "user_id=",
        "user_id=%00",
        "user_id=a%20b",
        "user_id=%ED%A0%80",
        "cursor=",
        "cursor=x",
        "cursor=%C3%BC",
        "cursor=" + "A" * 2001,
        "cursor=" + "A" * 100,
        "limit=%FF",
    ],
)
async def test_a_wrong_query_is_422_and_names_the_parameter(admin: httpx.AsyncClient, query: str) -> None:
    assert pointers(await admin.get(f"/payments?{query}")) == [f"/query/{query.partition('=')[0]}"]


async def test_a_cursor_is_opaque_and_keeps_its_filters(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    for order_id in ("o1", "o2", "o3"):
        await accepted(user, order(method_id, order_id=order_id))
    filters: dict[str, Any] = {"status": "PENDING", "created_after": "2020-01-01T01:00:00+01:00", "limit": 1}
    first = (await user.get("/payments", params=filters)).json()
    cursor = first["next_cursor"]
    assert first["payments"][0]["id"] not in cursor
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    same_moment = {"created_after": "2020-01-01T00:00:00Z"}
    for repeated in ({"limit": 1}, filters, filters | same_moment):
        params = {"cursor": cursor, **repeated}
        assert [p["order_id"] for p in (await user.get("/payments", params=params)).json()["payments"]] == ["o2"]
    for other in ({"status": "FAILED"}, {"status": "PENDING"}, {"order_id": "o1"}):
        assert pointers(await user.get("/payments", params={"cursor": cursor, **other})) == ["/query/cursor"]


async def test_a_cursor_that_is_foreign_or_tampered_with_is_422(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    method_id = await added(user)
    for _ in range(2):
        await accepted(user, order(method_id))
    cursor = (await user.get("/payments", params={"limit": 1})).json()["next_cursor"]
    for client in (running_api.user(2), running_api.admin("1"), running_api.service("1")):
        assert pointers(await client.get("/payments", params={"cursor": cursor})) == ["/query/cursor"]
    for place in range(0, len(cursor), 5):
        tampered = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        assert pointers(await user.get("/payments", params={"cursor": tampered})) == ["/query/cursor"]
    for cut in (cursor[:-4], cursor[4:], cursor + cursor):
        assert pointers(await user.get("/payments", params={"cursor": cut})) == ["/query/cursor"]


async def test_a_cursor_of_deliveries_is_none_of_payments(running_api: RunningApi, service: httpx.AsyncClient) -> None:
    endpoint = (
        await service.post(
            "/webhook-endpoints",
            json={"name": "o", "url": "https://o.example", "event_types": ["payment.initiated"]},
        )
    ).json()
    method_id = await added(service)
    for _ in range(2):
        await accepted(service, order(method_id))
    of_deliveries = f"/webhook-endpoints/{endpoint['id']}/deliveries"
    first = (await service.get(of_deliveries, params={"limit": 1})).json()["next_cursor"]
    second = (await service.get("/payments", params={"limit": 1})).json()["next_cursor"]
    assert pointers(await service.get("/payments", params={"cursor": first})) == ["/query/cursor"]
    assert pointers(await service.get(of_deliveries, params={"cursor": second})) == ["/query/cursor"]
