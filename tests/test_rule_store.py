"""The rules in the database: changes one after another, and a purge of what nobody needs, on both databases."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.database.simulation_tables import simulation_rule_uses, simulation_rules
from shared.errors import SimulationRuleLimit
from shared.ids import new_id
from shared.simulation.rule_store import KEPT_H, PURGE_MAX, add_rule, live_rules, purge_rules, rules_version
from shared.simulation.rules import LIVE_RULES_MAX
from tests.support.rules import NOW, ago, rule, stored
from worker.purge import Purge


async def in_transaction[T](database: Database, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    async with database.transaction() as connection:
        return await work(connection)


async def counts(database: Database) -> tuple[int, int]:
    async with database.read() as connection:
        tables = (simulation_rules, simulation_rule_uses)
        found = [await connection.execute(select(func.count()).select_from(table)) for table in tables]
        return found[0].scalar_one(), found[1].scalar_one()


FACTS: dict[str, Any] = {
    "name": "n",
    "match": {},
    "effect": {"outage": "slow"},
    "created_by": "admin:root",
    "created_at": ago(hours=100),
    "times": None,
    "used": 0,
    "expires_at": None,
    "used_up_at": None,
    "deleted_at": None,
}


async def keep_rules(database: Database, count: int, **changes: Any) -> list[UUID]:
    ids = [new_id() for _ in range(count)]
    async with database.transaction() as connection:
        await connection.execute(insert(simulation_rules), [FACTS | changes | {"id": each} for each in ids])
    return ids


async def keep_uses(database: Database, count: int, *, hours_ago: float) -> None:
    rows = [
        {
            "target_id": new_id(),
            "operation": "charge",
            "operation_number": 0,
            "call_number": 1,
            "rule_id": new_id(),
            "fired": {},
            "created_at": ago(hours=hours_ago),
        }
        for _ in range(count)
    ]
    async with database.transaction() as connection:
        await connection.execute(insert(simulation_rule_uses), rows)


async def test_changes_are_counted_and_come_one_after_another(database: Database) -> None:
    async with database.read() as connection:
        assert await rules_version(connection) == 0
    await asyncio.gather(*(stored(database, rule()) for _ in range(8)))
    async with database.read() as connection:
        assert await rules_version(connection) == 8


async def test_the_limit_is_exact_however_many_admins_there_are(database: Database) -> None:
    await keep_rules(database, LIVE_RULES_MAX - 3)
    results = await asyncio.gather(*(stored(database, rule()) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(each, SimulationRuleLimit) for each in results) == 3
    async with database.read() as connection:
        assert len(await live_rules(connection, NOW)) == LIVE_RULES_MAX


async def test_what_has_ended_is_not_live(database: Database) -> None:
    [wanted] = await keep_rules(database, 1, expires_at=NOW + timedelta(milliseconds=1))
    await keep_rules(database, 1, expires_at=NOW)
    await keep_rules(database, 1, used_up_at=NOW, times=1, used=1)
    await keep_rules(database, 1, deleted_at=NOW)
    async with database.read() as connection:
        assert [each.id for each in await live_rules(connection, NOW)] == [wanted]


async def test_rules_and_uses_are_kept_for_a_day_after_their_end_and_then_removed(database: Database) -> None:
    for member in ("expires_at", "used_up_at", "deleted_at"):
        await keep_rules(database, 1, **{member: ago(hours=KEPT_H + 1)})
        await keep_rules(database, 1, **{member: ago(hours=KEPT_H - 1)})
    await keep_rules(database, 1)
    await keep_uses(database, 2, hours_ago=KEPT_H + 1)
    await keep_uses(database, 3, hours_ago=KEPT_H - 1)
    purge = Purge(database, retention_h=24)
    # Uses go first: a rule never goes before one of its uses.
    assert [await purge.run_once() for _ in range(3)] == [2, 3, 0]
    assert await counts(database) == (4, 3)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_workers_that_purge_at_once_remove_different_rows(database: Database) -> None:
    await keep_uses(database, 2 * PURGE_MAX, hours_ago=KEPT_H + 1)
    async with asyncio.timeout(10), database.transaction() as first:
        assert await purge_rules(first, now=NOW) == PURGE_MAX
        assert await in_transaction(database, lambda other: purge_rules(other, now=NOW)) == PURGE_MAX
    assert await counts(database) == (0, 0)


async def test_a_refused_rule_counts_as_no_change(database: Database) -> None:
    await keep_rules(database, LIVE_RULES_MAX)
    with pytest.raises(SimulationRuleLimit):
        await in_transaction(database, lambda connection: add_rule(connection, rule()))
    async with database.read() as connection:
        assert await rules_version(connection) == 0
