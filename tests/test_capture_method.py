"""Whether a payment is captured automatically or later, as its intent says, and what a payment shows until then."""

from typing import Any

import httpx
import pytest

from tests.support.api_client import RunningApi, added, card, order, paid, paypal, pointers, problem
from tests.support.money import authorized

pytest_plugins = ["tests.support.api_fixtures"]


async def test_a_payment_is_captured_automatically_unless_its_client_says_otherwise(user: httpx.AsyncClient) -> None:
    assert (await paid(user))["capture_method"] == "automatic"
    assert (await paid(user, capture_method="automatic"))["capture_method"] == "automatic"
    manual = await paid(user, capture_method="manual")
    assert (manual["capture_method"], manual["status"], manual["amount_authorized"]) == ("manual", "PENDING", 0)


@pytest.mark.parametrize("value", [None, "", "MANUAL", "later", 1, True, ["manual"], {"manual": True}])
async def test_no_other_capture_method_is_taken(user: httpx.AsyncClient, value: Any) -> None:
    answer = await user.post("/payments", json=order(await added(user), capture_method=value))
    assert pointers(answer) == ["/capture_method"]


async def test_a_debit_card_cannot_be_captured_later_added_or_ready_made(user: httpx.AsyncClient) -> None:
    added_debit = await added(user, card("4000056655665556", type="DEBIT_CARD"))
    for method_id in (added_debit, "pm_test_debit"):
        answer = await user.post("/payments", json=order(method_id, capture_method="manual"))
        assert pointers(answer) == ["/capture_method"]
        assert "debit card" in answer.json()["detail"]
        assert (await user.post("/payments", json=order(method_id))).status_code == 202
    for method_id in (await added(user), await added(user, paypal()), "pm_test_visa", "pm_test_paypal"):
        assert (await user.post("/payments", json=order(method_id, capture_method="manual"))).status_code == 202


async def test_a_key_tells_an_automatic_payment_from_a_manual_one(user: httpx.AsyncClient) -> None:
    body, key = order(await added(user)), {"Idempotency-Key": "k"}
    first = await user.post("/payments", json=body, headers=key)
    same = await user.post("/payments", json=body | {"capture_method": "automatic"}, headers=key)
    assert (same.status_code, same.json()["id"]) == (202, first.json()["id"])
    other = await user.post("/payments", json=body | {"capture_method": "manual"}, headers=key)
    problem(other, 422, "idempotency_key_reused")


async def test_an_authorized_payment_shows_what_is_held_and_until_when(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await authorized(user, running_api.database)
    assert payment["status"] == "AUTHORIZED"
    amounts = [payment[f"amount_{name}"] for name in ("authorized", "captured", "refunded", "refundable")]
    assert amounts == [1585, 0, 0, 0]
    assert payment["capture_before"] > payment["updated_at"]
    assert (payment["processed_at"], payment["last_capture_error"], payment["failure_advice"]) == (None, None, None)
