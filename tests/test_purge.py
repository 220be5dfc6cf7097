"""The purge of idempotency keys: what is old goes as fast as it comes, and workers do not wait for each other."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, insert, select
from structlog.testing import capture_logs

from shared.database.engine import Database
from shared.database.tables import idempotency_keys
from shared.errors import CommitUnknown, DatabaseUnavailable
from shared.idempotency import PURGE_MAX, purge
from shared.ids import new_id
from tests.support.waiting import eventually
from worker.purge import IDLE_S, Purge

NOW = datetime.now(UTC).replace(microsecond=0)


async def keep(database: Database, count: int, *, hours_ago: float) -> None:
    rows = [
        {
            "scope": "s",
            "key": str(new_id()),
            "fingerprint": "f",
            "object_id": new_id(),
            "created_at": NOW - timedelta(hours=hours_ago),
        }
        for _ in range(count)
    ]
    async with database.transaction() as connection:
        await connection.execute(insert(idempotency_keys), rows)


async def kept(database: Database) -> int:
    async with database.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(idempotency_keys))).scalar_one())


async def test_keys_are_kept_as_long_as_promised_and_then_removed(database: Database) -> None:
    await keep(database, 3, hours_ago=25)
    await keep(database, 2, hours_ago=23)
    assert await Purge(database, retention_h=24).run_once() == 3
    assert await Purge(database, retention_h=24).run_once() == 0
    assert await kept(database) == 2


async def test_a_backlog_is_removed_batch_by_batch_without_waiting_for_the_next_look(database: Database) -> None:
    await keep(database, 4 * PURGE_MAX + 1, hours_ago=25)
    running = asyncio.create_task(Purge(database, retention_h=24).run())

    async def is_done() -> bool:
        return await kept(database) == 0

    # With IDLE_S between the batches it would take four times as long.
    await eventually(is_done, 3 * IDLE_S)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_workers_that_purge_at_once_remove_different_keys_and_wait_for_nothing(database: Database) -> None:
    await keep(database, 4 * PURGE_MAX, hours_ago=25)
    async with asyncio.timeout(10), database.transaction() as first:
        assert await purge(first, now=NOW, retention_h=24) == PURGE_MAX
        # While the first transaction is open.
        assert [await Purge(database, retention_h=24).run_once() for _ in range(4)] == [PURGE_MAX] * 3 + [0]
    assert await kept(database) == 0


@pytest.mark.parametrize("error", [DatabaseUnavailable, CommitUnknown])
async def test_a_database_that_is_away_ends_no_purge(
    database: Database, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    async def fail(_purge: Purge) -> int:
        raise error("away")

    monkeypatch.setattr(Purge, "run_once", fail)
    with capture_logs() as logs:
        running = asyncio.create_task(Purge(database, retention_h=24).run())
        await eventually(lambda: [line["event"] for line in logs] == ["purge.database_failed"])
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])
