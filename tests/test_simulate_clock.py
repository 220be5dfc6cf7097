"""`payments simulate clock` and the operations behind it: who may, what they answer, and what a speed does."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.main import app
from cli.simulate.durations import in_words, seconds_of
from shared.config.settings import Settings, load_settings
from shared.errors import ConfigurationError
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, opened, problem
from tests.support.commands import words_of_a_failed_start
from tests.support.processes import PaymentsProcess, environment_of, processes

pytest_plugins = ["tests.support.api_fixtures"]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def simulate(settings: Settings, *arguments: str) -> tuple[int, str]:
    """`payments simulate`, in a thread: its exit code, and what it prints in one line."""
    done = await asyncio.to_thread(CliRunner().invoke, app, ["simulate", *arguments], env=environment_of(settings))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join((done.stdout + done.stderr).split())


# -- the operations


async def test_everybody_reads_the_clock(running_api: RunningApi) -> None:
    shown = (await running_api.user().get("/simulation/clock")).raise_for_status().json()
    now, real_now = (datetime.fromisoformat(shown[name]) for name in ("now", "real_now"))
    assert abs(now - real_now) < timedelta(seconds=0.1)
    assert (shown["speed"], shown["advances_to"]) == (1, None)
    assert abs(shown["offset_s"]) < 0.1


async def test_an_advance_is_forward_only_bounded_and_done_once_for_a_key(running_api: RunningApi) -> None:
    admin = running_api.admin()
    for wrong in (-1, 366 * 24 * 3600 + 1, 1.5, "4d", None):
        refused = await admin.post("/simulation/clock/advance", json={"seconds": wrong})
        assert problem(refused, 422, "validation_error")["errors"][0]["pointer"] == "/seconds"
    for number in range(2):
        answer = await admin.post(
            "/simulation/clock/advance", json={"seconds": 3600}, headers={"Idempotency-Key": "an-hour"}
        )
        assert answer.status_code == 200
        assert ("idempotent-replayed" in answer.headers) == bool(number)
        assert 3590 < answer.json()["offset_s"] < 3610
        assert answer.json()["is_idle"]


@pytest.mark.parametrize(
    ("changes", "reads"), [({"simulation": "off"}, 403), ({"environment": "production", "simulation": "on"}, 200)]
)
async def test_the_clock_is_not_advanced_where_simulation_is_off_and_never_in_production(
    make_settings: Any, changes: dict[str, str], reads: int
) -> None:
    runtime = open_runtime(make_settings(data_key="d" * 40, **changes))
    try:
        async with opened(runtime) as running_api:
            refused = await running_api.admin().post("/simulation/clock/advance", json={"seconds": 1})
            problem(refused, 403, "simulation_disabled")
            assert (await running_api.user().get("/simulation/clock")).status_code == reads
    finally:
        await runtime.close()


@pytest.mark.parametrize("speed", ["0.5", "0", "-1", "10001", "nan", "inf", "fast"])
def test_a_speed_out_of_bounds_names_the_variable(speed: str) -> None:
    with pytest.raises(ConfigurationError, match="SIMULATION_SPEED: "):
        load_settings(database_url="sqlite:///x.db", simulation_speed=speed)


def test_a_speed_in_production_names_the_variable() -> None:
    secrets = {"jwt_secret_key": "j" * 40, "data_key": "d" * 40}
    with pytest.raises(ConfigurationError, match="SIMULATION_SPEED: must be 1 in production"):
        load_settings(database_url="sqlite:///x.db", environment="production", simulation_speed=2, **secrets)


# -- processes


@ON_SQLITE
@pytest.mark.parametrize("command", ["api", "worker"])
async def test_a_process_with_another_speed_does_not_start(make_settings: Any, tmp_path: Path, command: str) -> None:
    settings = make_settings(simulation_speed=60)
    words = await words_of_a_failed_start(PaymentsProcess(command, tmp_path / command, settings), code=2)
    assert "SIMULATION_SPEED: is 60 here and 1 in the database" in words


@ON_SQLITE
async def test_up_writes_the_speed_and_the_command_steers_its_clock(make_settings: Any, tmp_path: Path) -> None:
    settings = make_settings(simulation_speed=60)
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        code, words = await simulate(settings, "clock", "advance", "1d12h")
        assert code == 0, words
        assert "ahead of real time" in words
        code, words = await simulate(settings, "clock", "show")
        assert code == 0, words
        assert "Ahead by 1 d 12 h" in words
        assert "Speed 60" in words
        code, words = await simulate(settings, "clock", "advance", "400d")
        assert code == 1
        assert "/seconds" in words


async def test_an_api_that_is_not_there_and_a_wrong_token_are_said_in_a_line(settings: Settings) -> None:
    code, words = await simulate(settings, "clock", "show")
    assert code == 1
    assert f"No service answers at http://127.0.0.1:{settings.port}" in words


# -- durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("36h", 129_600), ("4d", 345_600), ("1D12H", 129_600)],
)
def test_durations_as_people_write_them(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "4 d", "d", "1h1d", "1.5h", "4w", "9999999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a duration"):
        seconds_of(text)


def test_durations_in_words() -> None:
    assert [in_words(seconds) for seconds in (0, 59.6, 3600, 345_600, 345_599)] == [
        "0 s", "1 m", "1 h", "4 d", "3 d 23 h",
    ]  # fmt: skip
