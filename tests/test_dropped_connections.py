"""Connections that a firewall drops silently: they stay open, and nothing that is sent on them arrives."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import text

from shared.config.settings import Settings
from shared.database.connector import TRANSACTION_PATIENCE, Connector
from shared.database.engine import PING_AFTER_S, PING_TIMEOUT_S, Database, open_database
from shared.database.migrations import migrate
from shared.errors import DatabaseUnavailable
from tests.support.servers import PostgresServer
from tests.support.survival import MakeSettings, a_service, everything_ends, on_postgresql, opened
from tests.support.swallowing import SwallowingProxy
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]
pytestmark = on_postgresql

TIMEOUT_S = 1.5
# An answer that waited for nothing, also on a loaded machine.
QUICK_S = 0.9


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[SwallowingProxy]:
    with SwallowingProxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def behind_proxy(make_settings: MakeSettings, postgres: PostgresServer, proxy: SwallowingProxy) -> Settings:
    url = make_settings().database_url.replace(f":{postgres.port}/", f":{proxy.port}/")
    return make_settings(database_url=url, database_timeout_s=TIMEOUT_S)


async def asked(database: Database, *, sleeps_s: float = 0) -> float | None:
    """How long an answer took; None if there was none."""
    began_at = monotonic()
    try:
        async with database.read() as connection:
            await connection.execute(text("SELECT pg_sleep(:s)"), {"s": sleeps_s})
    except DatabaseUnavailable:
        return None
    return monotonic() - began_at


async def ten_at_once(database: Database) -> list[float | None]:
    return list(await asyncio.gather(*(asked(database, sleeps_s=0.05) for _ in range(10))))


async def test_connections_that_are_in_use_cost_one_answer(behind_proxy: Settings, proxy: SwallowingProxy) -> None:
    async with opened(behind_proxy) as database:
        assert None not in await ten_at_once(database)
        proxy.swallow()
        answers = [await asked(database) for _ in range(20)]
        assert answers.count(None) == 1
        slow = [each for each in answers if each is None or each > QUICK_S]
        assert len(slow) <= 2
        assert max(each for each in answers if each is not None) < PING_TIMEOUT_S + QUICK_S
        assert None not in await ten_at_once(database)


@pytest.mark.slow
async def test_connections_that_were_idle_cost_one_slow_answer_and_no_error(
    behind_proxy: Settings, proxy: SwallowingProxy
) -> None:
    async with opened(behind_proxy) as database:
        for at_once in (False, True):
            assert None not in await ten_at_once(database)
            await asyncio.sleep(PING_AFTER_S + 0.5)
            proxy.swallow()
            answers = await ten_at_once(database) if at_once else [await asked(database) for _ in range(20)]
            assert None not in answers
            assert at_once or len([each for each in answers if each is not None and each > QUICK_S]) == 1


async def test_a_connection_that_died_while_it_was_idle_is_replaced_at_once(
    make_settings: MakeSettings, postgres: PostgresServer
) -> None:
    async with opened(make_settings()) as database:
        await asked(database)
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'payments'")
        answers = [await asked(database) for _ in range(3)]
        assert answers[1:].count(None) == 0


@pytest.mark.slow
async def test_a_transaction_whose_connection_was_dropped_gives_its_locks_back(
    behind_proxy: Settings, proxy: SwallowingProxy, make_settings: MakeSettings
) -> None:
    """PostgreSQL ends it by itself: else the locks would stay for hours, and with them every payment in it."""
    async with opened(behind_proxy) as database, opened(make_settings()) as other:

        async def locks_and_is_dropped() -> None:
            async with database.transaction() as connection:
                await connection.execute(text("LOCK TABLE payments"))
                proxy.swallow()
                await connection.execute(text("SELECT 1"))

        with pytest.raises(DatabaseUnavailable):
            await locks_and_is_dropped()

        assert not await is_free(other)
        await eventually(lambda: is_free(other), 10)


async def test_a_transaction_whose_message_was_cut_gives_its_locks_back(make_settings: MakeSettings) -> None:
    """The server waits for the rest of the message. To it that is no idle transaction and no long statement."""
    settings = make_settings()
    assert settings.postgres is not None
    connector = Connector(settings.postgres, schema=settings.database_schema, connect_s=5, timeout_s=0.3)
    cut = await connector.connect()
    async with opened(settings) as other:
        try:
            await cut.execute("BEGIN")
            # Everything of a statement but its end (Sync), without which the server answers nothing.
            parse, bind, execute = b"\0LOCK TABLE payments\0\0\0", bytes(8), bytes(5)
            tcp: Any = cut._transport  # type: ignore[attr-defined]  # the stubs do not know it
            tcp.write(message(b"P", parse) + message(b"B", bind) + message(b"E", execute))
            await eventually(lambda: is_locked(other))
            await eventually(lambda: is_free(other), 0.3 * TRANSACTION_PATIENCE + QUICK_S)
        finally:
            cut.terminate()


def message(kind: bytes, body: bytes) -> bytes:
    """A message of PostgreSQL's protocol."""
    return kind + (4 + len(body)).to_bytes(4) + body


async def is_free(database: Database) -> bool:
    """Nobody has locked the table of the payments."""
    try:
        async with database.transaction() as connection:
            await connection.execute(text("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE NOWAIT"))
    except DatabaseUnavailable:
        return False
    return True


async def is_locked(database: Database) -> bool:
    return not await is_free(database)


async def test_after_a_fail_over_behind_one_name_writes_find_the_server_that_writes(
    make_settings: MakeSettings, own_postgres: PostgresServer
) -> None:
    settings = make_settings(database_url=own_postgres.url_of("own"))
    own_postgres.execute("ALTER DATABASE own SET default_transaction_read_only = on")
    async with opened(settings) as database:

        async def writes() -> bool:
            try:
                async with database.transaction() as connection:
                    await connection.execute(text("CREATE TABLE IF NOT EXISTS public.t (x int)"))
            except DatabaseUnavailable:
                return False
            return True

        assert not await writes()
        assert not await writes()
        own_postgres.execute("ALTER DATABASE own RESET default_transaction_read_only")
        # The connections that are open keep what they had.
        await eventually(writes, 2)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_service_whose_connections_are_dropped_goes_on(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str
) -> None:
    await migrate(slow_gateway(database_url=own_postgres.url_of("own")))
    with SwallowingProxy(own_postgres.port) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/own"
        settings = slow_gateway(database_url=url, database_timeout_s=2)
        async with a_service(settings, tmp_path) as service:
            for _ in range(3):
                for _ in range(10):
                    answer = await service.shop.pay()
                    assert answer.status_code in {202, 503}, answer.text
                proxy.swallow()
                await asyncio.sleep(1)
            refused = [answer.status_code for answer in [await service.shop.pay() for _ in range(20)]].count(503)
            assert refused <= 1
            direct = slow_gateway(database_url=own_postgres.url_of("own"))
            async with opened(direct) as database:
                await everything_ends(database)


async def test_closing_does_not_wait_for_connections_that_are_dropped(
    behind_proxy: Settings, proxy: SwallowingProxy
) -> None:
    database = open_database(behind_proxy)
    await ten_at_once(database)
    proxy.swallow()
    began_at = monotonic()
    await database.dispose()
    assert monotonic() - began_at < 5
