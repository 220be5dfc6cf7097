"""Work that users steer: which rows it is, and how much of it a worker claims at once."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, RowMapping, Table, and_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.id_list import id_in
from shared.database.leases import WorkItem

# A principal that is a user.
USER_PREFIX = "user:"
# Seconds until a row is due again that a worker has left, because users steer enough of its slots.
LEFT_FOR_S = 2.0
_IS_STEERED = "is_steered"


def is_steered_by_user(table: Table) -> ColumnElement[bool]:
    """Return the column, for `leases.lock`, that `leave_steered` reads."""
    return and_(table.c.steering.is_not(None), table.c.created_by.startswith(USER_PREFIX)).label(_IS_STEERED)


async def leave_steered(
    connection: AsyncConnection,
    table: Table,
    held: Mapping[WorkItem, RowMapping],
    *,
    steered_max: int | None,
    now: datetime,
) -> dict[WorkItem, RowMapping]:
    """Return the rows that are to be claimed of those that are locked.

    Those that users steer beyond the first `steered_max` are left, and due again soon.
    """
    steered = [item for item, row in held.items() if row[_IS_STEERED]]
    left = set() if steered_max is None else set(steered[steered_max:])
    if left:
        await connection.execute(
            update(table)
            .where(id_in(table.c.id, [item.id for item in left]))
            .values(due_at=now + timedelta(seconds=LEFT_FOR_S), held_until=None)
        )
    return {item: row for item, row in held.items() if item not in left}
