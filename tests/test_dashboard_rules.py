"""Presets and rules on the page of the simulator: made once and whole, undone by their maker, deleted as asked."""

import html
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import batched
from typing import Any

import httpx
import pytest

from shared.ids import new_id
from shared.runtime import Runtime
from shared.simulation.rule_store import add_rule, live_rules
from shared.simulation.rules import LIVE_RULES_MAX, Effect, Match, Outage, Rule
from tests.support.api_client import RunningApi, opened
from tests.support.dashboards import bearer, form_of, pressed, signed_in
from tests.support.scripted_databases import Scripted

pytest_plugins = ["tests.support.api_fixtures"]

KEY = "p" * 43
PRESET = {"preset": "issuer-down", "minutes": "1", "key": KEY}
RULE = {"name": "mine", "outcome": "insufficient_funds", "key": KEY}
NONE_IS_LEFT = "None of the preset's rules is left."


async def admin_of(running_api: RunningApi) -> httpx.AsyncClient:
    return await signed_in(running_api, bearer(running_api))


async def said(browser: httpx.AsyncClient, path: str, fields: dict[str, str]) -> tuple[int, str]:
    """The status and the text with which a form of the rules is answered."""
    answer = await pressed(browser, "/simulator", f"/simulator/rules{path}", **fields)
    return answer.status_code, html.unescape(answer.text)


async def rules_of(running_api: RunningApi) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = (await running_api.admin().get("/simulation/rules")).json()["rules"]
    return rules


async def filled(running_api: RunningApi, count: int) -> None:
    """As many rules that can fire. On a busy machine one transaction would last too long for all of them."""
    for numbers in batched(range(count), 100, strict=False):
        async with running_api.database.transaction() as connection:
            now = await running_api.database.clock.now(connection)
            for number in numbers:
                rule = Rule(
                    id=new_id(), name=f"{number}", match=Match(), effect=Effect(outage=Outage.SLOW), times=None,
                    used=0, expires_at=None, created_by="admin:root", created_at=now,
                )  # fmt: skip
                await add_rule(connection, rule)


async def live_count(running_api: RunningApi) -> int:
    async with running_api.database.read() as connection:
        return len(await live_rules(connection, await running_api.database.clock.now(connection)))


# -- once


@pytest.mark.parametrize("room", [0, 1, 2])
async def test_a_preset_is_created_whole_or_not_at_all(running_api: RunningApi, room: int) -> None:
    await filled(running_api, LIVE_RULES_MAX - room)
    browser = await admin_of(running_api)
    status, text = await said(browser, "/preset", PRESET)
    assert status == (303 if room == 2 else 422)
    assert await live_count(running_api) == (LIVE_RULES_MAX if room == 2 else LIVE_RULES_MAX - room)
    assert (NONE_IS_LEFT in text) == (room < 2)
    if room == 2:
        # The same form again: there is no room any more, and nothing is to be made.
        assert (await said(browser, "/preset", PRESET))[0] == 303
        assert await live_count(running_api) == LIVE_RULES_MAX


async def test_a_preset_that_is_sent_twice_is_created_once(running_api: RunningApi) -> None:
    browser = await admin_of(running_api)
    form = form_of(await browser.get("/simulator"))
    answers = [await browser.post("/simulator/rules/preset", data={"form": form, **PRESET}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [303] * 3
    pages = [await browser.get(answer.headers["location"].removeprefix("/dashboard")) for answer in answers]
    assert ["The rules of the preset hold." in page.text for page in pages] == [True, False, False]
    assert ["This form was sent before." in page.text for page in pages] == [False, True, True]
    assert len(await rules_of(running_api)) == 2


@pytest.mark.parametrize("gone", [0, 1])
async def test_a_form_that_is_sent_again_deletes_no_rule_that_it_made_before(
    running_api: RunningApi, gone: int
) -> None:
    browser = await admin_of(running_api)
    await said(browser, "/preset", PRESET)
    made = sorted(await rules_of(running_api), key=lambda rule: str(rule["id"]))
    await running_api.admin().delete(f"/simulation/rules/{made[gone]['id']}")
    status, text = await said(browser, "/preset", PRESET)
    assert (status, NONE_IS_LEFT in text) == (404, False)
    assert "a rule that it created then was deleted since" in text
    assert "are left as they are" in text
    assert [rule["id"] for rule in await rules_of(running_api)] == [made[1 - gone]["id"]]


async def test_a_preset_of_which_one_rule_was_made_before_is_made_whole(running_api: RunningApi) -> None:
    browser = await admin_of(running_api)
    await said(browser, "/preset", PRESET)
    bodies = [{name: rule[name] for name in ("name", "match", "effect")} for rule in await rules_of(running_api)]
    first = bodies[-1] | {"expires_in_s": 60}
    headers = {"Idempotency-Key": "half-0"}
    (await running_api.admin().post("/simulation/rules", json=first, headers=headers)).raise_for_status()
    assert (await said(browser, "/preset", {**PRESET, "key": "half"}))[0] == 303
    assert len(await rules_of(running_api)) == 4


async def test_a_rule_that_was_made_and_deleted_is_not_made_again(running_api: RunningApi) -> None:
    browser = await admin_of(running_api)
    assert (await said(browser, "", RULE))[0] == 303
    [rule] = await rules_of(running_api)
    await running_api.admin().delete(f"/simulation/rules/{rule['id']}")
    status, text = await said(browser, "", RULE)
    assert (status, "was deleted since" in text) == (404, True)
    assert await rules_of(running_api) == []


# -- whole


async def test_a_preset_that_is_refused_in_its_middle_leaves_no_rule(running_api: RunningApi) -> None:
    # The key of its second rule was used for another one.
    headers = {"Idempotency-Key": f"{KEY}-1"}
    body = {"name": "mine", "effect": {"delay_ms": 1}}
    (await running_api.admin().post("/simulation/rules", json=body, headers=headers)).raise_for_status()
    status, text = await said(await admin_of(running_api), "/preset", PRESET)
    assert (status, NONE_IS_LEFT in text) == (422, False)
    assert "sent before, with other fields" in text
    assert [rule["name"] for rule in await rules_of(running_api)] == ["mine"]


async def test_a_preset_that_is_sent_again_with_other_fields_says_what_is_true(running_api: RunningApi) -> None:
    browser = await admin_of(running_api)
    await said(browser, "/preset", PRESET)
    status, text = await said(browser, "/preset", PRESET | {"minutes": "2"})
    assert (status, "sent before, with other fields" in text) == (422, True)
    assert "are left as they are" in text
    assert len(await rules_of(running_api)) == 2


@asynccontextmanager
async def failing(runtime: Runtime) -> AsyncIterator[tuple[RunningApi, Scripted]]:
    """A running API, and its database, which does as it is told."""
    database = Scripted(runtime.database)
    async with opened(replace(runtime, database=database)) as running_api:
        yield running_api, database


@pytest.mark.parametrize(
    ("script", "left", "says"),
    [
        (["unavailable"], 0, NONE_IS_LEFT),
        (["ok", "unavailable"], 0, NONE_IS_LEFT),
        # It is not known whether the second rule exists; the first one is deleted.
        (["ok", "lost"], 1, "may exist"),
        (["ok", "rolled_back"], 0, "may exist"),
        (["lost"], 1, "may exist"),
        (["ok", "unavailable", "unavailable"], 1, "may exist"),
        (["ok", "unavailable", "lost"], 0, "may exist"),
    ],
)
async def test_a_busy_database_is_503_and_what_is_said_of_the_rules_is_true(
    runtime: Runtime, script: list[str], left: int, says: str
) -> None:
    async with failing(runtime) as (running_api, database):
        browser = await admin_of(running_api)
        form = form_of(await browser.get("/simulator"))
        database.script = list(script)
        answer = await browser.post("/simulator/rules/preset", data={"form": form, **PRESET})
        assert database.script == []
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert says in html.unescape(answer.text)
        assert len(await rules_of(running_api)) == left


# -- deleted


@pytest.mark.parametrize(
    "fields",
    [{}, {"rule_id": ""}, {"rule_id": " "}, {"all": ""}, {"all": "0"}, {"all": "yes"}, {"rule": "x"},
     {"all": "1", "rule_id": "01a22091-c2a7-77ae-9f71-cd99da4190aa"}],
)  # fmt: skip
async def test_no_rule_is_deleted_by_a_form_that_does_not_say_which(
    running_api: RunningApi, fields: dict[str, str]
) -> None:
    browser = await admin_of(running_api)
    await said(browser, "/preset", PRESET)
    status, text = await said(browser, "/delete", fields)
    assert (status, "No rule was deleted" in text) == (422, True)
    assert len(await rules_of(running_api)) == 2
    service = await signed_in(running_api, bearer(running_api, "service", "shop"))
    status, text = await said(service, "/delete", fields)
    assert (status, "rule_id" in text) == (403, False)


async def test_all_rules_are_deleted_by_the_button_that_says_so(running_api: RunningApi) -> None:
    browser = await admin_of(running_api)
    await said(browser, "/preset", PRESET)
    assert (
        '<button class="danger" name="all" value="1">Delete all rules</button>'
        in (await browser.get("/simulator")).text
    )
    answer = await pressed(browser, "/simulator", "/simulator/rules/delete", all="1")
    assert "All rules are deleted" in (await browser.get(answer.headers["location"].removeprefix("/dashboard"))).text
    assert await rules_of(running_api) == []
