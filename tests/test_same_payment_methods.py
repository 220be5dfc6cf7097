"""The same payment method again is the one that is there, also in a repeated request, and a user has only so many."""

import asyncio

import httpx

from tests.support.api_client import MASTERCARD, SIX_CARDS, RunningApi, added, card, paypal, problem
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]


# -- the same again, and the limit


async def test_the_same_card_again_is_the_one_that_is_there(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    first = await user.post("/payment-methods", json=card(display_name="Mine"))
    again = await user.post("/payment-methods", json=card(cvv="999", display_name="Other"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert (await row_counts(running_api.database)) == {"payment_methods": 1}


async def test_the_same_card_again_with_another_expiry_is_the_renewed_card(user: httpx.AsyncClient) -> None:
    first = (await user.post("/payment-methods", json=card(exp_year=2030))).json()
    renewed = await user.post("/payment-methods", json=card(exp_year=2035, exp_month=1))
    assert (renewed.status_code, renewed.json()["id"]) == (200, first["id"])
    assert renewed.json()["expires_at"] == "2035-02-01T00:00:00.000Z"
    assert (await user.get(f"/payment-methods/{first['id']}")).json() == renewed.json()


async def test_credit_and_debit_paypal_and_other_users_are_other_methods(running_api: RunningApi) -> None:
    one, two = running_api.user(1), running_api.user(2)
    ids = {
        await added(one, card()),
        await added(one, card(type="DEBIT_CARD")),
        await added(two, card()),
        await added(one, paypal("a@example.com")),
        await added(one, paypal("b@example.com")),
    }
    assert len(ids) == 5
    assert await added(one, paypal("A@Example.COM")) in ids


async def test_a_sixth_method_is_one_too_many(user: httpx.AsyncClient) -> None:
    for number in SIX_CARDS[:5]:
        await added(user, card(number))
    answer = await user.post("/payment-methods", json=card(SIX_CARDS[5]))
    assert "5" in problem(answer, 422, "payment_method_limit")["detail"]
    assert (await user.post("/payment-methods", json=card(SIX_CARDS[0]))).status_code == 200  # one that is there
    methods = (await user.get("/payment-methods")).json()["payment_methods"]
    await user.delete(f"/payment-methods/{methods[0]['id']}")
    assert (await user.post("/payment-methods", json=card(SIX_CARDS[5]))).status_code == 201


async def test_the_limit_holds_for_ten_that_come_at_once(user: httpx.AsyncClient) -> None:
    bodies = [paypal(f"shopper{n}@example.com") for n in range(10)]
    answers = await asyncio.gather(*(user.post("/payment-methods", json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [422] * 5
    for answer in answers:
        if answer.status_code == 422:
            problem(answer, 422, "payment_method_limit")
    methods = (await user.get("/payment-methods")).json()["payment_methods"]
    assert len(methods) == 5
    assert [method["is_default"] for method in methods].count(True) == 1


async def test_the_same_card_ten_times_at_once_is_one_method(user: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(user.post("/payment-methods", json=card()) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


# -- repeats


async def test_a_repeat_without_or_with_another_cvc_is_the_same_request(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": "k1"}
    first = await user.post("/payment-methods", json=card(cvv="123"), headers=key)
    again = await user.post("/payment-methods", json=card("4242 4242 4242 4242", cvv="999"), headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    for other in (card(MASTERCARD), card(exp_year=2041), card(display_name="x"), card(type="DEBIT_CARD"), paypal()):
        problem(await user.post("/payment-methods", json=other, headers=key), 422, "idempotency_key_reused")
    assert await row_counts(running_api.database) == {"payment_methods": 1, "idempotency_keys": 1}


async def test_the_repeat_of_a_request_that_found_the_card_there_finds_it_again(user: httpx.AsyncClient) -> None:
    method_id = await added(user)
    for expected in (None, "true"):
        answer = await user.post("/payment-methods", json=card(), headers={"Idempotency-Key": "k1"})
        assert (answer.status_code, answer.json()["id"]) == (200, method_id)
        assert answer.headers.get("idempotent-replayed") == expected


async def test_a_repeat_shows_the_method_as_it_is_now(user: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k1"}
    method = (await user.post("/payment-methods", json=card(), headers=key)).json()
    await user.patch(f"/payment-methods/{method['id']}", json={"display_name": "New"})
    assert (await user.post("/payment-methods", json=card(), headers=key)).json()["display_name"] == "New"
    await user.delete(f"/payment-methods/{method['id']}")
    problem(await user.post("/payment-methods", json=card(), headers=key), 404, "not_found")
    # A card that was added again meanwhile is found.
    added_again = await added(user)
    answer = await user.post("/payment-methods", json=card(), headers=key)
    assert (answer.status_code, answer.json()["id"]) == (200, added_again)
    assert answer.headers["idempotent-replayed"] == "true"


async def test_a_refusal_does_not_bind_the_key(user: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k1"}
    for refused in (card("4242424242424241"), card(exp_year=2020), {"type": "X"}):
        problem(await user.post("/payment-methods", json=refused, headers=key), 422, "validation_error")
    assert (await user.post("/payment-methods", json=card(), headers=key)).status_code == 201
