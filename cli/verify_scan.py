"""Goes through the tables by ranges of ids and collects what is broken. It writes nothing and keeps a bounded list.

The service may be at work meanwhile, and no alarm is false: each statement sees one moment of the database (its own
snapshot on PostgreSQL, a read transaction of one range on SQLite), and what must agree is written in one transaction:
a payment, its move, its event and the deliveries. The gateway commits to its ledger before the payment's record
follows. So no long snapshot is needed, which would hold up PostgreSQL's vacuum or let SQLite's WAL grow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cli import verify_records as records
from cli import verify_telling as telling
from cli.verify_kinds import BreachKind
from cli.verify_records import Query
from shared.clock import rfc3339
from shared.db import Database
from shared.models import deliveries, idempotency_keys, payments

RANGE = 20_000  # payments, or keys, that one statement looks at: a fraction of a second
SHOWN_MAX = 100  # breaches of a kind that are kept with their ids
FIRST, LAST = UUID(int=0), UUID(int=2**128 - 1)

LEDGER = (records.charges(), records.charges_of_nobody())
RECORDS = (records.histories(), records.live_twice())
TOLD = (
    telling.events_missing(),
    telling.events_uncalled(),
    telling.callbacks_untold(),
    telling.endpoints_untold(),
    telling.silent_order_updates(),
)
OPEN = (telling.payments_never_due(), telling.deliveries_never_due())
_OVERDUE = (payments, BreachKind.PAYMENT_OVERDUE), (deliveries, BreachKind.DELIVERY_OVERDUE)


@dataclass(slots=True)
class Found:
    """What a scan has found so far."""

    shown_max: int = SHOWN_MAX
    payments: int = 0  # looked at
    keys: int = 0
    totals: dict[BreachKind, int] = field(default_factory=dict)
    shown: dict[BreachKind, list[dict[str, Any]]] = field(default_factory=dict)  # at most `shown_max` of each
    oldest_due_s: dict[str, float] = field(default_factory=dict)  # by table; 0 = nothing is due

    @property
    def is_sound(self) -> bool:
        """No breach."""
        return not self.totals

    @property
    def total(self) -> int:
        """Breaches of all kinds."""
        return sum(self.totals.values())

    def note(self, kind: BreachKind, ids: dict[str, Any] | None, count: int = 1) -> None:
        """Count breaches, and keep one with its ids if there is room."""
        if count:
            self.totals[kind] = self.totals.get(kind, 0) + count
        shown = self.shown.setdefault(kind, [])
        if ids is not None and len(shown) < self.shown_max:
            shown.append(ids)


@dataclass(frozen=True, slots=True)
class Scan:
    """One look at everything in `database`."""

    database: Database
    found: Found = field(default_factory=Found)
    range_size: int = RANGE
    moved: Callable[[int], None] = lambda _count: None  # told how many payments and keys were looked at

    async def size(self) -> int:
        """How many payments and keys there are to look at."""
        async with self.database.read() as connection:
            counts = [
                (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                for table in (payments, idempotency_keys)
            ]
        return sum(counts)

    async def of_payments(self, queries: Sequence[Query]) -> None:
        """Run `queries` on every range of payments; those that arrive meanwhile belong to the last one."""
        after, upto = FIRST, FIRST
        while upto != LAST:
            async with self.database.read() as connection:  # SQLite: its transaction lasts for this range only
                end = await connection.execute(records.next_payment(count=self.range_size), {"after": after})
                upto = end.scalar_one_or_none() or LAST
                between = {"after": after, "upto": upto}
                count = (await connection.execute(records.payments_between(), between)).scalar_one()
                for query in queries:
                    await self._collect(connection, query, between)
            self.found.payments += count
            self.moved(count)
            after = upto

    async def of_keys(self) -> None:
        """Look at every idempotency key."""
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            names = {"after_scope": after[0], "after_key": after[1]}
            async with self.database.read() as connection:
                end = (await connection.execute(records.next_key(count=self.range_size), names)).one_or_none()
                after = (end.scope, end.key) if end else None
                if after is not None:
                    names |= {"upto_scope": after[0], "upto_key": after[1]}
                count = await connection.execute(records.keys_between(has_end=after is not None), names)
                looked_at = count.scalar_one()
                await self._collect(connection, records.keys_of_nothing(has_end=after is not None), names)
            self.found.keys += looked_at
            self.moved(looked_at)

    async def of_order_updates(self, since: datetime | None) -> list[Query]:
        """What to ask about order updates, `since` then or, if that is None, since the first of them and a little.

        Nothing where there never was one: whether somebody should have been told, no table says.
        """
        if since is None:
            async with self.database.read() as connection:
                first = (await connection.execute(telling.first_order_update())).scalar_one_or_none()
            if first is None:
                return []
            since = first + timedelta(seconds=telling.SETTLING_S)
        return [telling.orders_untold(since)]

    async def of_due(self, limit_s: float) -> None:
        """Look for rows that have been due for more than `limit_s` seconds."""
        for table, kind in _OVERDUE:
            async with self.database.read() as connection:
                await self._of_due(connection, table, kind, limit_s)

    async def _of_due(self, connection: AsyncConnection, table: Table, kind: BreachKind, limit_s: float) -> None:
        now = await self.database.clock.now(connection)
        before = now - timedelta(seconds=limit_s)
        oldest = (await connection.execute(telling.oldest_due(table, now=now))).scalar_one()
        self.found.oldest_due_s[str(table.name)] = (now - oldest).total_seconds() if oldest else 0.0
        count = (await connection.execute(telling.overdue_count(table, before=before))).scalar_one()
        if count:
            examples = telling.overdue(table, kind, before=before, limit=self.found.shown_max)
            self.found.note(kind, None, count)
            for row in (await connection.execute(examples)).mappings():
                self.found.note(kind, _ids(row), 0)

    async def _collect(self, connection: AsyncConnection, query: Query, parameters: dict[str, Any]) -> None:
        for row in (await connection.execute(query, parameters)).mappings():
            self.found.note(BreachKind(row["kind"]), _ids(row))


def _ids(row: Any) -> dict[str, Any]:
    """Where it is, as JSON may have it."""
    return {str(name): _plain(value) for name, value in row.items() if name != "kind"}


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return rfc3339(value)
        case UUID():
            return str(value)
        case _:
            return value
