"""A 409 says in whole sentences which object, what state it is in, since when, and what can be done."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api.openapi.responses import CONFLICTS
from api.problems import KINDS
from shared.config.settings import Settings
from tests.support.api_client import VISA, RunningApi, added, opened_with, order, paid, problem
from tests.support.sentences import MOMENT, check_sentences
from tests.support.settling import APPROVED, DECLINED, claimed, settled

pytest_plugins = ["tests.support.api_fixtures"]


def detail_of(answer: httpx.Response, code: str) -> str:
    """The text of a 409, which must be whole sentences with the state and its moment."""
    detail: str = problem(answer, 409, code)["detail"]
    check_sentences(detail)
    assert re.search(rf" since {MOMENT}[,.]", detail), detail
    return detail


@pytest.mark.parametrize(
    ("outcome", "status", "remedy"),
    [
        (None, "PROCESSING", "Wait for it to end."),
        (APPROVED, "COMPLETED", "It was charged: refund it instead."),
        (DECLINED, "FAILED", "Nothing was charged, and there is nothing to cancel."),
    ],
)
async def test_what_cannot_be_cancelled_says_why(
    running_api: RunningApi, user: httpx.AsyncClient, outcome: Any, status: str, remedy: str
) -> None:
    payment = await paid(user)
    await (
        settled(running_api.database, payment["id"], outcome)
        if outcome
        else claimed(running_api.database, payment["id"])
    )
    now = (await user.get(f"/payments/{payment['id']}")).json()
    detail = detail_of(await user.post(f"/payments/{payment['id']}/cancel"), "payment_not_cancellable")
    assert detail == (
        f"The payment has been {status} since {now['updated_at']}, so it can no longer be cancelled. {remedy}"
    )


async def test_a_second_payment_for_an_order_is_told_of_the_first(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    first = await paid(user, order_id="o1")
    again = order(first["payment_method_id"], order_id="o1")
    detail = detail_of(await user.post("/payments", json=again), "payment_in_progress")
    assert detail == (
        f"Order o1 is being paid by payment {first['id']}, which has been PENDING since {first['updated_at']}. "
        "Wait for it to end, or cancel it."
    )
    await claimed(running_api.database, first["id"])
    claimed_at = (await user.get(f"/payments/{first['id']}")).json()["updated_at"]
    detail = detail_of(await user.post("/payments", json=again), "payment_in_progress")
    assert detail.endswith(f", which has been PROCESSING since {claimed_at}. Wait for it to end.")


async def test_a_second_payment_for_a_paid_order_is_told_since_when(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    first = await paid(user, order_id="o1")
    await settled(running_api.database, first["id"], APPROVED)
    ended_at = (await user.get(f"/payments/{first['id']}")).json()["processed_at"]
    answer = await user.post("/payments", json=order(first["payment_method_id"], order_id="o1"))
    assert detail_of(answer, "order_already_paid") == (
        f"Order o1 is already paid: payment {first['id']} has been COMPLETED since {ended_at}. "
        "It needs no other payment, unless all of this one is refunded."
    )


async def test_a_card_number_in_place_of_an_order_is_not_repeated(user: httpx.AsyncClient) -> None:
    first = await paid(user, order_id=VISA)
    answer = await user.post("/payments", json=order(first["payment_method_id"], order_id=VISA))
    detail_of(answer, "payment_in_progress")
    assert VISA not in answer.text


@pytest.mark.parametrize("is_paid", [False, True])
async def test_who_may_not_see_the_payment_learns_no_state(
    make_settings: Callable[..., Settings], is_paid: bool
) -> None:
    async with opened_with(make_settings(service_scope="created")) as running_api:
        user, service = running_api.user(), running_api.service()
        first = await paid(user, order_id="o1")
        if is_paid:
            await settled(running_api.database, first["id"], APPROVED)
        body = order(first["payment_method_id"], order_id="o1", user_id="1")
        found = problem(
            await service.post("/payments", json=body), 409, "order_already_paid" if is_paid else "payment_in_progress"
        )
    assert "payment_id" not in found
    assert found["detail"] == (
        "This order is already paid. It needs no other payment."
        if is_paid
        else "This order already has a payment in progress. Wait for it to end."
    )


def test_every_409_has_an_example_in_these_words() -> None:
    assert set(CONFLICTS) == {code for code, kind in KINDS.items() if kind.status == 409}
    for refusal in CONFLICTS.values():
        check_sentences(str(refusal))
        assert re.search(rf" since {MOMENT}[,.]", str(refusal))


async def test_the_method_of_a_409_is_not_needed_again(user: httpx.AsyncClient) -> None:
    """A refusal for its state binds no key: the same key works when the state is another one."""
    first = await paid(user, order_id="o1")
    body, key = order(await added(user), order_id="o1"), {"Idempotency-Key": "k1"}
    detail_of(await user.post("/payments", json=body, headers=key), "payment_in_progress")
    assert (await user.post(f"/payments/{first['id']}/cancel")).status_code == 200
    assert (await user.post("/payments", json=body, headers=key)).status_code == 202


def test_titles_are_sentences_without_a_period() -> None:
    for kind in KINDS.values():
        check_sentences(f"{kind.title}.")
