"""Rows that are due: one way to find, claim and hold work in `payments` and `deliveries`.

`due_at` says when somebody must look at a row, `attempt` counts the claims and fences what is written afterwards.
Nothing here knows what the work is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Table, Update, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.any_of import any_of

PICK_UP_S = 5  # the relay's first look at new work: the published message has nearly always won by then
REPUBLISHED_AFTER_S = 30  # a published id that nobody claimed is published again after this long
CLOCKS_APART_S = 10  # two workers' clocks, at most: each follows the database's, but a slow answer leaves it behind


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """A ticket: a row and the number of claims it had when the ticket was written."""

    id: UUID
    attempt: int


async def take_due(connection: AsyncConnection, table: Table, *, now: datetime, limit: int) -> list[Ref]:
    """At most `limit` rows that are due, the longest due first; each is due again 30 s from `now`.

    Relays beside each other take different rows. A row that was taken and then forgotten is only late.
    """
    longest_due = select(table.c.id).where(table.c.due_at <= now).order_by(table.c.due_at).limit(limit)
    # Materialized: PostgreSQL may run a plain subquery once per row of a join, and each run locks `limit` rows more.
    due = longest_due.with_for_update(skip_locked=True).cte("due").prefix_with("MATERIALIZED", dialect="postgresql")
    taken = await connection.execute(
        update(table)
        .where(table.c.id.in_(select(due.c.id)), table.c.due_at <= now)
        .values(due_at=now + timedelta(seconds=REPUBLISHED_AFTER_S))
        .returning(table.c.id, table.c.attempt)
    )
    return [Ref(row.id, row.attempt) for row in taken]


async def give_back(connection: AsyncConnection, table: Table, refs: Sequence[Ref], *, now: datetime) -> None:
    """Make due at once what still has the ticket's attempt and waits for somebody: taken, but not published."""
    if refs:
        pairs = [(ref.id, ref.attempt) for ref in refs]
        await connection.execute(
            update(table)
            # The ids alone are for SQLite, which would scan the table for the pairs.
            .where(any_of(table.c.id, [ref.id for ref in refs]), tuple_(table.c.id, table.c.attempt).in_(pairs))
            .where(table.c.due_at.is_not(None))
            .values(due_at=now)
        )


async def claim(
    connection: AsyncConnection, table: Table, refs: Iterable[Ref], statement: Update
) -> Sequence[RowMapping]:
    """Run `statement` on the rows whose attempt still is their ticket's, and count the claim; the rows after it.

    Of several claims with equal tickets exactly one gets the row.
    """
    return await claim_locked(connection, table, await lock(connection, table, refs), statement)


async def claim_locked(
    connection: AsyncConnection, table: Table, held: Iterable[Ref], statement: Update
) -> Sequence[RowMapping]:
    """`claim` for tickets that `lock` has just found good."""
    ids = [ref.id for ref in held]
    if not ids:
        return []
    claimed = await connection.execute(
        statement.where(any_of(table.c.id, ids)).values(attempt=table.c.attempt + 1).returning(*table.c)
    )
    return claimed.mappings().all()


async def lock(
    connection: AsyncConnection, table: Table, refs: Iterable[Ref], *columns: ColumnElement[Any]
) -> dict[Ref, RowMapping]:
    """Those of `refs` whose row still has their attempt, with its `columns`; locked until the transaction ends.

    Locks in the order of the ids, so that two batches never deadlock. On SQLite, FOR UPDATE disappears and
    BEGIN IMMEDIATE already holds the one lock there is.
    """
    wanted = set(refs)
    if not wanted:
        return {}
    found = await connection.execute(
        select(table.c.id, table.c.attempt, *columns)
        .where(any_of(table.c.id, {ref.id for ref in wanted}))
        .order_by(table.c.id)
        .with_for_update()
    )
    standing = {Ref(row["id"], row["attempt"]): row for row in found.mappings()}
    return {ref: row for ref, row in standing.items() if ref in wanted}
