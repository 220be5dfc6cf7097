"""Leases: one way to find, claim and hold work in the tables `payments`, `refunds` and `deliveries`.

`due_at` says when a process must look at a row. `lease_version` counts the claims and is the fencing token of what is
written afterwards. This module does not know what the work is.

A row that waits is due in service time. While a worker or a queue holds it, it is due in real time, and `held_until` is
the same moment as `due_at`: so no speed of the clock, and no jump, ends the lease of a worker that lives. A version
that does not know `held_until` leaves an older moment there, and both times are the same while such a version runs.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Table, Update, and_, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.tables import columns_of

# Seconds until the relay looks at new work for the first time: the published job has nearly always been taken by then.
FIRST_RELAY_AFTER_S = 5
# Seconds until work that was published and not claimed is published again.
REPUBLISHED_AFTER_S = 30
# Seconds by which the clocks of two workers differ at most: each follows the database's, but a slow answer delays it.
CLOCK_SKEW_MAX_S = 10


@dataclass(frozen=True, slots=True, order=True)
class WorkItem:
    """A row that is due, with its fencing token: the lease version that the row had when the item was made."""

    id: UUID
    lease_version: int


@dataclass(frozen=True, slots=True)
class Claimed[R]:
    """A claimed row, and the reason that its history gives for the claim."""

    row: R
    reason: str


@dataclass(frozen=True, slots=True)
class Ended[R]:
    """A row that ended instead of being claimed. Publish `deliveries` after the commit."""

    row: R
    deliveries: tuple[WorkItem, ...]


def is_held(table: Table) -> ColumnElement[bool]:
    """Return whether a worker or a queue holds the row, so that its `due_at` is real time."""
    return table.c.held_until == table.c.due_at


def is_free(table: Table) -> ColumnElement[bool]:
    """Return whether nobody holds the row, so that its `due_at` is service time."""
    return or_(table.c.held_until.is_(None), table.c.held_until != table.c.due_at)


def is_due(table: Table, *, now: datetime, real_now: datetime) -> ColumnElement[bool]:
    """Return whether a row is due: if it is held, by real time, else by service time, which is never behind."""
    return and_(table.c.due_at <= now, or_(is_free(table), table.c.due_at <= real_now))


def hold(now: datetime, seconds: float, real_now: datetime | None = None) -> dict[str, datetime]:
    """Return the columns of a row that is held for so many seconds of real time, from `real_now` or else `now` on."""
    until = (real_now or now) + timedelta(seconds=seconds)
    return {"due_at": until, "held_until": until}


async def take_due(
    connection: AsyncConnection, table: Table, *, now: datetime, limit: int, real_now: datetime | None = None
) -> dict[WorkItem, datetime]:
    """Take at most `limit` rows that are due, the longest due first; each is due again in 30 s of real time.

    Return the moment since which each was due, for `give_back`. Relays that run at the same time take different rows.
    A row that a relay takes and never publishes is only late. Without `real_now`, `now` is real time too.
    """
    found = await connection.execute(
        select(*columns_of(table, "id", "lease_version"), table.c.due_at)
        .where(is_due(table, now=now, real_now=real_now or now))
        .order_by(table.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    due = {WorkItem(row.id, row.lease_version): row.due_at for row in found}
    if due:
        await connection.execute(
            update(table)
            .where(id_in(table.c.id, [item.id for item in due]))
            .values(hold(now, REPUBLISHED_AFTER_S, real_now))
        )
    return due


async def give_back(
    connection: AsyncConnection, table: Table, due: Mapping[WorkItem, datetime], *, taken_at: datetime
) -> None:
    """Make due what was taken at `taken_at` (real time) but not published, since the same moments as before.

    So a row that nobody can publish shows how long it has been waiting. A row that was claimed meanwhile is left alone,
    and so is one that waits for another moment by now, such as the end of its authorization.
    """
    if due:
        await connection.execute(
            update(table)
            .where(
                table.c.id == bindparam("of_id"),
                table.c.lease_version == bindparam("of_version"),
                table.c.due_at == taken_at + timedelta(seconds=REPUBLISHED_AFTER_S),
            )
            .values(due_at=bindparam("since"), held_until=None),
            # In the order of the ids, so that two batches never deadlock.
            [{"of_id": item.id, "of_version": item.lease_version, "since": due[item]} for item in sorted(due)],
        )


async def hasten(
    connection: AsyncConnection, table: Table, ids: Collection[UUID], *which: ColumnElement[bool], now: datetime
) -> list[WorkItem]:
    """Make those of the rows due that meet the conditions and are due later; publish the result after the commit.

    The publication has a head start over the relay. A row that is due within that time is left alone.
    """
    soon = now + timedelta(seconds=FIRST_RELAY_AFTER_S)
    found = await connection.execute(
        select(*columns_of(table, "id", "lease_version"))
        .where(id_in(table.c.id, ids), *which, table.c.due_at > soon)
        .order_by(table.c.id)
        # A row that somebody else holds is being claimed.
        .with_for_update(skip_locked=True)
    )
    items = [WorkItem(row.id, row.lease_version) for row in found]
    if items:
        await connection.execute(
            update(table).where(id_in(table.c.id, [item.id for item in items])).values(due_at=soon, held_until=None)
        )
    return items


async def claim(
    connection: AsyncConnection, table: Table, items: Iterable[WorkItem], statement: Update
) -> Sequence[RowMapping]:
    """Run `statement` on the rows that still have their item's lease version, and count the claim.

    Return the rows after it. Of several claims with equal items exactly one gets the row.
    """
    return await claim_locked(connection, table, await lock(connection, table, items), statement)


async def claim_locked(
    connection: AsyncConnection, table: Table, held: Iterable[WorkItem], statement: Update
) -> Sequence[RowMapping]:
    """Do what `claim` does, for items that `lock` has just found valid."""
    ids = [item.id for item in held]
    if not ids:
        return []
    claimed = await connection.execute(
        statement.where(id_in(table.c.id, ids))
        .values(lease_version=table.c.lease_version + 1)
        .returning(*columns_of(table))
    )
    return claimed.mappings().all()


async def lock(
    connection: AsyncConnection, table: Table, items: Iterable[WorkItem], *columns: ColumnElement[Any]
) -> dict[WorkItem, RowMapping]:
    """Lock the rows that still have their item's lease version until the transaction ends; return their `columns`.

    Locks in the order of the ids, so that two batches never deadlock. On SQLite, FOR UPDATE disappears and
    BEGIN IMMEDIATE already holds the one lock there is.
    """
    wanted = set(items)
    if not wanted:
        return {}
    found = await connection.execute(
        select(*columns_of(table, "id", "lease_version"), *columns)
        .where(id_in(table.c.id, {item.id for item in wanted}))
        .order_by(table.c.id)
        .with_for_update()
    )
    valid = {WorkItem(row["id"], row["lease_version"]): row for row in found.mappings()}
    return {item: row for item, row in valid.items() if item in wanted}
