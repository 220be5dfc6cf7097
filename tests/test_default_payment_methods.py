"""The default among a user's payment methods: there is always exactly one."""

import asyncio

import httpx

from tests.support.api_client import MASTERCARD, SIX_CARDS, RunningApi, added, card, pointers

pytest_plugins = ["tests.support.api_fixtures"]


async def defaults(client: httpx.AsyncClient) -> list[bool]:
    """Who is the default, the newest first."""
    return [method["is_default"] for method in (await client.get("/payment-methods")).json()["payment_methods"]]


async def test_the_first_method_is_the_default_and_the_list_has_the_newest_first(user: httpx.AsyncClient) -> None:
    ids = [await added(user, card(number)) for number in SIX_CARDS[:3]]
    listed = (await user.get("/payment-methods")).json()["payment_methods"]
    assert [method["id"] for method in listed] == list(reversed(ids))
    assert await defaults(user) == [False, False, True]


async def test_there_is_always_exactly_one_default(user: httpx.AsyncClient) -> None:
    one = await added(user, card())
    two = await added(user, card(MASTERCARD, is_default=True))
    assert await defaults(user) == [True, False]
    changed = await user.patch(f"/payment-methods/{one}", json={"is_default": True})
    assert changed.json()["is_default"]
    assert await defaults(user) == [False, True]
    answer = await user.post("/payment-methods", json=card(MASTERCARD, is_default=True))
    assert (answer.status_code, answer.json()["id"], answer.json()["is_default"]) == (200, two, True)
    assert await defaults(user) == [True, False]
    assert pointers(await user.patch(f"/payment-methods/{two}", json={"is_default": False})) == ["/is_default"]


async def test_deleting_the_default_passes_it_to_the_newest(user: httpx.AsyncClient) -> None:
    one, two, three = [await added(user, card(number)) for number in SIX_CARDS[:3]]
    assert (await user.delete(f"/payment-methods/{one}")).status_code == 204
    assert await defaults(user) == [True, False]
    assert (await user.delete(f"/payment-methods/{two}")).status_code == 204
    assert await defaults(user) == [True]
    assert (await user.delete(f"/payment-methods/{three}")).status_code == 204
    await added(user, card())
    assert await defaults(user) == [True]


async def test_ten_who_want_to_be_the_default_at_once_leave_one(user: httpx.AsyncClient) -> None:
    ids = [await added(user, card(number)) for number in SIX_CARDS[:5]] * 2
    answers = await asyncio.gather(
        *(user.patch(f"/payment-methods/{method_id}", json={"is_default": True}) for method_id in ids)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert (await defaults(user)).count(True) == 1


async def test_a_default_made_of_a_method_that_is_just_being_deleted_leaves_the_old_one(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    await added(user, card())
    doomed = await added(user, card(MASTERCARD))
    for _ in range(10):
        changed, deleted = await asyncio.gather(
            user.patch(f"/payment-methods/{doomed}", json={"is_default": True}),
            user.delete(f"/payment-methods/{doomed}"),
        )
        assert (changed.status_code in {200, 404}, deleted.status_code) == (True, 204)
        assert (await defaults(user)).count(True) == 1
        doomed = await added(user, card(MASTERCARD))
