"""Rules over HTTP: created, listed and deleted, by whom, and where there are none."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import insert
from structlog.testing import capture_logs

from api.schemas.simulation_rules import RuleList
from shared.broker.heartbeats import WorkerStatus, send_heartbeat
from shared.config.settings import Settings
from shared.database.simulation_tables import simulation_rules
from shared.ids import new_id
from shared.runtime import Runtime, open_runtime
from shared.simulation.rule_store import live_rules
from shared.simulation.rules import LIVE_RULES_MAX
from tests.support.api_client import RunningApi, opened, problem
from tests.support.api_rules import DECLINES, INTENT, RULES, created
from tests.support.models import strict
from tests.support.rules import NOW
from tests.support.sentences import check_sentences

pytest_plugins = ["tests.support.api_fixtures"]

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
