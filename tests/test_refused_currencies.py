"""Codes that ISO 4217 has and nobody is paid in: the refusal does not say that they are none of its codes."""

import httpx
import pytest

from tests.support.api_client import added, order, problem

pytest_plugins = ["tests.support.api_fixtures"]
# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

REASON = "must be a currency that payments are made in: an ISO 4217 code in upper case, such as USD"
# A unit of account, a metal and no currency.
ACTIVE_CODES = ["CLF", "XAU", "XXX"]


def assert_refuses(answer: httpx.Response, pointer: str) -> None:
    """Check that the answer refuses the currency at `pointer`, and nothing else."""
    errors = problem(answer, 422, "validation_error")["errors"]
    assert errors == [{"pointer": pointer, "detail": f'"currency" {REASON}.'}]


@pytest.mark.parametrize("code", [*ACTIVE_CODES, "usd", "ABC", ""])
async def test_a_payment_in_what_nobody_is_paid_in_is_refused_in_these_words(
    user: httpx.AsyncClient, code: str
) -> None:
    method_id = await added(user)
    assert_refuses(await user.post("/payments", json=order(method_id, currency=code)), "/currency")
    assert (await user.get("/payments")).json()["payments"] == []


@pytest.mark.parametrize("code", ACTIVE_CODES)
async def test_a_rule_for_what_nobody_is_paid_in_is_refused_in_the_same_words(
    admin: httpx.AsyncClient, code: str
) -> None:
    rule = {"name": "never", "match": {"currency": code}, "effect": {"outcomes": ["approve"]}}
    assert_refuses(await admin.post("/simulation/rules", json=rule), "/match/currency")
