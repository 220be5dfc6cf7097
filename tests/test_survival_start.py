"""Starts that fail, say why and what helps, and starts that wait for a database that is not there yet."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from api.main import listen
from shared.config.settings import Settings
from shared.database.migrations import VERSION_TABLE, head, known_revisions, migrate
from tests.support.commands import words_of_a_failed_start
from tests.support.processes import PaymentsProcess, environment_of, processes
from tests.support.servers import PostgresServer, free_port
from tests.support.survival import MakeSettings, on_postgresql, on_sqlite
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]


@on_sqlite
@pytest.mark.parametrize("command", ["api", "up"])
async def test_a_port_that_is_taken_is_named(make_settings: MakeSettings, tmp_path: Path, command: str) -> None:
    with listen("127.0.0.1", 0) as taken:
        settings = make_settings(port=taken.getsockname()[1])
        words = await words_of_a_failed_start(PaymentsProcess(command, tmp_path / command, settings), code=2)
    assert f"PORT: cannot listen on 127.0.0.1:{settings.port}" in words


@on_sqlite
@pytest.mark.parametrize("command", ["worker", "up"])
async def test_a_metrics_port_that_is_taken_is_named(make_settings: MakeSettings, tmp_path: Path, command: str) -> None:
    with listen("127.0.0.1", 0) as taken:
        settings = make_settings(metrics_port=taken.getsockname()[1])
        words = await words_of_a_failed_start(PaymentsProcess(command, tmp_path / command, settings), code=2)
    assert f"METRICS_PORT: cannot listen on 127.0.0.1:{settings.metrics_port}" in words


@on_sqlite
@pytest.mark.parametrize("command", ["api", "worker"])
@pytest.mark.parametrize("state", ["missing", "old"])
async def test_a_schema_that_is_missing_or_old_is_named_with_the_command_that_helps(
    settings: Settings, tmp_path: Path, command: str, state: str
) -> None:
    older = None if state == "missing" else (known_revisions() - {head()}).pop()
    set_back(settings.sqlalchemy_url.database or "", to=older)
    words = await words_of_a_failed_start(PaymentsProcess(command, tmp_path / command, settings), code=1)
    assert "run `payments migrate`" in words


def set_back(path: str, *, to: str | None) -> None:
    """Make the database one of an earlier version; None = empty."""
    if to is None:
        Path(path).unlink()
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", [to])  # noqa: S608 - our own name


@on_sqlite
@pytest.mark.parametrize("command", ["api", "worker", "up", "migrate"])
@pytest.mark.parametrize("what", ["not a database", "no folder", "no such database", "no such user"])
async def test_a_database_that_says_no_is_named_and_the_password_is_not(
    make_settings: MakeSettings, postgres: PostgresServer, tmp_path: Path, command: str, what: str
) -> None:
    (tmp_path / "text").write_text("This is no database, not in the least. " * 50)
    urls = {
        "not a database": f"sqlite:///{tmp_path}/text",
        "no folder": f"sqlite:///{tmp_path}/text/folder/payments.db",
        "no such database": f"postgresql://postgres:hush@127.0.0.1:{postgres.port}/nowhere",
        "no such user": f"postgresql://nobody:hush@127.0.0.1:{postgres.port}/postgres",
    }
    settings = make_settings(database_url=urls[what])
    process = PaymentsProcess(command, tmp_path / command, settings)
    words = await words_of_a_failed_start(process, code=2)
    assert "DATABASE_URL" in words
    assert "hush" not in process.errors + process.output


@on_sqlite
@pytest.mark.parametrize("command", ["api", "worker", "up"])
async def test_a_start_that_waits_for_its_database_can_be_stopped(
    make_settings: MakeSettings, tmp_path: Path, command: str
) -> None:
    settings = make_settings(database_url=f"postgresql://payments:hush@127.0.0.1:{free_port()}/payments")
    process = PaymentsProcess(command, tmp_path / command, settings)
    with processes(process):
        await eventually(lambda: process.lines("start.waits_for_database"), 30)
        process.terminate()
        assert await process.ended(15) == 0
    assert "hush" not in process.errors + process.output


@on_postgresql
async def test_a_database_that_is_there_a_little_later_is_waited_for(
    make_settings: MakeSettings, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    settings = make_settings(database_url=own_postgres.url_of("own"))
    await migrate(settings)
    own_postgres.kill()
    worker = PaymentsProcess("worker", tmp_path / "worker", settings)
    with processes(worker):
        await eventually(lambda: worker.lines("start.waits_for_database"), 30)
        own_postgres.start()
        await worker.ready()


@pytest.mark.slow
@on_sqlite
async def test_a_database_that_never_comes_ends_the_start(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(database_url=f"postgresql://payments:hush@127.0.0.1:{free_port()}/payments")
    worker = PaymentsProcess("worker", tmp_path / "worker", settings)
    words = await words_of_a_failed_start(worker, code=1, timeout_s=100)
    assert "/payments does not answer" in words
    assert "hush" not in words


@on_sqlite
def test_wrong_settings_are_named_all_at_once(settings: Settings) -> None:
    environment = environment_of(settings) | {
        "LEASE_S": "3",
        "PAYMENT_SUCCESS_RATE": "nine",
        "DATABASE_URL": "mysql://x",
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("payments"), "worker"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for name in ("PAYMENT_SUCCESS_RATE", "DATABASE_URL"):
        assert name in done.stderr
