"""Scans the tables by ranges of ids and collects breaches. It must write nothing, and keeps a bounded list.

The service may work at the same time without false alarms. Each statement sees the database at one moment: its own
snapshot on PostgreSQL, a read transaction of one range on SQLite. Rows that must agree are written in one transaction:
a payment, its move, its event and the deliveries. The gateway commits to its ledger before the payment is recorded. So
no long snapshot is needed, which would hold up PostgreSQL's vacuum or let SQLite's WAL grow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import rfc3339
from shared.database.engine import Database
from shared.database.leases import CLOCK_SKEW_MAX_S, REPUBLISHED_AFTER_S
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, idempotency_keys, payments
from shared.event_types import EventType
from shared.verify import (
    balance_checks,
    delivery_checks,
    due_checks,
    event_checks,
    history_checks,
    ledger_checks,
    payment_checks,
    waiting_checks,
)
from shared.verify.breaches import BreachKind
from shared.verify.event_checks import SETTLING_S
from shared.verify.statements import Query, Times

# Payments, or keys, that one statement reads, which takes a fraction of a second.
RANGE = 20_000
# Breaches of each kind that are kept with their ids.
SHOWN_MAX = 100
FIRST, LAST = UUID(int=0), UUID(int=2**128 - 1)

LEDGER = (ledger_checks.charges(), ledger_checks.orphans(), ledger_checks.refunds_at_the_gateway())
RECORDS = (
    history_checks.histories(),
    history_checks.refund_histories(),
    payment_checks.live_twice(),
    balance_checks.balances(),
)
DELIVERIES = (
    event_checks.events_missing(),
    event_checks.refund_events_missing(),
    event_checks.unexpected_events(),
    event_checks.order_conflicts_repeated(),
    delivery_checks.missing_callback_deliveries(),
    delivery_checks.missing_endpoint_deliveries(),
    delivery_checks.silent_order_updates(),
)
OPEN = (due_checks.open_payments(), due_checks.refunds_never_due(), due_checks.deliveries_never_due())


@dataclass(slots=True)
class Found:
    """The results of a scan so far."""

    shown_max: int = SHOWN_MAX
    # Payments and keys that were checked.
    payments: int = 0
    keys: int = 0
    totals: dict[BreachKind, int] = field(default_factory=dict)
    # The ids of at most `shown_max` breaches of each kind.
    shown: dict[BreachKind, list[dict[str, Any]]] = field(default_factory=dict)
    # For each table, the seconds for which its oldest open row has been due; 0 if none is due.
    oldest_due_s: dict[str, float] = field(default_factory=dict)
    # For each table, the seconds for which its oldest row has waited for its first claim; 0 if none waits.
    oldest_unclaimed_s: dict[str, float] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """There is no breach."""
        return not self.totals

    @property
    def total(self) -> int:
        """The number of breaches of all kinds."""
        return sum(self.totals.values())

    def note(self, kind: BreachKind, ids: dict[str, Any] | None, count: int = 1) -> None:
        """Count `count` breaches, and keep one with its `ids` if the list of its kind is not full."""
        if count:
            self.totals[kind] = self.totals.get(kind, 0) + count
        shown = self.shown.setdefault(kind, [])
        if ids is not None and len(shown) < self.shown_max:
            shown.append(ids)


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan of everything in `database`. Its results are in `found`."""

    database: Database
    found: Found = field(default_factory=Found)
    range_size: int = RANGE
    # Called with the number of payments or keys that were checked since the last call.
    on_progress: Callable[[int], None] = lambda _count: None

    async def size(self) -> int:
        """Return the number of payments and keys in the tables."""
        async with self.database.read() as connection:
            counts = [
                (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                for table in (payments, idempotency_keys)
            ]
        return sum(counts)

    async def of_payments(self, queries: Sequence[Query]) -> None:
        """Run `queries` on each range of payments. Payments that arrive meanwhile belong to the last range."""
        after, upto = FIRST, FIRST
        while upto != LAST:
            # A transaction for each range, so that SQLite's WAL can be truncated in between.
            async with self.database.read() as connection:
                end = await connection.execute(payment_checks.next_payment(count=self.range_size), {"after": after})
                upto = end.scalar_one_or_none() or LAST
                now = await self.database.clock.now(connection)
                over = Times.away(self.database.clock, now, CLOCK_SKEW_MAX_S)
                between = {"after": after, "upto": upto, "over": over.service}
                count = (await connection.execute(payment_checks.payments_between(), between)).scalar_one()
                for query in queries:
                    await self._collect(connection, query, between)
            self.found.payments += count
            self.on_progress(count)
            after = upto

    async def of_keys(self) -> None:
        """Check every idempotency key."""
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            names = {"after_scope": after[0], "after_key": after[1]}
            async with self.database.read() as connection:
                end = (await connection.execute(payment_checks.next_key(count=self.range_size), names)).one_or_none()
                after = (end.scope, end.key) if end else None
                if after is not None:
                    names |= {"upto_scope": after[0], "upto_key": after[1]}
                count = await connection.execute(payment_checks.keys_between(has_end=after is not None), names)
                looked_at = count.scalar_one()
                await self._collect(connection, payment_checks.dangling_keys(has_end=after is not None), names)
            self.found.keys += looked_at
            self.on_progress(looked_at)

    async def order_update_queries(self, since: datetime | None, event_type: EventType) -> list[Query]:
        """Return the query for missing order updates of events of this type that happened after `since`.

        None means a minute after the first such update. If there never was one, return no query: no table says whether
        there should have been one.
        """
        if since is None:
            async with self.database.read() as connection:
                first = (await connection.execute(delivery_checks.first_order_update(event_type))).scalar_one_or_none()
            if first is None:
                return []
            since = first + timedelta(seconds=SETTLING_S)
        return [delivery_checks.missing_order_deliveries(since, event_type)]

    async def of_due(self, limit_s: float) -> None:
        """Check that no row has been due for more than `limit_s` seconds."""
        for table, kind in due_checks.OVERDUE.items():
            async with self.database.read() as connection:
                await self._of_due(connection, table, kind, limit_s)

    async def of_leases(self, work_s: float, delivery_s: float) -> None:
        """Check that no claimed row is due later than a lease lasts, or than the relay makes it due.

        A lease of a payment or refund lasts `work_s` seconds, and one of a delivery `delivery_s`.
        """
        limit = self.found.shown_max
        for table, lease_s in ((payments, work_s), (refunds, work_s), (deliveries, delivery_s)):
            longest_s = max(lease_s, REPUBLISHED_AFTER_S) + CLOCK_SKEW_MAX_S
            async with self.database.read() as connection:
                now = await self.database.clock.now(connection)
                latest = Times.away(self.database.clock, now, longest_s)
                found = await connection.execute(due_checks.leased_too_long(table, latest, limit))
                rows = found.mappings().all()
            for row in rows:
                self.found.note(BreachKind(row["kind"]), _ids(row), 0)
            if rows:
                self.found.note(BreachKind(rows[0]["kind"]), None, rows[0]["total"])

    async def _of_due(self, connection: AsyncConnection, table: Table, kind: BreachKind, limit_s: float) -> None:
        clock = self.database.clock
        now = await clock.now(connection)
        at_once, before = Times.away(clock, now, 0), Times.away(clock, now, -limit_s)
        oldest = (await connection.execute(due_checks.oldest_due(table, at_once))).one()
        speed = clock.time.speed_at(at_once.real)
        waited_s = [(now - oldest.others).total_seconds() / speed] if oldest.others else []
        waited_s += [(at_once.real - oldest.held).total_seconds()] if oldest.held else []
        self.found.oldest_due_s[str(table.name)] = max(waited_s, default=0.0)
        count = (await connection.execute(due_checks.overdue_count(table, before))).scalar_one()
        if count:
            examples = due_checks.overdue(table, before, self.found.shown_max)
            self.found.note(kind, None, count)
            for row in (await connection.execute(examples)).mappings():
                self.found.note(kind, _ids(row), 0)

    async def of_unclaimed(self, limit_s: float) -> None:
        """Check that no row has waited for its first claim for more than `limit_s` seconds."""
        for table, kind in waiting_checks.UNCLAIMED.items():
            async with self.database.read() as connection:
                now = await self.database.clock.now(connection)
                speed = self.database.clock.time.speed_at(self.database.clock.real_now())
                before = now - timedelta(seconds=limit_s) * speed
                oldest = (await connection.execute(waiting_checks.oldest_unclaimed(table))).scalar_one()
                waited_s = (now - oldest).total_seconds() / speed if oldest else 0.0
                self.found.oldest_unclaimed_s[str(table.name)] = max(0.0, waited_s)
                count = (await connection.execute(waiting_checks.unclaimed_count(table, before=before))).scalar_one()
                if count:
                    examples = waiting_checks.unclaimed(table, before=before, limit=self.found.shown_max)
                    self.found.note(kind, None, count)
                    for row in (await connection.execute(examples)).mappings():
                        self.found.note(kind, _ids(row), 0)

    async def _collect(self, connection: AsyncConnection, query: Query, parameters: dict[str, Any]) -> None:
        for row in (await connection.execute(query, parameters)).mappings():
            self.found.note(BreachKind(row["kind"]), _ids(row))


def _ids(row: Any) -> dict[str, Any]:
    """Return the columns that locate a breach, as JSON values."""
    return {str(name): _plain(value) for name, value in row.items() if name not in {"kind", "total"}}


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return rfc3339(value)
        case UUID():
            return str(value)
        case _:
            return value
