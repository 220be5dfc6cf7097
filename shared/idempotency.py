"""Idempotency keys. A key is bound in the transaction of what it protects, so that a refused request binds none.

A key belongs to a scope (token subject and route) and to one request, which is recognised by its keyed fingerprint.
The rules are those of the IETF's draft and of Stripe's practice: see docs/api.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, tuple_

# ON CONFLICT without a target compiles for SQLite too.
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.tables import idempotency_keys
from shared.errors import IdempotencyKeyReused

# Keys removed in one transaction: a few milliseconds.
PURGE_MAX = 500


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A request with its idempotency key, before it is known whether it is the first with that key."""

    scope: str
    key: str
    fingerprint: str
    # The object that the request will create or has changed.
    object_id: UUID

    @property
    def name(self) -> tuple[str, str]:
        """The scope and the key, which are unique together."""
        return self.scope, self.key


async def bind(
    connection: AsyncConnection, key_requests: Sequence[KeyRequest], *, now: datetime
) -> dict[tuple[str, str], KeyRequest]:
    """Bind each key to the first of `key_requests` that has it, unless an earlier transaction has bound it.

    Return the request that holds each key; `replayed` compares another one with it. If another transaction is
    binding a key at this moment, this waits for its end.
    """
    if not key_requests:
        return {}
    first: dict[tuple[str, str], KeyRequest] = {}
    for key_request in key_requests:
        first.setdefault(key_request.name, key_request)
    statement = (
        insert(idempotency_keys).on_conflict_do_nothing().returning(idempotency_keys.c.scope, idempotency_keys.c.key)
    )
    rows = [
        {
            "scope": key_request.scope,
            "key": key_request.key,
            "fingerprint": key_request.fingerprint,
            "object_id": key_request.object_id,
            "created_at": now,
        }
        for _, key_request in sorted(first.items())  # lock order
    ]
    bound = {(row.scope, row.key) for row in await connection.execute(statement, rows)}
    taken = [name for name in first if name not in bound]
    return first | await _holders(connection, taken)


async def unbind(connection: AsyncConnection, key_requests: Sequence[KeyRequest]) -> None:
    """Undo `bind` in the same transaction, for requests that were refused after all."""
    if key_requests:
        names = sorted(key_request.name for key_request in key_requests)
        await connection.execute(
            delete(idempotency_keys).where(tuple_(idempotency_keys.c.scope, idempotency_keys.c.key).in_(names))
        )


def replayed(key_request: KeyRequest, holder: KeyRequest) -> UUID | None:
    """Return the object of the first request if `key_request` repeats that one; None if it is the first itself.

    Raises IdempotencyKeyReused if the key is bound to another request.
    """
    if holder is key_request:
        return None
    if holder.fingerprint != key_request.fingerprint:
        raise IdempotencyKeyReused("This idempotency key was used for another request. Use a new key.")
    return holder.object_id


async def purge(connection: AsyncConnection, *, now: datetime, retention_h: int) -> int:
    """Delete at most PURGE_MAX keys that are older than `retention_h` hours, the oldest first. Return how many.

    Workers that purge at the same time delete different keys, and wait for nothing.
    """
    oldest = (
        select(idempotency_keys.c.scope, idempotency_keys.c.key)
        .where(idempotency_keys.c.created_at < now - timedelta(hours=retention_h))
        .order_by(idempotency_keys.c.created_at)
        .limit(PURGE_MAX)
        .with_for_update(skip_locked=True)
    )
    # Materialized: PostgreSQL may run a plain subquery once per row of a join, and each run locks more rows.
    old = oldest.cte("old").prefix_with("MATERIALIZED", dialect="postgresql")
    gone = await connection.execute(
        delete(idempotency_keys)
        .where(tuple_(idempotency_keys.c.scope, idempotency_keys.c.key).in_(select(old.c.scope, old.c.key)))
        # SQLite counts no rows of a statement that begins with WITH.
        .returning(idempotency_keys.c.key)
    )
    return len(gone.all())


async def _holders(connection: AsyncConnection, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], KeyRequest]:
    if not names:
        return {}
    found = await connection.execute(
        select(idempotency_keys).where(tuple_(idempotency_keys.c.scope, idempotency_keys.c.key).in_(names))
    )
    return {(row.scope, row.key): KeyRequest(row.scope, row.key, row.fingerprint, row.object_id) for row in found}
