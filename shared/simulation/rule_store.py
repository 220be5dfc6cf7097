"""The rules in the database: add, find, list and delete them, and remove what nobody needs any more.

Uses are written elsewhere: see `shared.simulation.rule_uses`.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Table, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.simulation_tables import simulation_rule_changes, simulation_rule_uses, simulation_rules
from shared.errors import SimulationRuleLimit
from shared.simulation.rules import LIVE_RULES_MAX, Rule, read_effect, read_match

# Hours for which a rule that cannot fire any more is kept, and each use of a rule.
KEPT_H = 24
# Rows removed in one transaction: a few milliseconds.
PURGE_MAX = 500

_COLUMNS = [column for column in simulation_rules.c if column.key not in {"used_up_at", "deleted_at"}]
_IS_LISTED = simulation_rules.c.deleted_at.is_(None)
# The only row of the table.
_CHANGES = 1


async def rules_version(connection: AsyncConnection) -> int:
    """Return the number of changes of the rules so far."""
    return (await connection.execute(select(simulation_rule_changes.c.version))).scalar_one_or_none() or 0


async def live_rules(connection: AsyncConnection, now: datetime) -> list[Rule]:
    """Return the rules that can still fire, the newest first."""
    found = await connection.execute(
        select(*_COLUMNS).where(_can_fire(now)).order_by(simulation_rules.c.id.desc()).limit(LIVE_RULES_MAX)
    )
    return [_rule(row) for row in found.mappings()]


async def list_rules(
    connection: AsyncConnection, *, limit: int | None = None, before: UUID | None = None
) -> list[Rule]:
    """Return the rules that were not deleted, the newest first; with `before`, only older ones.

    Rules that cannot fire any more are among them, for KEPT_H hours.
    """
    wanted = select(*_COLUMNS).where(_IS_LISTED).order_by(simulation_rules.c.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(simulation_rules.c.id < before)
    return [_rule(row) for row in (await connection.execute(wanted)).mappings()]


async def find_rule(connection: AsyncConnection, rule_id: UUID) -> Rule | None:
    """Return the rule with this id; None if there is none or it was deleted."""
    found = await connection.execute(select(*_COLUMNS).where(simulation_rules.c.id == rule_id, _IS_LISTED))
    row = found.mappings().one_or_none()
    return _rule(row) if row else None


async def add_rule(connection: AsyncConnection, rule: Rule) -> None:
    """Store a new rule. Raises SimulationRuleLimit if LIVE_RULES_MAX rules can fire already."""
    await _take_turn(connection)
    live = select(func.count()).select_from(simulation_rules).where(_can_fire(rule.created_at))
    if (await connection.execute(live)).scalar_one() >= LIVE_RULES_MAX:
        raise SimulationRuleLimit(
            f"There are {LIVE_RULES_MAX:,} rules that can fire. Delete one before adding another."
        )
    row = {
        "id": rule.id,
        "name": rule.name,
        "match": rule.match.to_json(),
        "effect": rule.effect.to_json(),
        "times": rule.times,
        "used": rule.used,
        "created_by": rule.created_by,
        "created_at": rule.created_at,
        "expires_at": rule.expires_at,
    }
    await connection.execute(insert(simulation_rules), row)


async def delete_rule(connection: AsyncConnection, rule_id: UUID, *, now: datetime) -> Rule | None:
    """Delete the rule and return it; None if there is none or it was deleted before."""
    await _take_turn(connection)
    deleted = await connection.execute(
        update(simulation_rules)
        .where(simulation_rules.c.id == rule_id, _IS_LISTED)
        .values(deleted_at=now)
        .returning(*_COLUMNS)
    )
    row = deleted.mappings().one_or_none()
    return _rule(row) if row else None


async def delete_rules(connection: AsyncConnection, *, now: datetime) -> int:
    """Delete all rules. Return how many there were."""
    await _take_turn(connection)
    # In the order of the ids, because that is the order of the locks.
    listed = select(simulation_rules.c.id).where(_IS_LISTED).order_by(simulation_rules.c.id).with_for_update()
    await connection.execute(listed)
    deleted = await connection.execute(update(simulation_rules).where(_IS_LISTED).values(deleted_at=now))
    return deleted.rowcount


async def purge_rules(connection: AsyncConnection, *, now: datetime) -> int:
    """Remove at most PURGE_MAX uses that are older than KEPT_H hours and, when none is left, as many rules.

    Rules are removed that could not fire any more for so long. Return how many rows were removed. Workers that purge
    at the same time remove different rows, and wait for nothing.
    """
    before = now - timedelta(hours=KEPT_H)
    used_at = simulation_rule_uses.c.created_at
    removed = await _remove(connection, simulation_rule_uses, used_at < before, used_at)
    if removed:
        return removed
    rules = simulation_rules.c
    has_ended = or_(rules.deleted_at < before, rules.used_up_at < before, rules.expires_at < before)
    return await _remove(connection, simulation_rules, has_ended, rules.id)


async def _remove(connection: AsyncConnection, table: Table, is_old: ColumnElement[bool], order: Column[Any]) -> int:
    key = list(table.primary_key)
    oldest = select(*key).where(is_old).order_by(order).limit(PURGE_MAX).with_for_update(skip_locked=True)
    # Materialized: PostgreSQL may run a plain subquery once per row of a join, and each run locks more rows.
    old = oldest.cte("old").prefix_with("MATERIALIZED", dialect="postgresql")
    removed = await connection.execute(
        delete(table)
        .where(tuple_(*key).in_(select(*(old.c[column.key] for column in key))))
        # SQLite counts no rows of a statement that begins with WITH.
        .returning(key[0])
    )
    return len(removed.all())


async def _take_turn(connection: AsyncConnection) -> None:
    """Count a change of the rules, and wait for the end of a transaction that is changing them."""
    # Without a target it compiles on SQLite too.
    first = insert_or_ignore(simulation_rule_changes).on_conflict_do_nothing()
    await connection.execute(first, {"id": _CHANGES, "version": 0})
    version = simulation_rule_changes.c.version
    await connection.execute(update(simulation_rule_changes).values(version=version + 1))


def _can_fire(now: datetime) -> ColumnElement[bool]:
    rules = simulation_rules.c
    is_in_time = or_(rules.expires_at.is_(None), rules.expires_at > now)
    return rules.deleted_at.is_(None) & rules.used_up_at.is_(None) & is_in_time


def _rule(row: Mapping[Any, Any]) -> Rule:
    return Rule(**{**row, "match": read_match(row["match"]), "effect": read_effect(row["effect"])})
