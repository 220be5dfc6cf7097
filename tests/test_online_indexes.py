"""Indexes that are built before a migration: by one process, again after an interruption, and through a pooler."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from shared.config.settings import Settings
from shared.database.migrations import LOCK_PAUSE_S, head, migrate
from tests.support.migrating import downgrade
from tests.support.pgbouncer import PgBouncer
from tests.support.servers import PostgresServer
from tests.support.survival import MakeSettings, on_postgresql, opened

pytest_plugins = ["tests.support.survival_fixtures"]

BEFORE = "20261127_0008"
BUILD = "CREATE UNIQUE INDEX CONCURRENTLY uq_payments_live ON payments.payments (user_id, order_id)"
SPOIL = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'payments.uq_payments_live'::regclass"
STATE = "SELECT indexrelid, indisvalid FROM pg_index WHERE indexrelid = 'payments.uq_payments_live'::regclass"


async def made_older(settings: Settings) -> Settings:
    """Return the settings of a database whose schema is older."""
    await migrate(settings)
    await downgrade(settings, BEFORE)
    return settings


@pytest.fixture
async def older(make_settings: MakeSettings, empty_database_url: str) -> Settings:
    return await made_older(make_settings(database_url=empty_database_url))


async def execute(settings: Settings, statement: str) -> None:
    async with opened(settings) as database, database.autocommit() as connection:
        await connection.execute(text(statement))


async def index(settings: Settings) -> tuple[int, bool]:
    """Return the id of the index, and whether it is valid."""
    async with opened(settings) as database, database.read() as connection:
        row = (await connection.execute(text(STATE))).one()
    return row[0], row[1]


@asynccontextmanager
async def snapshot(settings: Settings) -> AsyncIterator[None]:
    """A transaction that a build waits for."""
    async with opened(settings) as database, database.transaction() as connection:
        await connection.execute(text("SELECT count(*) FROM payments"))
        yield


@on_postgresql
async def test_an_index_that_a_build_left_behind_is_built_again(older: Settings) -> None:
    await execute(older, BUILD)
    await execute(older, SPOIL)
    left_over, is_valid = await index(older)
    assert not is_valid
    assert await migrate(older) == head()
    built, is_valid = await index(older)
    assert is_valid
    assert built != left_over


@on_postgresql
async def test_a_build_whose_migration_was_killed_is_waited_for(
    older: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    async with snapshot(older):
        orphan = asyncio.create_task(execute(older, BUILD))
        await asyncio.sleep(0.5)
        migrating = asyncio.create_task(migrate(older))
        await asyncio.sleep(LOCK_PAUSE_S + 0.5)
        assert not migrating.done()
        by_orphan, is_valid = await index(older)
        assert not is_valid
    await orphan
    assert await migrating == head()
    assert await index(older) == (by_orphan, True)
    assert "migrate.waits" in capsys.readouterr().out


@on_postgresql
async def test_of_migrations_at_once_one_builds(older: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    async with snapshot(older):
        migrating = [asyncio.create_task(migrate(older)) for _ in range(3)]
        await asyncio.sleep(LOCK_PAUSE_S + 0.5)
    assert await asyncio.gather(*migrating) == [head()] * 3
    output = capsys.readouterr().out
    assert output.count("migrate.index_built") == 2
    assert "another migration" in output


@on_postgresql
async def test_a_build_does_not_wait_for_its_own_migration(
    make_settings: MakeSettings, own_postgres: PostgresServer
) -> None:
    """Whatever isolation is the rule of the database: a snapshot of the whole transaction would be waited for."""
    settings = await made_older(make_settings(database_url=own_postgres.url_of("own")))
    own_postgres.execute("ALTER DATABASE own SET default_transaction_isolation = 'repeatable read'")
    assert await asyncio.wait_for(migrate(settings), 30) == head()
    assert (await index(settings))[1]


@on_postgresql
@pytest.mark.pgbouncer
async def test_indexes_are_built_through_a_pooler(make_settings: MakeSettings, own_postgres: PostgresServer) -> None:
    with PgBouncer(own_postgres.port, "transaction") as pooler:
        settings = await made_older(make_settings(database_url=pooler.url_of("own")))
        assert await asyncio.wait_for(migrate(settings), 30) == head()
        assert (await index(make_settings(database_url=own_postgres.url_of("own"))))[1]
