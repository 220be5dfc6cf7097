"""Readiness says whether the service can work with its database, not only whether the database answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from shared import metrics
from shared.database.engine import Database
from shared.database.migrations import migrate, require_current
from shared.database.probe import USUAL_RIGHTS, is_usable, rights_of
from shared.database.schema import metadata
from tests.support.api_client import RunningApi, added, order, problem
from tests.support.processes import Shop
from tests.support.roles import ROLE, give_role
from tests.support.rows import assert_sound
from tests.support.servers import PostgresServer
from tests.support.survival import MakeSettings, a_service, everything_settles, on_postgresql, on_sqlite, opened
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures", "tests.support.api_fixtures"]

# Begins and ends, both by the superuser in the database of the service.
BREAKS = {
    "read only": (
        f"ALTER ROLE {ROLE} SET default_transaction_read_only = on",
        f"ALTER ROLE {ROLE} RESET default_transaction_read_only",
        "reads only",
    ),
    "no right to insert": (
        f"REVOKE INSERT ON payments.gateway_ledger FROM {ROLE}",
        f"GRANT INSERT ON payments.gateway_ledger TO {ROLE}",
        "gateway_ledger: INSERT",
    ),
    "no right to delete": (
        f"REVOKE DELETE ON payments.idempotency_keys FROM {ROLE}",
        f"GRANT DELETE ON payments.idempotency_keys TO {ROLE}",
        "idempotency_keys: DELETE",
    ),
    "no right to the schema": (
        f"REVOKE USAGE ON SCHEMA payments FROM {ROLE}",
        f"GRANT USAGE ON SCHEMA payments TO {ROLE}",
        "",
    ),
    "a table is away": (
        "ALTER TABLE payments.deliveries RENAME TO away",
        "ALTER TABLE payments.away RENAME TO deliveries",
        "deliveries: missing",
    ),
    "the schema is away": ("ALTER SCHEMA payments RENAME TO away", "ALTER SCHEMA away RENAME TO payments", ""),
}


@asynccontextmanager
async def with_role(make: MakeSettings, postgres: PostgresServer) -> AsyncIterator[Database]:
    await migrate(make(database_url=postgres.url_of("own")))
    async with opened(make(database_url=give_role(postgres, "own"))) as database:
        await require_current(database)
        assert await is_usable(database)
        yield database


@on_postgresql
@pytest.mark.parametrize("name", BREAKS)
async def test_what_cannot_be_done_is_found_and_named(
    make_settings: MakeSettings, own_postgres: PostgresServer, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin, end, reason = BREAKS[name]
    async with with_role(make_settings, own_postgres) as database:
        own_postgres.execute(begin, database="own")
        cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"  # noqa: S608
        own_postgres.execute(cut)

        async def is_named() -> bool:
            # A connection that was cut is found first.
            return not await is_usable(database) and reason in capsys.readouterr().out

        await eventually(is_named)
        assert b"\npayments_database_ready 0.0\n" in metrics.exposition()
        own_postgres.execute(end, database="own")
        own_postgres.execute(cut)
        await eventually(lambda: is_usable(database))
        assert b"\npayments_database_ready 1.0\n" in metrics.exposition()


@on_postgresql
async def test_commits_that_hang_are_found(make_settings: MakeSettings, own_postgres: PostgresServer) -> None:
    async with with_role(make_settings, own_postgres) as database:
        own_postgres.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        own_postgres.execute("SELECT pg_reload_conf()")
        try:
            await eventually(lambda: is_not_usable(database))
        finally:
            own_postgres.execute("ALTER SYSTEM RESET synchronous_standby_names")
            own_postgres.execute("SELECT pg_reload_conf()")
        await eventually(lambda: is_usable(database))


async def is_not_usable(database: Database) -> bool:
    return not await is_usable(database)


@on_sqlite
async def test_a_file_that_cannot_be_written_or_has_no_tables_is_found(database: Database) -> None:
    assert await is_usable(database)
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE deliveries RENAME TO away"))
    assert not await is_usable(database)
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO deliveries"))
    assert await is_usable(database)


@on_postgresql
async def test_a_table_that_is_away_is_503_for_every_request_and_for_readiness(running_api: RunningApi) -> None:
    user, anybody = running_api.user(), running_api.client(base="")
    method_id = await added(user)

    async def execute(statement: str) -> None:
        async with running_api.database.transaction() as connection:
            await connection.execute(text(statement))

    await execute("ALTER TABLE payments RENAME TO away")
    try:
        problem(await user.post("/payments", json=order(method_id)), 503, "unavailable")
        problem(await user.get("/payments"), 503, "unavailable")
        ready = await anybody.get("/health/ready")
        assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "not_ready")
    finally:
        await execute("ALTER TABLE away RENAME TO payments")
    assert (await user.post("/payments", json=order(method_id))).status_code == 202
    await asyncio.sleep(1)
    assert (await anybody.get("/health/ready")).status_code == 200


async def test_readiness_changes_nothing_in_a_table(database: Database) -> None:
    assert await is_usable(database)
    async with database.read() as connection:
        for table in metadata.sorted_tables:
            assert (await connection.execute(table.select())).all() == []


@on_postgresql
async def test_a_role_with_the_documented_rights_runs_the_service(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str
) -> None:
    await migrate(slow_gateway(database_url=own_postgres.url_of("own")))
    settings = slow_gateway(database_url=give_role(own_postgres, "own"), payment_success_rate=1)
    held = own_postgres.execute(
        "SELECT c.relname, string_agg(privilege_type, ',') FROM pg_class c, aclexplode(c.relacl) a "  # noqa: S608
        f"WHERE relkind = 'r' AND a.grantee = '{ROLE}'::regrole GROUP BY 1",
        database="own",
    )
    rights = dict(line.split("|") for line in held.splitlines())
    assert {table: set(held.split(",")) for table, held in rights.items()} == {
        "payments_alembic_version": {"SELECT"},
        **{table.name: set(rights_of(table.name)) for table in metadata.sorted_tables},
    }
    async with a_service(settings, tmp_path, workers=1) as service:
        shop: Shop = service.shop
        for _ in range(3):
            await shop.accepted()
        async with opened(settings) as database:
            await everything_settles(database, 3)
            await assert_sound(database)
        # Work that no request waits for, such as the purge, only logs that it was refused.
        unwell = [line for process in (service.api, *service.workers) for line in process.lines() if "error" in line]
        assert unwell == []


def test_a_table_that_is_not_named_is_read_inserted_into_and_updated() -> None:
    assert rights_of("payments") == rights_of("some new table") == USUAL_RIGHTS
