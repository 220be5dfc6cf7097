"""Idempotency keys: bound in the transaction of what they protect, so that a refusal never binds one.

A key belongs to a scope (token subject and route) and to one request, known by its keyed fingerprint.
Draft of the IETF, and Stripe's practice: see docs/api.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert  # without a target it compiles on SQLite too
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.errors import IdempotencyKeyReused
from shared.models import idempotency_keys

PURGE_MAX = 1000  # keys removed in one transaction


@dataclass(frozen=True, slots=True)
class Claim:
    """A request's wish to be the first with its key."""

    scope: str
    key: str
    fingerprint: str
    object_id: UUID  # what the request will create or has changed

    @property
    def name(self) -> tuple[str, str]:
        """What the key is unique by."""
        return self.scope, self.key


async def bind(connection: AsyncConnection, claims: Sequence[Claim], *, now: datetime) -> dict[tuple[str, str], Claim]:
    """Bind each key to the first of `claims` that wants it, unless an earlier transaction did.

    Answers, for every key asked for, the claim that holds it: compare with `holds`. A key that another transaction
    is just binding is waited for.
    """
    if not claims:
        return {}
    first: dict[tuple[str, str], Claim] = {}
    for claim in claims:
        first.setdefault(claim.name, claim)
    statement = (
        insert(idempotency_keys).on_conflict_do_nothing().returning(idempotency_keys.c.scope, idempotency_keys.c.key)
    )
    rows = [
        {
            "scope": claim.scope,
            "key": claim.key,
            "fingerprint": claim.fingerprint,
            "object_id": claim.object_id,
            "created_at": now,
        }
        for _, claim in sorted(first.items())  # lock order
    ]
    bound = {(row.scope, row.key) for row in await connection.execute(statement, rows)}
    taken = [name for name in first if name not in bound]
    return first | await _holders(connection, taken)


async def unbind(connection: AsyncConnection, claims: Sequence[Claim]) -> None:
    """Undo `bind` in the same transaction, for requests that were refused after all."""
    if claims:
        names = sorted(claim.name for claim in claims)
        await connection.execute(
            delete(idempotency_keys).where(tuple_(idempotency_keys.c.scope, idempotency_keys.c.key).in_(names))
        )


def replayed(claim: Claim, holder: Claim) -> UUID | None:
    """The object of the first request if `claim` repeats it, None if `claim` is the first itself.

    Raises IdempotencyKeyReused if the key is bound to another request.
    """
    if holder is claim:
        return None
    if holder.fingerprint != claim.fingerprint:
        raise IdempotencyKeyReused("this key was used for another request")
    return holder.object_id


async def purge(connection: AsyncConnection, *, now: datetime, retention_h: int) -> int:
    """Forget at most 1,000 keys older than `retention_h` hours; returns how many."""
    old = (
        select(idempotency_keys.c.scope, idempotency_keys.c.key)
        .where(idempotency_keys.c.created_at < now - timedelta(hours=retention_h))
        .limit(PURGE_MAX)
    )
    gone = await connection.execute(
        delete(idempotency_keys).where(tuple_(idempotency_keys.c.scope, idempotency_keys.c.key).in_(old))
    )
    return gone.rowcount


async def _holders(connection: AsyncConnection, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Claim]:
    if not names:
        return {}
    found = await connection.execute(
        select(idempotency_keys).where(tuple_(idempotency_keys.c.scope, idempotency_keys.c.key).in_(names))
    )
    return {(row.scope, row.key): Claim(row.scope, row.key, row.fingerprint, row.object_id) for row in found}
