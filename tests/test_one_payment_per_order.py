"""One live payment per user and order: what is in progress or paid is not paid again, also at the same instant."""

import asyncio

import httpx

from tests.support.api_client import RunningApi, added, order, paid, problem
from tests.support.settling import APPROVED, DECLINED, claimed, settled
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]


async def test_an_order_with_a_payment_in_progress_takes_no_second_one(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    first = await paid(user, order_id="o1")
    again = order(first["payment_method_id"], order_id="o1", amount=99)
    answer = await user.post("/payments", json=again)
    assert problem(answer, 409, "payment_in_progress")["payment_id"] == first["id"]
    await claimed(running_api.database, first["id"])
    answer = await user.post("/payments", json=again)
    assert problem(answer, 409, "payment_in_progress")["payment_id"] == first["id"]
    assert (await row_counts(running_api.database))["payments"] == 1


async def test_a_paid_order_is_not_paid_again(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    first = await paid(user, order_id="o1")
    await settled(running_api.database, first["id"], APPROVED)
    answer = await user.post("/payments", json=order(first["payment_method_id"], order_id="o1"))
    assert problem(answer, 409, "order_already_paid")["payment_id"] == first["id"]


async def test_after_a_failed_or_cancelled_payment_the_order_may_be_paid(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    failed = await paid(user, order_id="o1")
    await settled(running_api.database, failed["id"], DECLINED)
    cancelled = await paid(user, order_id="o1")
    await user.post(f"/payments/{cancelled['id']}/cancel")
    third = await paid(user, order_id="o1")
    assert len({failed["id"], cancelled["id"], third["id"]}) == 3


async def test_two_users_may_have_an_order_of_the_same_name(running_api: RunningApi) -> None:
    one, two = await paid(running_api.user(1), order_id="o1"), await paid(running_api.user(2), order_id="o1")
    assert one["id"] != two["id"]


async def test_of_two_payments_for_an_order_at_the_same_instant_one_is_accepted(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    method_id = await added(user)
    for round_ in range(10):
        body = order(method_id, order_id=f"race-{round_}")
        answers = await asyncio.gather(*(user.post("/payments", json=body) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
        [won] = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        for answer in answers:
            if answer.status_code == 409:
                assert problem(answer, 409, "payment_in_progress")["payment_id"] == won
    assert (await row_counts(running_api.database))["payments"] == 10
