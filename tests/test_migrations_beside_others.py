"""`payments migrate` beside other migrations, other transactions and newer versions of the service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.migrations import (
    ADVISORY_LOCK,
    LOCK_PAUSE_S,
    LOCK_WAIT_S,
    VERSION_TABLE,
    head,
    migrate,
    require_current,
)
from shared.errors import DatabaseUnavailable, SchemaOutdated
from tests.support.commands import words_of_a_failed_start
from tests.support.migrating import downgrade, ran_migrate
from tests.support.processes import PaymentsProcess, processes
from tests.support.survival import MakeSettings, on_postgresql, opened
from tests.support.waiting import eventually

NEWER = "29991231_0001"
FIRST = "20261122_0001"


@pytest.fixture
def empty(make_settings: MakeSettings, empty_database_url: str) -> Settings:
    return make_settings(database_url=empty_database_url, database_timeout_s=1)


async def execute(settings: Settings, *statements: str) -> None:
    async with opened(settings) as database, database.transaction() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def make_newer(settings: Settings, *statements: str) -> None:
    await migrate(settings)
    await execute(settings, f"UPDATE {VERSION_TABLE} SET version_num = '{NEWER}'", *statements)  # noqa: S608


# -- a newer schema


@pytest.mark.parametrize("new", ["text", pytest.param("integer NOT NULL DEFAULT 1", marks=pytest.mark.slow)])
async def test_a_newer_schema_that_still_serves_is_left_as_it_is(empty: Settings, new: str) -> None:
    await make_newer(empty, f"ALTER TABLE payments ADD COLUMN new_one {new}", "CREATE TABLE new_ones (id integer)")
    done = await asyncio.to_thread(ran_migrate, empty)
    assert (done.returncode, done.stderr) == (0, "")
    [line] = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    assert NEWER in line
    assert "newer than this code" in line
    async with opened(empty) as database:
        await require_current(database)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE payments DROP COLUMN description", "payments.description is missing"),
        ("ALTER TABLE payments RENAME COLUMN description TO about", "payments.description is missing"),
        ("DROP TABLE verify_reports", "verify_reports.id is missing"),
        ("DROP TABLE delivery_attempts; CREATE TABLE delivery_attempts (x integer NOT NULL)", "x needs a value"),
    ],
)
async def test_a_newer_schema_that_no_longer_serves_is_refused_and_says_what_is_missing(
    empty: Settings, tmp_path: Path, statement: str, named: str
) -> None:
    await make_newer(empty, *statement.split(";"))
    async with opened(empty) as database:
        with pytest.raises(SchemaOutdated, match="no longer serves") as caught:
            await require_current(database)
        assert named in str(caught.value)
    for program in ("migrate", "up"):
        words = await words_of_a_failed_start(PaymentsProcess(program, tmp_path / program, empty), code=1)
        assert named in words


async def test_the_old_version_runs_on_the_new_schema(empty: Settings, tmp_path: Path) -> None:
    await make_newer(empty)
    up = PaymentsProcess("up", tmp_path / "up", empty)
    with processes(up):
        await up.ready()
        up.terminate()
        assert await up.ended() == 0


# -- locks


@asynccontextmanager
async def held(settings: Settings, statement: str) -> AsyncIterator[AsyncConnection]:
    """Another process's transaction that holds a lock for the length of the block."""
    database = open_database(settings, statement_s=inf)
    try:
        async with database.transaction() as connection:
            await connection.execute(text(statement))
            yield connection
    finally:
        await database.dispose()


@on_postgresql
@pytest.mark.parametrize("lock", [f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})", "LOCK TABLE payments.a_table"])
async def test_a_migration_waits_and_says_for_what(
    empty: Settings, capsys: pytest.CaptureFixture[str], lock: str
) -> None:
    """It waits for longer than DATABASE_TIMEOUT_S, and for longer than it waits for one lock."""
    await execute(empty, "CREATE SCHEMA payments", f"CREATE TABLE payments.{VERSION_TABLE} (version_num varchar(32))")
    await execute(empty, "CREATE TABLE payments.a_table (x integer)")
    lock = lock.replace("a_table", VERSION_TABLE)
    began_at = monotonic()
    async with held(empty, lock):
        migrating = asyncio.create_task(migrate(empty))
        await asyncio.sleep(LOCK_WAIT_S + 1.5)
        assert not migrating.done()
    assert await migrating == head()
    assert monotonic() - began_at > empty.database_timeout_s + LOCK_WAIT_S
    assert "migrate.waits" in capsys.readouterr().out


@on_postgresql
async def test_while_a_migration_waits_it_lets_others_use_the_table(empty: Settings) -> None:
    await migrate(empty)
    await downgrade(empty, FIRST)
    answered = 0
    async with held(empty, "LOCK TABLE payments IN ACCESS SHARE MODE"), opened(empty) as other:
        migrating = asyncio.create_task(migrate(empty))
        until = monotonic() + 3 * (LOCK_WAIT_S + LOCK_PAUSE_S)
        while monotonic() < until:
            with contextlib.suppress(DatabaseUnavailable):
                async with other.read() as connection:
                    await connection.execute(text("SELECT count(*) FROM payments"))
                answered += 1
            await asyncio.sleep(0.05)
        assert not migrating.done()
    assert await migrating == head()
    assert answered > 10


@on_postgresql
async def test_a_statement_of_a_migration_may_take_long(empty: Settings) -> None:
    async with opened(empty) as limited:
        with pytest.raises(DatabaseUnavailable):
            await sleep_in(limited)
    database = open_database(empty, statement_s=inf)
    await sleep_in(database)
    await database.dispose()


async def sleep_in(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("SELECT pg_sleep(1.5)"))


@on_postgresql
async def test_a_start_that_waits_for_a_lock_can_be_stopped(empty: Settings, tmp_path: Path) -> None:
    await execute(empty, "CREATE SCHEMA payments")
    up = PaymentsProcess("up", tmp_path / "up", empty)
    async with held(empty, f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"):
        with processes(up):
            await eventually(lambda: up.lines("migrate.waits"), 30)
            up.terminate()
            assert await up.ended(15) == 0
