"""`payments simulate`: rules and presets, from the command line to a running API."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx
import pytest
import typer
from typer.testing import CliRunner

from cli.main import app
from cli.options import duration
from cli.simulate import rules
from cli.simulate.rule_bodies import bounds
from cli.simulate.rules import EXPIRES_IN_S_MAX, PAGE_MAX, TIMES_MAX
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.lifecycle import MethodType
from shared.runtime import Runtime
from shared.simulation import rules as limits
from shared.simulation.calls import CallOperation
from shared.simulation.gateways import GatewayName
from tests.support.api_client import served
from tests.support.processes import environment_of
from tests.support.rules import rule, stored
from tests.support.servers import free_port

ROOT = Path(__file__).resolve().parent.parent
CODE = "import sys; from cli.main import app; app(sys.argv[1:])"

pytest_plugins = ["tests.support.api_fixtures"]


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind."""

    code: int
    output: str
    messages: str


@dataclass(frozen=True, slots=True)
class Commands:
    """`payments simulate` for a running API, and a client of it."""

    settings: Settings
    url: str
    admin: httpx.AsyncClient

    async def run(self, *arguments: str, given: str = "") -> Done:
        """Run a command in a process of its own: what the API writes is no part of its output."""
        line = [sys.executable, "-c", CODE, "simulate", "--url", self.url, *arguments]
        environment = {**os.environ, **environment_of(self.settings), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        process = await asyncio.create_subprocess_exec(
            *line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        output, messages = await process.communicate(given.encode())
        assert process.returncode is not None
        return Done(process.returncode, output.decode(), messages.decode())

    async def rules(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.admin.get("/simulation/rules")).json()["rules"]
        return found


@pytest.fixture
async def commands(runtime: Runtime) -> AsyncIterator[Commands]:
    async with served(runtime) as running_api:
        yield Commands(runtime.settings, running_api.url, running_api.admin())


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["outage"], [("outage: unavailable", {}, {"outage": "unavailable"})]),
        (["outage", "--kind", "timeout", "--for", "90s"], [("outage: timeout", {}, {"outage": "timeout"})]),
        (["slow-gateway", "--for", "1h"], [("slow gateway", {}, {"outage": "slow"})]),
        (
            ["issuer-down"],
            [
                (f"issuer down: {card}", {"method_type": card}, {"outcomes": ["processing_error"]})
                for card in ("DEBIT_CARD", "CREDIT_CARD")
            ],
        ),
        (
            ["3ds-abandon", "--for", "10m"],
            [
                (f"3-D Secure abandoned: {card}", {"method_type": card}, {"outcomes": ["authentication_required"]})
                for card in ("DEBIT_CARD", "CREDIT_CARD")
            ],
        ),
    ],
)
async def test_a_preset_makes_its_rules(
    commands: Commands, arguments: list[str], wanted: list[tuple[str, dict[str, Any], dict[str, Any]]]
) -> None:
    done = await commands.run(*arguments)
    assert done.code == 0, done.messages
    made = await commands.rules()
    assert [(rule["name"], rule["match"], rule["effect"]) for rule in made] == wanted
    assert done.output.split() == [rule["id"] for rule in reversed(made)]
    assert {rule["created_by"] for rule in made} == {"admin:cli"}
    assert all(rule["expires_at"] and rule["expires_at"] in done.messages for rule in made)


async def test_a_rule_is_added_listed_shown_tested_and_deleted(commands: Commands) -> None:
    options = ["--name", "no funds", "--outcome", "network_error", "--outcome", "insufficient_funds"]
    options += ["--brand", "visa", "--amount", "1000..", "--metadata", "channel=web", "--metadata", "a=b=c"]
    options += ["--delay-ms", "5..50", "--times", "2", "--for", "5m", "--percent", "100", "--order", "10*"]
    done = await commands.run("rules", "add", *options)
    assert done.code == 0, done.messages
    [added] = await commands.rules()
    assert added["match"] == {
        "order_id": "10*",
        "brand": "visa",
        "amount": {"min": 1000},
        "metadata": {"channel": "web", "a": "b=c"},
        "percent": 100,
    }
    assert added["effect"] == {
        "outcomes": ["network_error", "insufficient_funds"],
        "delay_ms": {"min": 5, "max": 50},
    }
    listed = (await commands.run("rules", "list")).output
    assert "no funds" in listed
    assert "0 of 2" in listed
    assert json.loads((await commands.run("rules", "show", added["id"])).output) == added
    matched = ["rules", "test", "--metadata", "channel=web", "--metadata", "a=b=c", "--call", "2"]
    told = (await commands.run(*matched)).output
    assert told.splitlines()[0] == "Call 2 of the charge ends with: insufficient_funds"
    assert f'The rule "no funds" ({added["id"]}) fires.' in told
    told = (await commands.run("rules", "test", "--amount", "999")).output
    assert '"amount" is 999; the rule wants 1000 or more.' in told
    assert json.loads((await commands.run("rules", "test", "--json")).output)["rule"] is None
    assert (await commands.run("rules", "delete", added["id"])).code == 0
    assert await commands.rules() == []


async def test_a_rule_is_read_as_json(commands: Commands, tmp_path: Path) -> None:
    body = {"name": "all", "effect": {"outage": "slow"}, "expires_in_s": 5}
    file = tmp_path / "rule.json"
    file.write_text(json.dumps(body))
    assert (await commands.run("rules", "add", "--json", str(file))).code == 0
    assert (await commands.run("rules", "add", "--json", "-", given=json.dumps(body))).code == 0
    assert [rule["name"] for rule in await commands.rules()] == ["all", "all"]
    for wrong in (str(tmp_path / "none.json"), str(tmp_path)):
        assert (await commands.run("rules", "add", "--json", wrong)).code == 2
    done = await commands.run("rules", "clear")
    assert (done.code, await commands.rules()) == (0, [])


async def test_all_pages_are_listed(commands: Commands, database: Database) -> None:
    await stored(database, *(rule(name=f"rule-{number}.") for number in range(PAGE_MAX + 1)))
    listed = (await commands.run("rules", "list")).output
    assert all(f"rule-{number}." in listed for number in range(PAGE_MAX + 1))


async def test_what_the_service_refuses_is_said_with_the_member(commands: Commands) -> None:
    done = await commands.run("rules", "add", "--outcome", "lost_card", "--operation", "refund")
    assert done.code == 1
    assert "(/effect/outcomes/0)" in done.messages
    done = await commands.run("rules", "add", "--outage", "slow")
    assert '"expires_in_s" is required with an outage' in done.messages
    done = await commands.run("rules", "show", "01a21e56-d069-72e6-9f2c-44be0a381c81")
    assert (done.code, done.messages) == (1, "There is no such resource, or you may not see it.\n")


async def test_a_token_that_is_none_is_refused(commands: Commands) -> None:
    done = await commands.run("--token", "x", "outage")
    assert (done.code, "The bearer token is missing or not valid." in done.messages) == (1, True)


def test_where_no_service_answers_the_command_says_what_to_do(settings: Settings) -> None:
    environment = environment_of(settings) | {"PORT": str(free_port())}
    done = CliRunner().invoke(app, ["simulate", "outage"], env=environment)
    assert done.exit_code == 1
    assert f"No service answers at http://127.0.0.1:{environment['PORT']}" in done.stderr
    assert "payments up" in done.stderr
    without_scheme = CliRunner().invoke(app, ["simulate", "--url", "nowhere", "outage"], env=environment)
    assert "No service answers at nowhere: " in without_scheme.stderr
    assert ".." not in without_scheme.stderr


def test_ranges_and_times_are_read_and_others_refused_in_a_sentence() -> None:
    assert [bounds(text) for text in ("5", "5..9", "5..", "..9")] == [
        5, {"min": 5, "max": 9}, {"min": 5}, {"max": 9},
    ]  # fmt: skip
    for text in ("", "..", "x", "-1", "1...2", "1.5", "9" * 40):
        with pytest.raises(typer.BadParameter, match="is not a number such as 500"):
            bounds(text)
    read = duration(EXPIRES_IN_S_MAX)
    assert [read(text) for text in ("1", "90s", "5m", "24h")] == [1, 90, 300, 86_400]
    for text in ("", "0", "25h", "5d", "-1s", "m", "1.5h"):
        with pytest.raises(typer.BadParameter, match="is not a time such as 90s"):
            read(text)


def test_the_command_knows_the_limits_of_the_service() -> None:
    assert (EXPIRES_IN_S_MAX, TIMES_MAX) == (limits.EXPIRES_IN_S_MAX, limits.TIMES_MAX)
    assert set(get_args(rules.MethodType)) == set(MethodType)
    assert set(get_args(rules.Operation)) == set(CallOperation)
    hints = get_type_hints(rules.add)
    assert set(get_args(get_args(hints["outage"])[0])) == set(limits.Outage)
    assert set(get_args(get_args(hints["gateway"])[0])) == set(GatewayName)
