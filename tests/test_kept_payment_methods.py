"""Payment methods that are there: renamed and deleted over HTTP by the user whose they are, and by nobody else."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from shared.ids import new_id
from shared.payment_methods import change_method, delete_method, find_method
from tests.support.api_client import MASTERCARD, VISA, RunningApi, accepted, added, card, order, pointers, problem
from tests.support.settling import claimed

pytest_plugins = ["tests.support.api_fixtures"]


# -- changing and deleting


async def test_a_method_can_be_renamed(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    answer = await user.patch(f"/payment-methods/{method_id}", json={"display_name": "Für Bücher"})
    assert (answer.status_code, answer.json()["display_name"]) == (200, "Für Bücher")
    same = await user.patch(f"/payment-methods/{method_id}", json={})
    assert (same.status_code, same.json()) == (200, answer.json())


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"display_name": ""}, "/display_name"),
        ({"display_name": "x" * 101}, "/display_name"),
        ({"display_name": "a\0b"}, "/display_name"),
        ({"is_default": 1}, "/is_default"),
        ({"card_number": VISA}, "/card_number"),
        ({"user_id": 2}, "/user_id"),
        ([], ""),
        ("x", ""),
    ],
)
async def test_nothing_else_of_a_method_can_be_changed(user: httpx.AsyncClient, body: Any, pointer: str) -> None:
    method_id = await added(user)
    before = (await user.get(f"/payment-methods/{method_id}")).json()
    answer = await user.patch(f"/payment-methods/{method_id}", json=body)
    assert pointers(answer) == [pointer]
    assert VISA not in answer.text
    assert (await user.get(f"/payment-methods/{method_id}")).json() == before


async def test_a_deleted_method_is_not_found_any_more(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    deleted = await user.delete(f"/payment-methods/{method_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    path = f"/payment-methods/{method_id}"
    for again in (user.get(path), user.delete(path), user.patch(path, json={"display_name": "x"})):
        problem(await again, 404, "not_found")
    assert (await user.get("/payment-methods")).json() == {"payment_methods": []}
    assert await added(user) != method_id  # the same card, added anew


async def test_payments_accepted_before_the_deletion_go_on(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    method_id = await added(user, card("4000000000000002"))
    payment = await accepted(user, order(method_id))
    await user.delete(f"/payment-methods/{method_id}")
    problem(await user.post("/payments", json=order(method_id)), 422, "payment_method_unusable")
    claim = await claimed(running_api.database, payment["id"])
    assert claim.method["scenario"] == "card_declined"


# -- whose it is


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_method_is_nobody_elses_business(running_api: RunningApi, user: httpx.AsyncClient, method: str) -> None:
    path = f"/payment-methods/{await added(user)}"
    body = {"display_name": "x"} if method == "PATCH" else None
    for stranger in (running_api.user(2), running_api.service("shop"), running_api.user("10")):
        problem(await stranger.request(method, path, json=body), 404, "not_found")
        assert (await stranger.get("/payment-methods")).json() == {"payment_methods": []}
    answer = await running_api.admin().request(method, path, json=body)
    assert answer.status_code in {200, 204}


async def test_what_is_no_id_of_ours_is_not_found(user: httpx.AsyncClient) -> None:
    for wrong in (str(new_id()), "1", VISA, "x" * 3000, "%00", "ü"):
        for method in ("GET", "PATCH", "DELETE"):
            body = {"display_name": "x"} if method == "PATCH" else None
            answer = await user.request(method, f"/payment-methods/{wrong}", json=body)
            problem(answer, 404, "not_found")
            assert VISA not in answer.text


# -- the verbs, where HTTP cannot aim


async def test_a_method_that_went_meanwhile_is_neither_changed_nor_deleted_again(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    kept, gone = await added(user, card()), await added(user, card(MASTERCARD))
    async with running_api.database.read() as connection:
        method = await find_method(connection, UUID(gone), user_id=None)
    assert method is not None
    await user.delete(f"/payment-methods/{gone}")
    async with running_api.database.transaction() as connection:
        now = await running_api.database.clock.now(connection)
        assert not await delete_method(connection, method, now=now)
        assert await change_method(connection, method, display_name="x", make_default=False, now=now) is None
    assert [m["id"] for m in (await user.get("/payment-methods")).json()["payment_methods"]] == [kept]
