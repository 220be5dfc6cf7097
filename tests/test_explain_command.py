"""`payments explain ID`: what is printed, and what is said of a payment that is not there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config.settings import Settings
from shared.ids import new_id
from tests.support.api_client import opened_with, order
from tests.test_command_line import run

type MakeSettings = Callable[..., Settings]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_an_explanation_is_printed_for_people_and_for_programs(
    make_settings: MakeSettings, database_url: str, tmp_path: Path
) -> None:
    settings = make_settings(simulation="on")
    async with opened_with(settings) as running_api:
        payment = (await running_api.user().post("/payments", json=order("pm_test_visa"))).json()
    environment = {"DATABASE_URL": database_url, "SIMULATOR_SEED": "tests"}
    printed = run("explain", payment["id"], folder=tmp_path, **environment)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.startswith("In short\n  The payment of 15.85 USD for the order o-")
    assert max(len(line) for line in printed.stdout.splitlines() if not line.startswith("curl")) <= 100
    commands = [line for line in printed.stdout.splitlines() if line.startswith("curl")]
    shown = json.loads(run("explain", payment["id"], "--json", folder=tmp_path, **environment).stdout)
    assert commands == [request["curl"] for request in shown["again"]["requests"]]
    assert (shown["payment_id"], shown["seed_key"].split(" ")[0]) == (payment["id"], "1")
    # Whoever pastes it is no user: the payer is named.
    assert shown["again"]["requests"][0]["body"]["user_id"] == "1"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("payment_id", ["01a21e56-d069-72e6-9f2c-44be0a381c81", "not-an-id"])
def test_a_payment_that_is_not_there_is_said_in_a_sentence(database_url: str, payment_id: str, tmp_path: Path) -> None:
    done = run("explain", payment_id, folder=tmp_path, DATABASE_URL=database_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == "There is no such payment in this database. `GET /payments` lists the ids."


def test_a_database_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run("explain", str(new_id()), folder=tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/no.db")
    assert done.returncode == 1
    assert f"There is no database {tmp_path}/no.db." in done.stderr
