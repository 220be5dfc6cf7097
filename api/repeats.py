"""A POST that can be repeated: its work and its idempotency key in one transaction, for all but `POST /payments`."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db import Database
from shared.errors import WriteConflict
from shared.idempotency import Claim, bind, replayed

REPEATED = {"Idempotent-Replayed": "true"}

type Work[T] = Callable[[AsyncConnection, datetime, UUID | None], Awaitable[T]]
"""Does the work, or for a repeat answers the object (its id is given) as it is now."""


async def once[T](database: Database, claim: Claim | None, work: Work[T]) -> tuple[T, bool]:
    """The answer of `work`, done at most once per key; True if this was a repeat.

    What `work` raises rolls the key back, too. A transaction that lost against another one is tried a second time.
    """
    try:
        return await _once(database, claim, work)
    except WriteConflict:
        return await _once(database, claim, work)


async def _once[T](database: Database, claim: Claim | None, work: Work[T]) -> tuple[T, bool]:
    async with database.transaction() as connection:
        now = await database.clock.now(connection)
        repeated = None
        if claim is not None:
            holders = await bind(connection, [claim], now=now)
            repeated = replayed(claim, holders[claim.name])
        answer = await work(connection, now, repeated)
    return answer, repeated is not None
