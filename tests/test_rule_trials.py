"""Rules that are tested over HTTP: which one would fire, why the others would not, and what would be drawn."""

from typing import Any

import httpx

from api.schemas.rule_tests import RuleTestResult
from shared.config.settings import Settings
from shared.ids import new_id
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, added, card, opened, pointers, problem
from tests.support.api_rules import DECLINES, INTENT, RULES, created
from tests.support.models import strict

pytest_plugins = ["tests.support.api_fixtures"]


async def tested(admin: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await admin.post(f"{RULES}/test", json={**INTENT, **body})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    strict(RuleTestResult).model_validate(result)
    return result


async def test_the_test_says_which_rule_fires_and_why_the_others_do_not(admin: httpx.AsyncClient) -> None:
    older = await created(admin, name="older")
    firing = await created(admin, name="firing", effect={"outcomes": ["lost_card"], "delay_ms": 70})
    euros = await created(admin, name="euros", match={"currency": "EUR", "metadata.channel": "web"})
    result = await tested(admin)
    assert result == {
        "operation": "charge",
        "call_number": 1,
        "decided_by": f"rule:{firing['id']}",
        "outcome": "lost_card",
        "requires_action": False,
        "delay_ms": 70,
        "pace": "drawn",
        "rule": {"id": firing["id"], "name": "firing"},
        "other_rules": [
            {
                "id": euros["id"],
                "name": "euros",
                "state": "active",
                "reasons": [
                    '"currency" is "USD"; the rule wants "EUR".',
                    '"metadata.channel" is absent; the rule wants "web".',
                ],
            },
            {
                "id": older["id"],
                "name": "older",
                "state": "active",
                "reasons": [f'A newer rule fires: "firing" ({firing["id"]}).'],
            },
        ],
        "is_repeatable": True,
    }
    assert (await admin.get(f"{RULES}/{firing['id']}")).json()["used"] is None


async def test_the_request_decides_before_the_rules_and_they_before_the_test_value(admin: httpx.AsyncClient) -> None:
    declined = {"payment_method_id": "pm_test_lost_card"}
    result = await tested(admin, **declined)
    assert (result["decided_by"], result["outcome"], result["rule"]) == ("card", "lost_card", None)
    rule = await created(admin, effect={"outcomes": ["network_error", "approve"]})
    result = await tested(admin, **declined)
    assert (result["decided_by"], result["outcome"]) == (f"rule:{rule['id']}", "network_error")
    assert (await tested(admin, **declined, call_number=7))["outcome"] == "approve"
    result = await tested(admin, **declined, simulation={"outcomes": ["stolen_card"]})
    assert (result["decided_by"], result["outcome"], result["rule"]) == ("request", "stolen_card", None)
    assert result["other_rules"][0]["reasons"] == ["The request's own simulation decides."]


async def test_the_call_may_be_one_of_any_operation(admin: httpx.AsyncClient) -> None:
    await created(admin, match={"operation": "refund"}, effect={"outcomes": ["refund_declined"]})
    assert (await tested(admin, operation="refund"))["outcome"] == "refund_declined"
    assert (await tested(admin, operation="capture"))["outcome"] == "approve"
    assert (await tested(admin, capture_method="manual"))["operation"] == "authorize"
    of_paypal = await tested(admin, payment_method_id="pm_test_paypal", return_url="https://shop.example/")
    assert (of_paypal["decided_by"], of_paypal["requires_action"]) == ("address", True)


async def test_the_method_may_be_one_of_a_user_or_be_described(
    running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    await created(admin, match={"brand": "mastercard", "last4": "4444"})
    method_id = await added(running_api.user(3), card(card_number="5555555555554444"))
    no_name = {"payment_method_id": None}
    assert (await tested(admin, payment_method_id=method_id))["outcome"] == "card_declined"
    facts = {"type": "CREDIT_CARD", "brand": "mastercard", "last4": "4444"}
    assert (await tested(admin, **no_name, payment_method=facts))["outcome"] == "card_declined"
    result = await tested(admin, **no_name, payment_method={"type": "PAYPAL"})
    assert result["other_rules"][0]["reasons"][0] == '"brand" is absent; the rule wants "mastercard".'
    unknown = await admin.post(f"{RULES}/test", json={**INTENT, "payment_method_id": str(new_id())})
    problem(unknown, 422, "payment_method_unusable")
    for wrong in (no_name, {"payment_method": facts}):
        assert pointers(await admin.post(f"{RULES}/test", json={**INTENT, **wrong})) == ["/payment_method"]


async def test_a_debit_card_is_not_captured_later_in_a_test_either(admin: httpx.AsyncClient) -> None:
    for method in ({"payment_method_id": "pm_test_debit"}, {"payment_method": {"type": "DEBIT_CARD"}}):
        body = {**INTENT, "payment_method_id": None, **method, "capture_method": "manual"}
        assert pointers(await admin.post(f"{RULES}/test", json=body)) == ["/capture_method"]


async def test_a_part_may_be_smaller_than_a_payment(admin: httpx.AsyncClient) -> None:
    for operation in ("capture", "refund"):
        assert (await tested(admin, amount=1, operation=operation))["outcome"] == "approve"
    for wrong in ({}, {"operation": "charge"}, {"capture_method": "manual"}, {"operation": "refund", "amount": 0}):
        assert pointers(await admin.post(f"{RULES}/test", json={**INTENT, "amount": 49, **wrong})) == ["/amount"]
    of_paypal = {"payment_method_id": None, "payment_method": {"type": "PAYPAL", "last4": "4242"}}
    assert pointers(await admin.post(f"{RULES}/test", json={**INTENT, **of_paypal})) == ["/payment_method"]


async def test_a_delay_names_both_of_its_bounds(admin: httpx.AsyncClient) -> None:
    answer = await admin.post(RULES, json={**DECLINES, "effect": {"delay_ms": 1.5}})
    sentence = problem(answer, 422, "validation_error")["errors"][0]["detail"]
    assert sentence == '"delay_ms" must be an integer, or an object with min and max.'


async def test_a_percentage_is_drawn_as_for_the_payment(admin: httpx.AsyncClient) -> None:
    await created(admin, match={"percent": 50})
    results = {order: await tested(admin, order_id=order) for order in map(str, range(20))}
    assert {result["rule"] is None for result in results.values()} == {True, False}
    assert results == {order: await tested(admin, order_id=order) for order in results}
    silent = next(result for result in results.values() if result["rule"] is None)
    assert silent["other_rules"][0]["reasons"][0].startswith('"percent" is 50; the number drawn for this charge is ')


async def test_without_a_seed_the_test_says_that_its_draws_are_its_own(settings: Settings) -> None:
    runtime = open_runtime(settings.model_copy(update={"simulator_seed": None}))
    async with opened(runtime) as running_api:
        assert not (await tested(running_api.admin()))["is_repeatable"]
    await runtime.close()


async def test_the_path_of_the_test_is_no_rule(admin: httpx.AsyncClient) -> None:
    refused = await admin.options("/simulation/rules/test")
    problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"
    assert (await admin.options(f"/simulation/rules/{new_id()}")).headers["allow"] == "GET, HEAD, DELETE"
