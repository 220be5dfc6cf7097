"""The table of idempotency keys: who holds which, and when they are forgotten."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from shared.database.engine import Database
from shared.database.tables import idempotency_keys
from shared.errors import IdempotencyKeyReused
from shared.idempotency import PURGE_MAX, KeyRequest, bind, purge, replayed, unbind
from shared.ids import new_id
from tests.support.idempotency import keys

pytest_plugins = ["tests.support.api_fixtures"]


async def test_bound_keys_are_answered_with_who_holds_them(database: Database) -> None:
    first = KeyRequest("s", "k", "f1", new_id())
    second = KeyRequest("s", "k", "f1", new_id())
    other = KeyRequest("s", "k", "f2", new_id())
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        assert await bind(connection, [], now=now) == {}
        assert (await bind(connection, [first, second], now=now))[first.name] is first
    async with database.transaction() as connection:
        holder = (await bind(connection, [second], now=now))[second.name]
        assert replayed(first, first) is None
        assert replayed(second, holder) == first.object_id
        with pytest.raises(IdempotencyKeyReused):
            replayed(other, holder)
        await unbind(connection, [first])
        assert (await bind(connection, [other], now=now))[other.name] is other


async def test_keys_are_forgotten_after_their_retention_in_bounded_batches(database: Database) -> None:
    key_requests = [KeyRequest("s", f"k{n}", "f", new_id()) for n in range(1100)]
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        await bind(connection, key_requests, now=now)
        await connection.execute(
            update(idempotency_keys)
            .where(idempotency_keys.c.key != "k0")
            .values(created_at=now - timedelta(hours=24, milliseconds=1))
        )
    gone = []
    for _ in range(4):
        async with database.transaction() as connection:
            gone.append(await purge(connection, now=now, retention_h=24))
    assert gone == [PURGE_MAX, PURGE_MAX, 99, 0]
    assert await keys(database) == [("s", "k0")]
