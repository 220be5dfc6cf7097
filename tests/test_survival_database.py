"""A database that dies, hangs and is locked: answers are 503, and when it is back everything goes on."""

import asyncio
import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import text

from shared.database.engine import Database
from shared.database.migrations import migrate
from shared.errors import CommitUnknown, DatabaseUnavailable
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.rows import read_all
from tests.support.servers import PostgresServer
from tests.support.survival import (
    MakeSettings,
    a_service,
    everything_ends,
    is_processing,
    on_postgresql,
    on_sqlite,
    opened,
)
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]


@on_postgresql
@pytest.mark.parametrize("away_s", [1, pytest.param(5, marks=pytest.mark.slow)])
async def test_without_postgresql_answers_are_503_and_when_it_is_back_all_goes_on(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str, away_s: float
) -> None:
    settings = slow_gateway(
        database_url=own_postgres.url_of("own"),
        payment_success_rate=1,
        payment_processing_delay_min=900,
        payment_processing_delay_max=1000,
    )
    await migrate(settings)
    async with a_service(settings, tmp_path, workers=1) as service:
        shop = service.shop
        accepted_ids = [await shop.accepted() for _ in range(5)]
        await eventually(lambda: service.count("payment.claimed") == 5)
        own_postgres.kill()
        unknown = 0
        back_at = monotonic() + away_s
        while monotonic() < back_at:
            answer = await shop.pay()
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] in {"unavailable", "outcome_unknown"}
            assert int(answer.headers["Retry-After"]) >= 1
            unknown += answer.json()["code"] == "outcome_unknown"
            assert (await shop.http.get(f"/payments/{accepted_ids[0]}")).status_code == 503
        own_postgres.start()
        await eventually(lambda: is_accepted(shop), 30)
        async with opened(settings) as database:
            await everything_ends(database)
            found = {str(payment.id): payment for payment in await read_all(database)}
        assert set(accepted_ids) <= set(found)
        assert len(found) <= len(accepted_ids) + 1 + unknown, "what was refused has left a row"
        assert {found[each].lease_version for each in accepted_ids} == {1}, "what a worker had learned was lost"


async def is_accepted(shop: Shop) -> bool:
    answer = await shop.pay()
    assert answer.status_code in {202, 503}, answer.text
    return answer.status_code == 202


@on_postgresql
async def test_a_connection_that_is_cut_at_any_moment_means_an_unavailable_database(
    make_settings: MakeSettings, postgres: PostgresServer
) -> None:
    """Also in the moment between the server's goodbye and the end of the connection, which asyncpg calls a bug."""
    settings, done, answered = make_settings(), asyncio.Event(), 0

    async def ask_all_the_time() -> None:
        nonlocal answered
        while not done.is_set():
            async with opened(settings) as database:
                with contextlib.suppress(DatabaseUnavailable, CommitUnknown):
                    for _ in range(3):
                        async with database.transaction() as connection:
                            await connection.execute(text("SELECT 1"))
                        answered += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(12):
            tasks.create_task(ask_all_the_time())
        for _ in range(30):
            await asyncio.to_thread(postgres.execute, CUT_ALL, database="payments_test")
        # On a busy machine all of them may have been cut. What comes now is not cut.
        await eventually(lambda: answered)
        done.set()


CUT_ALL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'
"""


@pytest.mark.slow
@on_postgresql
async def test_a_postgresql_that_hangs_is_left_and_found_again(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str
) -> None:
    settings = slow_gateway(database_url=own_postgres.url_of("own"), database_timeout_s=1)
    await migrate(settings)
    async with a_service(settings, tmp_path, workers=1) as service:
        shop = service.shop
        for _ in range(5):
            await shop.accepted()
        await eventually(lambda: service.count("payment.claimed") == 5)
        own_postgres.pause()
        back_at = monotonic() + 8
        while monotonic() < back_at:
            answer = await shop.pay()
            assert answer.status_code == 503, answer.text
        own_postgres.resume()
        await eventually(lambda: is_accepted(shop), 30)
        async with opened(settings) as database:
            await everything_ends(database)


@pytest.mark.slow
@on_sqlite
async def test_while_another_process_writes_to_the_file_for_five_seconds_answers_are_503(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    settings = slow_gateway(redis_url=None, payment_success_rate=1)
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            first = [await shop.accepted() for _ in range(5)]
            await eventually(lambda: is_processing(database))
            with closing(sqlite3.connect(settings.sqlalchemy_url.database or "", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                back_at = monotonic() + 5
                answers = []
                while monotonic() < back_at:
                    started = monotonic()
                    answers.append(await shop.pay())
                    assert monotonic() - started < 2 + settings.database_timeout_s + 3
                other.execute("ROLLBACK")
            assert 503 in {answer.status_code for answer in answers}
            for answer in answers:
                assert answer.status_code == 202 or int(answer.headers["Retry-After"]) >= 1
            await eventually(lambda: is_accepted(shop), 30)
            await everything_ends(database)
        found = {str(payment.id): payment for payment in await read_all(database)}
        assert {found[each].lease_version for each in first} == {1}
        up.terminate()
        assert await up.ended() == 0
