"""Redis goes away or the database is busy: what is accepted, what is refused, and that all goes on afterwards."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import text

from shared.errors import DatabaseUnavailable
from tests.support.pipelines import MakeSettings, opened, processing, running
from tests.support.rows import are_settled, assert_sound, read_all
from tests.support.servers import ValkeyServer
from tests.support.waiting import eventually


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_without_redis_intents_are_accepted_at_once_and_processed_when_it_is_back(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    with ValkeyServer(tmp_path / "own") as valkey:
        async with running(make_settings(redis_url=valkey.url)) as service:
            await service.shop.accepted()
            for trouble, relief in ((valkey.kill, valkey.start), (valkey.pause, valkey.resume)):
                trouble()
                for _ in range(5):
                    started = monotonic()
                    await service.shop.accepted()
                    assert monotonic() - started < 0.5
                relief()
            await eventually(lambda: are_settled(service.database, 11), timeout_s=30)
            await assert_sound(service.database)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_while_another_process_holds_the_write_lock_answers_are_503_and_then_all_goes_on(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(payment_success_rate=1, payment_processing_delay_min=300, payment_processing_delay_max=400)
    async with running(settings) as service:
        first = [await service.shop.accepted() for _ in range(3)]
        await eventually(lambda: processing(service.database))
        file = settings.sqlalchemy_url.database or ""
        with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
            # A transaction of ours may have to end before.
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            started = monotonic()
            answer = await service.shop.pay()
            refused_after_s = monotonic() - started
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] == "unavailable"
            assert int(answer.headers["Retry-After"]) >= 1
            assert refused_after_s < 2 * settings.database_timeout_s
            assert (await service.shop.http.get(f"/payments/{first[0]}")).status_code == 200  # readers pass
            other.execute("ROLLBACK")
        await service.shop.accepted()
        await eventually(lambda: are_settled(service.database, 4), timeout_s=30)
        await assert_sound(service.database)
        assert {payment.lease_version for payment in await read_all(service.database)} == {1}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_no_writer_waits_for_all_the_writers_before_it(make_settings: MakeSettings) -> None:
    async with opened(make_settings(database_timeout_s=0.5)) as runtime:

        async def write_something() -> None:
            async with runtime.database.transaction() as connection:
                await connection.execute(text("SELECT 1"))

        with closing(sqlite3.connect(runtime.settings.sqlalchemy_url.database or "", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = monotonic()
            answers = await asyncio.gather(*(write_something() for _ in range(10)), return_exceptions=True)
            took_s = monotonic() - started
        assert {type(answer) for answer in answers} == {DatabaseUnavailable}
        # Two seconds each, one after the other, would be twenty.
        assert took_s < 10
        await write_something()
