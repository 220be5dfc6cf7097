"""Behind PgBouncer in its default configuration: session and transaction mode work, with the right schema."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.migrations import migrate, require_current
from shared.database.probe import is_usable
from shared.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable
from tests.support.commands import words_of_a_failed_start
from tests.support.pgbouncer import MODES, PgBouncer
from tests.support.processes import PaymentsProcess, Shop
from tests.support.servers import PostgresServer
from tests.support.survival import MakeSettings, a_service, everything_ends, on_postgresql, opened
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]
pytestmark = pytest.mark.pgbouncer

SETTINGS = "SELECT current_schema(), current_setting('jit'), current_setting('statement_timeout')"
FOREIGN_TABLES = (
    "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('payments', 'pg_catalog', 'information_schema')"
)


def settings_of(make: MakeSettings, pooler: PgBouncer, **changes: Any) -> Settings:
    return make(database_url=pooler.url_of("own"), **changes)


async def asked(database: Database, statement: str = SETTINGS) -> Any:
    async with database.read() as connection:
        return tuple((await connection.execute(text(statement))).one())


@on_postgresql
@pytest.mark.parametrize("mode", MODES)
async def test_every_transaction_has_its_settings_and_leaves_none(
    make_settings: MakeSettings, own_postgres: PostgresServer, mode: str
) -> None:
    with PgBouncer(own_postgres.port, mode, default_pool_size=2) as pooler:
        settings = settings_of(make_settings, pooler, database_pool_size=2)
        await migrate(settings)
        assert own_postgres.execute(FOREIGN_TABLES, database="own") == "0\n"
        async with opened(settings) as database:
            await require_current(database)
            assert await is_usable(database)
            assert set(await asyncio.gather(*(asked(database) for _ in range(20)))) == {("payments", "off", "10s")}
            async with database.transaction() as connection:
                assert tuple((await connection.execute(text(SETTINGS))).one()) == ("payments", "off", "10s")
                left = "SELECT count(*) FROM pg_prepared_statements"
                assert (await connection.execute(text(left))).scalar_one() <= 1
        # What another client of the pooler gets is as it was.
        plain = pooler.url_of("own") + "?application_name=other"
        found = own_postgres.execute(f"\\c {plain}\nSHOW search_path", database="own")
        assert "payments" not in found


@on_postgresql
async def test_a_pooler_is_recognised_and_the_server_itself_is_not_taken_for_one(
    make_settings: MakeSettings, own_postgres: PostgresServer
) -> None:
    await migrate(make_settings(database_url=own_postgres.url_of("own")))
    with PgBouncer(own_postgres.port, "transaction") as pooler:
        for url, is_pooled in ((pooler.url_of("own"), True), (own_postgres.url_of("own"), False)):
            async with opened(make_settings(database_url=url)) as database:
                await asked(database)
                assert database.is_pooled is is_pooled


@on_postgresql
@pytest.mark.parametrize("command", ["api", "worker", "migrate"])
async def test_a_mode_without_transactions_is_refused_by_name(
    make_settings: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str, command: str
) -> None:
    with PgBouncer(own_postgres.port, "statement") as pooler:
        process = PaymentsProcess(command, tmp_path / command, settings_of(make_settings, pooler))
        words = await words_of_a_failed_start(process, code=2)
    assert "transaction blocks not allowed in statement pooling mode" in words


@on_postgresql
async def test_a_parameter_that_the_pooler_does_not_know_is_refused_by_name(
    make_settings: MakeSettings, own_postgres: PostgresServer
) -> None:
    with PgBouncer(own_postgres.port, "session") as pooler:
        url = pooler.url_of("own") + "?options=-c%20geqo%3Doff"
        with pytest.raises(DatabaseRefused, match="unsupported startup parameter: options"):
            await migrate(make_settings(database_url=url))


@on_postgresql
async def test_a_pooler_that_loses_the_schema_is_refused_by_name(
    make_settings: MakeSettings, own_postgres: PostgresServer
) -> None:
    settings = make_settings(database_url=own_postgres.url_of("own"))
    await migrate(settings)
    async with opened(settings) as database:
        await asked(database)
        async with database.read() as connection:
            await connection.exec_driver_sql("SET search_path = public")
        with pytest.raises(ConfigurationError, match="DATABASE_SCHEMA: connections use the schema public"):
            await require_current(database)


@pytest.mark.slow
@pytest.mark.timeout(300)
@on_postgresql
@pytest.mark.parametrize("mode", MODES)
async def test_a_service_behind_a_pooler_works_under_load_and_through_its_restarts(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str, mode: str
) -> None:
    # In transaction mode three connections serve all.
    options: dict[str, Any] = {"default_pool_size": 3} if mode == "transaction" else {}
    with PgBouncer(own_postgres.port, mode, **options) as pooler:
        settings = settings_of(slow_gateway, pooler, database_pool_size=6)
        await migrate(settings)
        async with a_service(settings, tmp_path) as service:
            statuses = await load(service.shop, clients=12, each=15)
            assert statuses == {202: 180, 200: 180}
            loading = asyncio.create_task(load(service.shop, clients=12, each=15))
            for _ in range(3):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(pooler.restart)
            statuses = await loading
            assert set(statuses) <= {200, 202, 503}
            await eventually(lambda: is_accepted(service.shop), 10)
            async with opened(slow_gateway(database_url=own_postgres.url_of("own"))) as database:
                await everything_ends(database)
    assert own_postgres.execute(FOREIGN_TABLES, database="own") == "0\n"


async def load(shop: Shop, *, clients: int, each: int) -> dict[int, int]:
    """Pay and read; return how often each status came."""
    counts: dict[int, int] = {}

    async def one() -> None:
        for _ in range(each):
            for answer in (await shop.pay(), await shop.http.get("/payments?limit=3")):
                assert answer.status_code in {200, 202, 503}, answer.text
                counts[answer.status_code] = counts.get(answer.status_code, 0) + 1

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(one())
    return counts


async def is_accepted(shop: Shop) -> bool:
    return (await shop.pay()).status_code == 202


@on_postgresql
async def test_a_pooler_that_is_away_is_unavailable(make_settings: MakeSettings, own_postgres: PostgresServer) -> None:
    with PgBouncer(own_postgres.port, "session") as pooler:
        settings = settings_of(make_settings, pooler)
        await migrate(settings)
        async with opened(settings) as database:
            await asked(database)
            pooler.kill()
            with pytest.raises(DatabaseUnavailable):
                await asked(database)
            pooler.restart()
            assert (await asked(database))[0] == "payments"
