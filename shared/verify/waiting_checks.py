"""Statements that find rows which no worker has claimed, however often the relay has published them again.

The relay moves the due time of what it publishes. So a row whose jobs nobody takes is never due for long, and only the
time since it began to wait shows it.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, case, false, func, literal, or_, select

from shared.database.columns import UtcDateTime
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, payments
from shared.delivery_lifecycle import DeliveryStatus
from shared.lifecycle import WAITING, HistoryReason, PaymentStatus
from shared.refund_lifecycle import RefundHistoryReason, RefundStatus
from shared.verify.breaches import BreachKind
from shared.verify.statements import IDS, Query, breach

UNCLAIMED = {
    payments: BreachKind.PAYMENT_UNCLAIMED,
    refunds: BreachKind.REFUND_UNCLAIMED,
    deliveries: BreachKind.DELIVERY_UNCLAIMED,
}
# Seconds after which a late answer is asked for, at most: rows that wait for one are not late before.
LATE_ANSWER_S = 120
# Since when such a row has waited: since its acceptance, a request, the end of its authorization or of its customer's
# time, or the announcement of a late answer.
_SINCE: dict[Table, ColumnElement[datetime]] = {
    payments: case(
        (payments.c.status == PaymentStatus.PENDING, payments.c.created_at),
        (payments.c.status == PaymentStatus.AUTHORIZED, payments.c.capture_before),
        (payments.c.status == PaymentStatus.REQUIRES_ACTION, payments.c.action_expires_at),
        else_=payments.c.updated_at,
    ),
    refunds: case(
        (refunds.c.status == RefundStatus.PENDING, refunds.c.created_at),
        else_=refunds.c.updated_at,
    ),
    deliveries: deliveries.c.created_at,
}


def _waits_as_asked(table: Table) -> ColumnElement[bool]:
    """Return whether the request wants the row to wait before it is claimed: until when is in no column."""
    pending_ms: ColumnElement[int] = table.c.steering["pending_ms"].as_integer()
    return pending_ms.is_not(None)


_IS_UNCLAIMED: dict[Table, ColumnElement[bool]] = {
    payments: or_(
        and_(
            or_(
                and_(payments.c.status == PaymentStatus.PENDING, payments.c.lease_version == 0),
                and_(payments.c.status == PaymentStatus.PROCESSING, payments.c.due_reason == HistoryReason.CLAIMED),
            ),
            ~_waits_as_asked(payments),
        ),
        payments.c.status.in_(WAITING),
    ),
    refunds: and_(refunds.c.status == RefundStatus.PENDING, refunds.c.lease_version == 0, ~_waits_as_asked(refunds)),
    deliveries: and_(deliveries.c.status == DeliveryStatus.PENDING, deliveries.c.lease_version == 0),
}
# The gateway has announced an answer. When it is to come is in no column.
_WAITS_FOR_ANSWER: dict[Table, ColumnElement[bool]] = {
    payments: and_(
        payments.c.status == PaymentStatus.PROCESSING, payments.c.due_reason == HistoryReason.GATEWAY_SETTLED
    ),
    refunds: and_(
        refunds.c.status == RefundStatus.PROCESSING, refunds.c.due_reason == RefundHistoryReason.GATEWAY_SETTLED
    ),
}


def oldest_unclaimed(table: Table) -> Select[Any]:
    """Select the time since which the oldest row has waited that no worker has claimed.

    That of a payment that waits for a capture or for its customer is yet to come, until the end of that.
    """
    return select(func.min(_SINCE[table], type_=UtcDateTime)).where(_is_unclaimed(table))


def unclaimed_count(table: Table, *, before: datetime) -> Select[int]:
    """Select the number of rows that have waited since before `before` and that no worker has claimed."""
    return select(func.count()).where(_has_waited(table, before))


def unclaimed(table: Table, *, before: datetime, limit: int) -> Query:
    """Find such rows: at most `limit`, the oldest first."""
    since = _SINCE[table]
    return (
        select(breach(UNCLAIMED[table]), *IDS[table], table.c.status, since.label("since"))
        .where(_has_waited(table, before))
        .order_by(since)
        .limit(limit)
    )


def _has_waited(table: Table, before: datetime) -> ColumnElement[bool]:
    is_late: ColumnElement[bool] = false()
    if table in _WAITS_FOR_ANSWER:
        announced = literal(before - timedelta(seconds=LATE_ANSWER_S), UtcDateTime)
        is_late = and_(table.c.due_at.is_not(None), _WAITS_FOR_ANSWER[table], table.c.updated_at < announced)
    return or_(and_(_is_unclaimed(table), _SINCE[table] < literal(before, UtcDateTime)), is_late)


def _is_unclaimed(table: Table) -> ColumnElement[bool]:
    # Only open rows have a due time, and the index on it leads to them.
    return and_(table.c.due_at.is_not(None), _IS_UNCLAIMED[table])
