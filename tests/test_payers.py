"""Who may pay over HTTP: a user with a method of their own, and services and admins for that user."""

import httpx
import pytest

from shared.ids import new_id
from tests.support.api_client import RunningApi, accepted, added, order, paid, problem
from tests.support.settling import claimed
from tests.support.stored import row_counts

pytest_plugins = ["tests.support.api_fixtures"]


# -- with which method


UNUSABLE = '"payment_method_id" must be an active payment method of the user that has not expired.'


async def test_a_method_must_be_the_payers_own_and_in_use(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    gone = await added(user)
    assert (await user.delete(f"/payment-methods/{gone}")).status_code == 204
    foreign = await added(running_api.user(2))
    for method_id in (gone, foreign, str(new_id()), "pm_1", "00000000-0000-0000-0000-000000000000"):
        answer = await user.post("/payments", json=order(method_id))
        body = problem(answer, 422, "payment_method_unusable")
        assert body["detail"] == "This user has no such payment method. Choose or add another one."
        assert body["errors"] == [{"pointer": "/payment_method_id", "detail": UNUSABLE}]
    assert "payments" not in await row_counts(running_api.database)


async def test_what_becomes_of_the_method_later_does_not_touch_the_payment(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await paid(user)
    await user.delete(f"/payment-methods/{payment['payment_method_id']}")
    assert (await user.get(f"/payments/{payment['id']}")).json() == payment
    claim = await claimed(running_api.database, payment["id"])
    details = claim.method["details"]
    assert claim.method == {"type": "CREDIT_CARD", "details": details, "scenario": None, "is_approved": True}
    assert claim.method["details"]["last4"] == "4242"


# -- for whom


async def test_a_user_pays_for_nobody_else_not_even_under_their_own_name(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    method_id = await added(user)
    for user_id in (2, "2", 1, "1"):
        problem(await user.post("/payments", json=order(method_id, user_id=user_id)), 403, "forbidden")
    assert "payments" not in await row_counts(running_api.database)


@pytest.mark.parametrize("role", ["service", "admin", "payment_admin", "super_admin"])
async def test_services_and_admins_pay_for_a_user_with_that_users_method(running_api: RunningApi, role: str) -> None:
    asker, payer = running_api.user("shop", role=role), running_api.user(7)
    method_id = await added(payer)
    payment = await accepted(asker, order(method_id, user_id=7))
    assert payment["user_id"] == "7"
    assert (await payer.get(f"/payments/{payment['id']}")).json() == payment
    own = await added(asker)
    problem(await asker.post("/payments", json=order(own, user_id="7")), 422, "payment_method_unusable")
    problem(await asker.post("/payments", json=order(method_id)), 422, "payment_method_unusable")
    assert (await accepted(asker, order(own)))["user_id"] == "shop"
