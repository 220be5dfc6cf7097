"""What is due, what is held and what comes next in the tables of work, for the process that advances the clock."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.leases import is_due, is_free, is_held
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, payments

WORK = (payments, refunds, deliveries)
# Due moments within so much time are taken together, as the relay takes them when the clock runs by itself.
TOGETHER, TOGETHER_LONGEST = timedelta(seconds=1), timedelta(minutes=10)
# A delivery may be late by this part of its wait: a tenth of what the jitter spreads the waits over. So many deliveries
# that failed together are taken in fewer steps, and still in their order.
DELIVERY_SHARE = 0.04
# Rows of one table that are taken together at most.
TOGETHER_MAX = 500


@dataclass(frozen=True, slots=True)
class Activity:
    """The open rows of one table at a moment: those that are due, those that are held, and the next due moment."""

    due: int
    held: int
    next_at: datetime | None


async def read_activity(connection: AsyncConnection, *, now: datetime, real_now: datetime) -> dict[Table, Activity]:
    """Return what is open in each table of work."""
    found = await connection.execute(union_all(*(_activity(table, now, real_now) for table in WORK)))
    rows = {row.name: Activity(row.due, row.held, row.next_at) for row in found}
    return {table: rows[table.name] for table in WORK}


def _activity(table: Table, now: datetime, real_now: datetime) -> Select[Any]:
    due = is_due(table, now=now, real_now=real_now)
    held = is_held(table) & (table.c.due_at > real_now)
    columns: list[ColumnElement[Any]] = [
        literal(table.name).label("name"),
        func.count().filter(due).label("due"),
        func.count().filter(held).label("held"),
        func.min(table.c.due_at).filter(is_free(table), table.c.due_at > now).label("next_at"),
    ]
    return select(*columns).where(table.c.due_at.is_not(None))


async def next_moment(connection: AsyncConnection, activity: Mapping[Table, Activity]) -> datetime | None:
    """Return the next moment to move the clock to; None if no row waits.

    That is the next due moment, or a little later if others follow within the time that the rows before them may wait.
    """
    next_at = {table: each.next_at for table, each in activity.items() if each.next_at is not None}
    if not next_at:
        return None
    first = min(next_at.values())
    rows: list[tuple[datetime, timedelta]] = []
    for table, moment in next_at.items():
        rows += await _waiting(connection, table, first) if moment <= first + TOGETHER else [(moment, TOGETHER)]
    latest, limit = first, first + TOGETHER_LONGEST
    for due_at, may_wait in sorted(rows):
        if due_at > limit:
            break
        latest, limit = due_at, min(limit, due_at + may_wait)
    return latest


async def _waiting(connection: AsyncConnection, table: Table, first: datetime) -> list[tuple[datetime, timedelta]]:
    """Return the moments from `first` on at which rows of a table are due, each with how late the row may be."""
    found = await connection.execute(
        select(table.c.due_at, table.c.updated_at)
        .where(table.c.due_at >= first, table.c.due_at <= first + TOGETHER_LONGEST, is_free(table))
        .order_by(table.c.due_at)
        .limit(TOGETHER_MAX)
    )
    share = DELIVERY_SHARE if table is deliveries else 0
    return [(row.due_at, max(TOGETHER, (row.due_at - row.updated_at) * share)) for row in found]


async def ended_of(connection: AsyncConnection, table: Table, ids: Collection[UUID]) -> set[UUID]:
    """Return those of the rows that will never be due again."""
    if not ids:
        return set()
    ended = await connection.execute(select(table.c.id).where(id_in(table.c.id, ids), table.c.due_at.is_(None)))
    return set(ended.scalars())
