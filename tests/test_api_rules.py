"""Rules over HTTP: creating, listing, deleting and testing them."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import insert
from structlog.testing import capture_logs

from api.schemas.rule_tests import RuleTestResult
from api.schemas.simulation_rules import Rule, RuleList
from shared.broker.heartbeats import WorkerStatus, send_heartbeat
from shared.config.settings import Settings
from shared.database.simulation_tables import simulation_rules
from shared.ids import new_id
from shared.runtime import Runtime, open_runtime
from shared.simulation.rule_store import live_rules
from shared.simulation.rules import LIVE_RULES_MAX
from tests.support.api_client import RunningApi, added, card, opened, pointers, problem
from tests.support.models import strict
from tests.support.rules import NOW
from tests.support.sentences import check_sentences

pytest_plugins = ["tests.support.api_fixtures"]

RULES = "/simulation/rules"
DECLINES: dict[str, Any] = {"name": "declines", "effect": {"outcomes": ["card_declined"]}}
OUTAGE: dict[str, Any] = {"name": "away", "effect": {"outage": "unavailable"}, "expires_in_s": 300}
EVERYTHING: dict[str, Any] = {
    "user_id": "1",
    "order_id": "shop-*",
    "method_type": "CREDIT_CARD",
    "brand": "visa",
    "last4": "4242",
    "currency": "USD",
    "amount": {"min": 1, "max": 2000},
    "metadata": {"channel": "web"},
    "gateway": "stripe_mock",
    "operation": "charge",
    "percent": 12.5,
}
IDEMPOTENT = {"Idempotency-Key": "k"}
INTENT: dict[str, Any] = {"order_id": "shop-7", "payment_method_id": "pm_test_visa", "amount": 1585}


async def created(admin: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await admin.post(RULES, json={**DECLINES, **body})
    assert answer.status_code == 201, answer.text
    rule: dict[str, Any] = answer.json()
    strict(Rule).model_validate(rule)
    return rule


# -- creating and reading


async def test_a_rule_is_shown_as_it_was_created(admin: httpx.AsyncClient) -> None:
    body = {
        "name": "all of it",
        "match": EVERYTHING,
        "effect": {"outcomes": ["network_error", "approve"], "delay_ms": {"min": 5, "max": 500}},
        "times": 3,
        "expires_in_s": 60,
    }
    rule = await created(admin, **body)
    assert {name: rule[name] for name in ("name", "match", "effect", "times")} == {
        name: body[name] for name in ("name", "match", "effect", "times")
    }
    assert (rule["used"], rule["state"], rule["state_reason"], rule["created_by"]) == (0, "active", None, "admin:root")
    assert rule["expires_at"] > rule["created_at"]
    assert (await admin.get(f"{RULES}/{rule['id']}")).json() == rule
    answer = await admin.get(RULES)
    strict(RuleList).model_validate(answer.json())
    assert answer.json()["rules"] == [rule]


@pytest.mark.parametrize(
    ("match", "shown"),
    [
        ({"amount": 500}, {"amount": 500}),
        ({"amount": {"min": 500}}, {"amount": {"min": 500}}),
        ({"amount": {"max": 500}}, {"amount": {"max": 500}}),
        ({"metadata.channel": "web"}, {"metadata": {"channel": "web"}}),
        ({"metadata.a": "1", "metadata": {"b": "2"}}, {"metadata": {"a": "1", "b": "2"}}),
        ({"order_id": 1042}, {"order_id": "1042"}),
        ({"user_id": 7}, {"user_id": "7"}),
        ({"percent": 100}, {"percent": 100}),
        ({"brand": None}, {}),
    ],
)
async def test_a_match_may_be_written_in_several_ways(
    admin: httpx.AsyncClient, match: dict[str, Any], shown: dict[str, Any]
) -> None:
    assert (await created(admin, match=match))["match"] == shown


async def test_a_rule_without_times_counts_nothing(admin: httpx.AsyncClient) -> None:
    rule = await created(admin)
    assert (rule["times"], rule["used"], rule["expires_at"], rule["match"]) == (None, None, None, {})


async def test_rules_are_listed_page_by_page_the_newest_first(admin: httpx.AsyncClient) -> None:
    ids = [(await created(admin))["id"] for _ in range(3)]
    first = (await admin.get(f"{RULES}?limit=2")).json()
    assert [rule["id"] for rule in first["rules"]] == ids[:0:-1]
    second = (await admin.get(RULES, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert ([rule["id"] for rule in second["rules"]], second["next_cursor"]) == (ids[:1], None)


async def test_a_rule_that_cannot_fire_any_more_says_why(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    facts = {"match": {}, "effect": {"outage": "slow"}, "created_by": "admin:root", "created_at": NOW}
    facts |= {"deleted_at": None, "used_up_at": None}
    rows = [
        facts | {"id": new_id(), "name": "old", "times": None, "used": 0, "expires_at": NOW - timedelta(hours=1)},
        facts | {"id": new_id(), "name": "used", "times": 2, "used": 2, "expires_at": None},
    ]
    async with running_api.database.transaction() as connection:
        await connection.execute(insert(simulation_rules), rows)
    used_up, expired = (await admin.get(RULES)).json()["rules"]
    assert (used_up["state"], used_up["state_reason"]) == ("used_up", "It has fired 2 of 2 times.")
    assert expired["state"] == "expired"
    assert expired["state_reason"].startswith("It expired at 20")
    check_sentences(expired["state_reason"])


async def test_a_repeat_creates_no_second_rule(admin: httpx.AsyncClient) -> None:
    first = await admin.post(RULES, json=DECLINES, headers=IDEMPOTENT)
    again = await admin.post(RULES, json=DECLINES, headers=IDEMPOTENT)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.json() == first.json()
    assert len((await admin.get(RULES)).json()["rules"]) == 1
    problem(await admin.post(RULES, json=OUTAGE, headers=IDEMPOTENT), 422, "idempotency_key_reused")


async def test_more_rules_than_allowed_are_refused(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    facts = {"name": "n", "match": {}, "effect": {"outage": "slow"}, "created_by": "admin:root", "created_at": NOW}
    facts |= {"times": None, "used": 0, "expires_at": None, "used_up_at": None, "deleted_at": None}
    rows = [facts | {"id": new_id()} for _ in range(LIVE_RULES_MAX - 1)]
    async with running_api.database.transaction() as connection:
        await connection.execute(insert(simulation_rules), rows)
    last = await created(admin)
    refused = problem(await admin.post(RULES, json=DECLINES), 422, "simulation_rule_limit")
    assert "1,000" in refused["detail"]
    await admin.delete(f"{RULES}/{last['id']}")
    await created(admin)


# -- what is no rule


@pytest.mark.parametrize(
    ("change", "places"),
    [
        ({"name": ""}, ["/name"]),
        ({"name": "x" * 101}, ["/name"]),
        ({"name": "a\nb"}, ["/name"]),
        ({"times": 0}, ["/times"]),
        ({"times": 1_000_001}, ["/times"]),
        ({"times": 1.5}, ["/times"]),
        ({"expires_in_s": 0}, ["/expires_in_s"]),
        ({"expires_in_s": 86_401}, ["/expires_in_s"]),
        ({"match": {"user_id": ""}}, ["/match/user_id"]),
        ({"match": {"order_id": "*a"}}, ["/match/order_id"]),
        ({"match": {"order_id": "*"}}, ["/match/order_id"]),
        ({"match": {"method_type": "CASH"}}, ["/match/method_type"]),
        ({"match": {"brand": "maestro"}}, ["/match/brand"]),
        ({"match": {"last4": "12345"}}, ["/match/last4"]),
        ({"match": {"currency": "usd"}}, ["/match/currency"]),
        ({"match": {"amount": 0}}, ["/match/amount"]),
        ({"match": {"amount": "5"}}, ["/match/amount"]),
        ({"match": {"amount": True}}, ["/match/amount"]),
        ({"match": {"amount": {}}}, ["/match/amount"]),
        ({"match": {"amount": {"min": 2, "max": 1}}}, ["/match/amount"]),
        ({"match": {"amount": {"min": 0, "most": 1}}}, ["/match/amount/min", "/match/amount/most"]),
        ({"match": {"metadata.": "x"}}, ["/match/metadata."]),
        ({"match": {"metadata.a": 1}}, ["/match/metadata.a"]),
        ({"match": {"metadata.a/b": "x" * 501, "metadata": {"c": 1}}}, ["/match/metadata/c", "/match/metadata.a~1b"]),
        ({"match": {"metadata." + "k" * 41: "x", "brand": "none"}}, ["/match/brand", "/match/metadata." + "k" * 41]),
        ({"match": {"metadata": "x", "metadata.a": "1"}}, ["/match/metadata", "/match/metadata.a"]),
        ({"match": {"metadata": {"a": "1", "b": "1"}, "metadata.a": "2", "metadata.b": "1"}}, ["/match/metadata.a"]),
        ({"match": {"gateway": "stripe"}}, ["/match/gateway"]),
        ({"match": {"operation": "void"}}, ["/match/operation"]),
        ({"match": {"percent": 0}}, ["/match/percent"]),
        ({"match": {"percent": 100.5}}, ["/match/percent"]),
        ({"match": {"percent": "5"}}, ["/match/percent"]),
        ({"match": {"colour": "red"}}, ["/match/colour"]),
        ({"match": {"method_type": "PAYPAL", "brand": "visa"}}, ["/match"]),
        ({"match": "all"}, ["/match"]),
        ({"effect": {}}, ["/effect"]),
        ({"effect": {"outage": "slow", "delay_ms": 5}, "expires_in_s": 9}, ["/effect"]),
        ({"effect": {"outage": "fire"}}, ["/effect/outage"]),
        ({"effect": {"outage": "slow"}}, ["/expires_in_s"]),
        ({"effect": {"outcomes": []}}, ["/effect/outcomes"]),
        ({"effect": {"outcomes": ["approve"] * 21}}, ["/effect/outcomes"]),
        ({"effect": {"outcomes": ["approve", "order_not_found"]}}, ["/effect/outcomes/1"]),
        ({"effect": {"outcomes": ["lost_card", "refund_declined"]}}, ["/effect/outcomes"]),
        (
            {"match": {"operation": "refund"}, "effect": {"outcomes": ["approve", "lost_card"]}},
            ["/effect/outcomes/1"],
        ),
        ({"effect": {"delay_ms": -1}}, ["/effect/delay_ms"]),
        # 10 s less than LEASE_S.
        ({"effect": {"delay_ms": 20_001}}, ["/effect/delay_ms"]),
        ({"effect": {"delay_ms": {"min": 1}}}, ["/effect/delay_ms/max"]),
        ({"effect": {"delay_ms": {"min": 2, "max": 1}}}, ["/effect/delay_ms"]),
        ({"effect": {"delay_ms": {"min": 0, "max": 20_001}}}, ["/effect/delay_ms/max"]),
        (
            {"name": 1, "match": {"brand": 1}, "effect": {"outage": "slow"}, "times": 0, "x": 1},
            ["/name", "/match/brand", "/times", "/expires_in_s", "/x"],
        ),
    ],
)
async def test_what_is_no_rule_is_422_and_every_wrong_member_is_named(
    admin: httpx.AsyncClient, change: dict[str, Any], places: list[str]
) -> None:
    answer = await admin.post(RULES, json={**DECLINES, **change})
    assert pointers(answer) == places
    for error in answer.json()["errors"]:
        check_sentences(error["detail"])
    assert (await admin.get(RULES)).json()["rules"] == []


# -- deleting


async def test_a_deleted_rule_is_gone(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    kept, gone = await created(admin), await created(admin)
    assert (await admin.delete(f"{RULES}/{gone['id']}")).status_code == 204
    problem(await admin.get(f"{RULES}/{gone['id']}"), 404, "not_found")
    problem(await admin.delete(f"{RULES}/{gone['id']}"), 404, "not_found")
    assert [rule["id"] for rule in (await admin.get(RULES)).json()["rules"]] == [kept["id"]]
    assert (await admin.delete(RULES)).status_code == 204
    assert (await admin.delete(RULES)).status_code == 204
    assert (await admin.get(RULES)).json()["rules"] == []
    async with running_api.database.read() as connection:
        assert await live_rules(connection, NOW) == []


async def test_who_changes_rules_is_logged_with_what_was_changed(admin: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        rule = await created(admin, match={"user_id": "1"}, times=2)
        await admin.delete(f"{RULES}/{rule['id']}")
        await admin.delete(RULES)
    audited = [line for line in logs if line["event"].startswith("simulation_rule")]
    assert [line["event"] for line in audited] == [
        "simulation_rule.created", "simulation_rule.deleted", "simulation_rules.deleted",
    ]  # fmt: skip
    assert {line["by"] for line in audited} == {"admin:root"}
    assert (audited[0]["rule_id"], audited[0]["match"], audited[0]["times"]) == (rule["id"], {"user_id": "1"}, 2)


# -- where there are no rules


async def test_where_simulation_is_off_rules_are_refused(settings: Settings) -> None:
    runtime = open_runtime(settings.model_copy(update={"simulation": "off"}))
    async with opened(runtime) as running_api:
        admin = running_api.admin()
        answers = [
            await admin.post(RULES, json=DECLINES),
            await admin.get(RULES),
            await admin.delete(RULES),
            await admin.get(f"{RULES}/{new_id()}"),
            await admin.delete(f"{RULES}/{new_id()}"),
            await admin.post(f"{RULES}/test", json=INTENT),
        ]
    await runtime.close()
    for answer in answers:
        problem(answer, 403, "simulation_disabled")


async def test_while_a_worker_of_0_1_is_alive_no_rule_is_created(runtime: Runtime, running_api: RunningApi) -> None:
    await created(running_api.admin())
    old = WorkerStatus(worker="old", slots=1, in_gateway=0, sending=0, settled=0, settled_per_s=0.0, uptime_s=1.0)
    await send_heartbeat(runtime.broker, old)
    async with opened(runtime) as beside:
        admin = beside.admin()
        refused = problem(await admin.post(RULES, json=DECLINES), 503, "unavailable")
        assert "does not know rules" in refused["detail"]
        assert len((await admin.get(RULES)).json()["rules"]) == 1
        assert (await admin.delete(RULES)).status_code == 204


# -- testing


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
