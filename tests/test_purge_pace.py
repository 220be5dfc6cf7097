"""The purge keeps up with 500 idempotency keys a second, and the number of old keys stays flat."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select

from shared.database.engine import Database
from shared.database.tables import idempotency_keys
from shared.ids import new_id
from worker.purge import IDLE_S, Purge

KEYS_PER_S = 500
LASTS_S = 60
WORKERS = 3
# What was there before: as after a day on which no worker ran.
BACKLOG = 20_000
# Old keys that may be there at a time: what comes between two looks, and as much again for a busy machine.
FLAT_MAX = 2 * KEYS_PER_S * IDLE_S


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_old_keys_go_as_fast_as_they_come(database: Database) -> None:
    await age(database, BACKLOG)
    purges = [asyncio.create_task(Purge(database, retention_h=24).run()) for _ in range(WORKERS)]
    counts = []
    for second in range(LASTS_S):
        began_at = asyncio.get_running_loop().time()
        await age(database, KEYS_PER_S)
        if second % 5 == 0:
            counts.append(await old_keys(database))
        await asyncio.sleep(max(0.0, began_at + 1 - asyncio.get_running_loop().time()))
    for purge in purges:
        purge.cancel()
    results = await asyncio.gather(*purges, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    print(counts)  # noqa: T201 - the figures of docs/performance.md
    # The backlog is gone within the first half, and nothing piles up in the second.
    assert max(counts[len(counts) // 2 :]) <= FLAT_MAX, counts


async def age(database: Database, count: int) -> None:
    """Insert so many keys that have just become too old."""
    async with database.transaction() as connection:
        at = await database.clock.now(connection) - timedelta(hours=24, seconds=1)
        row = {"scope": "user:1 POST /payments", "fingerprint": "f" * 64, "created_at": at}
        rows = [{**row, "key": str(new_id()), "object_id": new_id()} for _ in range(count)]
        await connection.execute(insert(idempotency_keys), rows)


async def old_keys(database: Database) -> int:
    async with database.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(idempotency_keys))).scalar_one())
