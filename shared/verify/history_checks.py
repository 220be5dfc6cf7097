"""Statements that find breaches in the histories of payments and refunds.

Each of them checks one range of payments. Each check is one statement on purpose; `shared.verify.scan` says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, func, or_, select

from shared import lifecycle, refund_lifecycle
from shared.database.refund_tables import refund_history, refunds
from shared.database.tables import payment_history, payments
from shared.verify.breaches import BreachKind
from shared.verify.statements import IDS, Query, at_least_one, in_range, is_wrong, kind_of, only_breaches


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kinds:
    """The kinds of breaches of one history."""

    gap: BreachKind
    start: BreachKind
    move: BreachKind
    end: BreachKind


def histories() -> Query:
    """Find histories of payments that `lifecycle.TRANSITIONS` does not allow, or that do not fit their payment."""
    return _histories(
        payments,
        payment_history,
        and_(payment_history.c.payment_id == payments.c.id, in_range(payment_history.c.payment_id)),
        in_range(payments.c.id),
        start=lifecycle.PaymentStatus.PENDING,
        transitions=lifecycle.TRANSITIONS,
        kinds=_Kinds(
            gap=BreachKind.HISTORY_GAP,
            start=BreachKind.HISTORY_START,
            move=BreachKind.HISTORY_MOVE,
            end=BreachKind.HISTORY_END,
        ),
    )


def refund_histories() -> Query:
    """Find histories of refunds that `refund_lifecycle.TRANSITIONS` does not allow, or that do not fit their refund."""
    return _histories(
        refunds,
        refund_history,
        refund_history.c.refund_id == refunds.c.id,
        in_range(refunds.c.payment_id),
        start=refund_lifecycle.RefundStatus.PENDING,
        transitions=refund_lifecycle.TRANSITIONS,
        kinds=_Kinds(
            gap=BreachKind.REFUND_HISTORY_GAP,
            start=BreachKind.REFUND_HISTORY_START,
            move=BreachKind.REFUND_HISTORY_MOVE,
            end=BreachKind.REFUND_HISTORY_END,
        ),
    )


def _histories[S: StrEnum](
    table: Table,
    history: Table,
    belongs: ColumnElement[bool],
    which: ColumnElement[bool],
    *,
    start: S,
    transitions: Mapping[S, frozenset[S]],
    kinds: _Kinds,
) -> Query:
    of_row: dict[str, Any] = {"partition_by": table.c.id, "order_by": history.c.sequence}
    moves = (
        select(
            table.c.id,
            *IDS[table],
            table.c.status,
            table.c.sequence.label("length"),
            *history.c["sequence", "previous_status", "new_status"],
            func.row_number().over(**of_row).label("number"),
            func.lag(history.c.new_status).over(**of_row).label("status_before"),
        )
        .outerjoin(history, belongs)
        .where(which)
        .subquery()
    )
    move = moves.c
    allowed = [f"{before}>{after}" for before, afters in transitions.items() for after in afters]
    is_allowed = and_(
        move.previous_status == move.status_before, (move.previous_status + ">" + move.new_status).in_(allowed)
    )
    starts = and_(move.previous_status.is_(None), move.new_status == start)
    ids = [move[column.name] for column in IDS[table]]
    return only_breaches(
        select(
            kind_of(
                (
                    or_(
                        func.count(move.sequence) != func.max(move.length),
                        at_least_one(move.sequence != move.number),
                    ),
                    kinds.gap,
                ),
                (at_least_one(and_(move.number == 1, ~starts)), kinds.start),
                (at_least_one(and_(move.number > 1, is_wrong(is_allowed))), kinds.move),
                (at_least_one(and_(move.sequence == move.length, move.new_status != move.status)), kinds.end),
            ).label("kind"),
            *ids,
        ).group_by(*ids)
    )
