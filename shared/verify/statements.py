"""What the statements of `payments verify` share: their ranges, their kinds and the ids that locate a breach."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    String,
    Table,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    literal,
    select,
)

from shared.database.clock import Clock
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, payments
from shared.verify.breaches import BreachKind


@dataclass(frozen=True, slots=True)
class Times:
    """The same moment in both times."""

    service: datetime
    real: datetime

    @classmethod
    def away(cls, clock: Clock, now: datetime, seconds: float) -> Self:
        """Return the moment that is so many seconds of real time away from `now`, which `clock` has just told."""
        real_now = clock.real_now()
        by = timedelta(seconds=seconds)
        return cls(now + by * clock.time.speed_at(real_now), real_now + by)


# A statement for breaches: each row has a `kind`, and its other columns are the ids that locate the breach.
type Query = Select[Any]

# The columns that locate a row of a table.
IDS: dict[Table, list[ColumnElement[Any]]] = {
    payments: [payments.c.id.label("payment_id")],
    refunds: [refunds.c.payment_id, refunds.c.id.label("refund_id")],
    deliveries: [deliveries.c.payment_id, deliveries.c.id.label("delivery_id")],
}


def in_range(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that `column` is in the range of ids that the statement is run for.

    A statement needs it for each of its tables, because no query planner infers it.
    """
    return and_(column > bindparam("after", type_=Uuid), column <= bindparam("upto", type_=Uuid))


def breach(kind: BreachKind) -> ColumnElement[str]:
    """Return the column `kind` of a statement that finds one kind only."""
    return literal(kind.value, String).label("kind")


def kind_of(*cases: tuple[ColumnElement[bool], BreachKind]) -> ColumnElement[str | None]:
    """Return the first kind whose condition is true, else null."""
    return case(*[(condition, literal(kind.value, String)) for condition, kind in cases], else_=None)


def only_breaches(found: Query) -> Query:
    """Select the rows of `found` that have a kind."""
    rows = found.subquery()
    return select(*rows.c).where(rows.c.kind.is_not(None))


def not_once(found: FromClause, none: BreachKind, several: BreachKind) -> Query:
    """Find the rows of `found` whose column `times` is not 1: `none` if it is 0, `several` if it is more."""
    kind = kind_of((found.c.times == 0, none), (found.c.times > 1, several)).label("kind")
    return only_breaches(select(kind, *(column for column in found.c if column.name != "times")))


def at_least_one(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return whether the condition is true for at least one row of the group."""
    return func.max(case((condition, 1), else_=0)) == 1


def is_wrong(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return whether the condition is false, or unknown because of a null."""
    return func.coalesce(~condition, True)
