"""Migrations, on both databases: they end at our tables, go down again, and leave those of other services alone."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from shared.config.settings import Settings, load_settings
from shared.database.engine import Database, open_database
from shared.database.migrations import VERSION_TABLE, head, known_revisions, migrate, require_current, revision
from shared.database.schema import metadata
from shared.errors import SchemaOutdated, StatementFailed
from tests.support.migrating import downgrade
from tests.support.servers import PostgresServer

type Catalog = set[str]

COLUMNS = """
    SELECT format('%s.%s %s %s %s %s', c.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod),
                  a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE n.nspname = 'payments' AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
"""
CONSTRAINTS = """
    SELECT format('%s %s %s', r.conrelid::regclass, r.conname, replace(pg_get_constraintdef(r.oid), ' NOT VALID', ''))
    FROM pg_constraint r JOIN pg_namespace n ON n.oid = r.connamespace WHERE n.nspname = 'payments'
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'payments'"


@pytest.fixture
def empty(empty_database_url: str) -> Settings:
    """Settings for a database without any table."""
    return settings_for(empty_database_url)


@pytest.fixture
def other_empty(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """The same for a second one."""
    if backend == "sqlite":
        yield settings_for(f"sqlite:///{tmp_path / 'other.db'}")
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    postgres.drop_database("other")
    yield settings_for(postgres.create_database("other"))
    postgres.drop_database("other")


def settings_for(url: str, **changes: str) -> Settings:
    return load_settings(database_url=url, **changes)


async def inside[T](settings: Settings, action: Callable[[Connection], T]) -> T:
    """Run `action` in a transaction on the database of `settings`."""
    database = open_database(settings)
    try:
        async with database.transaction() as connection:
            return await connection.run_sync(action)
    finally:
        await database.dispose()


async def execute(settings: Settings, *statements: str) -> None:
    def run(connection: Connection) -> None:
        for statement in statements:
            connection.execute(text(statement))

    await inside(settings, run)


async def rows(settings: Settings, statement: str) -> list[tuple[object, ...]]:
    return await inside(settings, lambda connection: [tuple(row) for row in connection.execute(text(statement))])


async def create_our_tables(settings: Settings) -> None:
    def create(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("CREATE SCHEMA payments"))
        metadata.create_all(connection)

    await inside(settings, create)


async def catalog(settings: Settings) -> Catalog:
    """Everything that the database says of our tables, as lines that can be compared."""

    def read(connection: Connection) -> Catalog:
        if connection.dialect.name == "postgresql":
            found = {row[0] for query in (COLUMNS, CONSTRAINTS, INDEXES) for row in connection.execute(text(query))}
        else:
            stored = connection.execute(text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
            found = {line for row in stored for line in definitions(row[0])}
        return {line for line in found if VERSION_TABLE not in line}

    return await inside(settings, read)


def definitions(sql: str) -> Iterator[str]:
    """A statement of `sqlite_master` in lines: columns with their place, constraints in whatever order."""
    plain = re.sub(r"\s+", " ", sql).replace('"', "").strip()
    found = re.fullmatch(r"CREATE TABLE (\w+) \((.*)\)", plain)
    if found is None:
        yield plain
        return
    table, body = found[1], found[2]
    place = 0
    for part in re.split(r", (?![^()]*\))", body):
        if part.strip().startswith(("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN")):
            yield f"{table}: {part.strip()}"
        else:
            place += 1
            yield f"{table} {place}: {part.strip()}"


# -- up and down


async def test_the_migrations_end_at_our_tables(empty: Settings, other_empty: Settings) -> None:
    assert await migrate(empty) == head()
    await create_our_tables(other_empty)
    by_migrations, by_tables = await catalog(empty), await catalog(other_empty)
    assert len(by_tables) > 100
    assert by_migrations == by_tables


CHANGES = {
    "WHERE dropped": """DROP INDEX uq_payments_live;
        CREATE UNIQUE INDEX uq_payments_live ON payments (user_id, order_id)""",
    "WHERE changed": """DROP INDEX ix_payments_due;
        CREATE INDEX ix_payments_due ON payments (due_at) WHERE due_at IS NULL""",
    "columns swapped": "DROP INDEX ix_payments_user; CREATE INDEX ix_payments_user ON payments (id, user_id)",
    "column added": "ALTER TABLE payments ADD COLUMN extra VARCHAR(8)",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_the_comparison_finds_what_alembics_own_would_miss(
    empty: Settings, other_empty: Settings, change: str
) -> None:
    await migrate(empty)
    await create_our_tables(other_empty)
    await execute(other_empty, *CHANGES[change].split(";"))
    assert await catalog(empty) != await catalog(other_empty)


async def test_a_migrated_database_goes_down_to_nothing_and_up_again(empty: Settings) -> None:
    await migrate(empty)
    before = await catalog(empty)

    await downgrade(empty, "base")
    assert await catalog(empty) == set()
    assert await inside(empty, revision) is None
    await migrate(empty)
    assert await catalog(empty) == before


async def test_migrating_again_changes_nothing(empty: Settings) -> None:
    await migrate(empty)
    before = await catalog(empty)
    assert await migrate(empty) == head()
    assert await catalog(empty) == before


async def test_migrations_at_once_are_one(empty: Settings) -> None:
    # SQLite's writers wait for two seconds only.
    count = 2 if empty.is_sqlite else 5
    assert await asyncio.gather(*(migrate(empty) for _ in range(count))) == [head()] * count
    assert await rows(empty, f"SELECT version_num FROM {VERSION_TABLE}") == [(head(),)]  # noqa: S608


async def test_a_migration_that_fails_leaves_nothing_behind(empty: Settings) -> None:
    # In the way of the last one.
    await execute(empty, *own_schema(empty), "CREATE TABLE payment_history (x INTEGER)")
    with pytest.raises(StatementFailed):
        await migrate(empty)
    assert await inside(empty, revision) is None
    left = await catalog(empty)
    assert len(left) == 1
    assert "payment_history" in left.pop()


def own_schema(settings: Settings) -> list[str]:
    return [] if settings.is_sqlite else ["CREATE SCHEMA payments"]


# -- other services in the same database


async def test_other_services_tables_and_their_alembic_version_are_left_alone(empty: Settings) -> None:
    tables = (
        ("alembic_version", "payment_methods", "webhook_events")
        if not empty.is_sqlite
        else ("alembic_version", "orders")
    )
    place = "" if empty.is_sqlite else "public."
    for table in tables:
        await execute(
            empty,
            f"CREATE TABLE {place}{table} (version_num VARCHAR(32))",
            f"INSERT INTO {place}{table} VALUES ('theirs')",  # noqa: S608
        )
    await migrate(empty)
    database = open_database(empty)
    await require_current(database)
    await database.dispose()
    for table in tables:
        assert await rows(empty, f"SELECT * FROM {place}{table}") == [("theirs",)]  # noqa: S608
    if not empty.is_sqlite:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        assert {row[0] for row in await rows(empty, query)} == set(tables)
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'payments'"
        assert {row[0] for row in await rows(empty, query)} == {*metadata.tables, VERSION_TABLE}


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_two_schemas_of_one_database_are_two_services(empty: Settings, backend: str) -> None:
    second = empty.model_copy(update={"database_schema": "user"})  # a reserved word, too
    await migrate(empty)
    database = open_database(second)
    with pytest.raises(SchemaOutdated):
        await require_current(database)
    await migrate(second)
    await require_current(database)
    await database.dispose()
    await execute(second, "DELETE FROM payments")
    query = "SELECT schemaname FROM pg_tables WHERE tablename = 'payments'"
    assert {row[0] for row in await rows(empty, query)} == {"payments", "user"}


# -- what a process asks for at its start


async def asked(settings: Settings) -> None:
    database = open_database(settings)
    try:
        await require_current(database)
    finally:
        await database.dispose()


async def test_an_empty_or_older_database_is_refused_with_the_command_to_run(empty: Settings) -> None:
    with pytest.raises(SchemaOutdated, match="run `payments migrate`"):
        await asked(empty)
    await migrate(empty)
    await asked(empty)
    for older in known_revisions() - {head()}:
        await execute(empty, f"UPDATE {VERSION_TABLE} SET version_num = '{older}'")  # noqa: S608
        with pytest.raises(SchemaOutdated, match=f"is at {older}"):
            await asked(empty)
    await execute(empty, f"DELETE FROM {VERSION_TABLE}")  # noqa: S608
    with pytest.raises(SchemaOutdated, match="is at nothing"):
        await asked(empty)


async def test_a_newer_database_is_accepted(empty: Settings) -> None:
    await migrate(empty)
    await execute(empty, f"UPDATE {VERSION_TABLE} SET version_num = '29991231_0001'")  # noqa: S608
    await asked(empty)


async def test_the_tables_of_the_tests_are_the_migrated_ones(database: Database) -> None:
    await require_current(database)


# -- the files


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_migrations_are_found_from_any_folder(
    empty: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    elsewhere = tmp_path / "a folder with % and spaces"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert await migrate(empty) == head()
