"""Statements that find rows which no worker has claimed, however often the relay has published them again.

The relay moves the due time of what it publishes. So a row whose jobs nobody takes is never due for long, and only the
time since it began to wait shows it.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, case, func, literal, or_, select

from cli.verify.breaches import BreachKind
from cli.verify.statements import IDS, Query, breach
from shared.database.columns import UtcDateTime
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, payments
from shared.delivery_lifecycle import DeliveryStatus
from shared.lifecycle import (HistoryReason, PaymentStatus)
from shared.refund_lifecycle import RefundStatus

UNCLAIMED = {
    payments: BreachKind.PAYMENT_UNCLAIMED,
    refunds: BreachKind.REFUND_UNCLAIMED,
    deliveries: BreachKind.DELIVERY_UNCLAIMED,
}
# Since when such a row has waited: since its acceptance, the request to capture or to void it, or the end of its
# authorization.
_SINCE: dict[Table, ColumnElement[datetime]] = {
    payments: case(
        (payments.c.status == PaymentStatus.PENDING, payments.c.created_at),
        (payments.c.status == PaymentStatus.AUTHORIZED, payments.c.capture_before),
        else_=payments.c.updated_at,
    ),
    refunds: refunds.c.created_at,
    deliveries: deliveries.c.created_at,
}
_IS_UNCLAIMED: dict[Table, ColumnElement[bool]] = {
    payments: or_(
        and_(payments.c.status == PaymentStatus.PENDING, payments.c.lease_version == 0),
        and_(payments.c.status == PaymentStatus.PROCESSING, payments.c.due_reason == HistoryReason.CLAIMED),
        payments.c.status == PaymentStatus.AUTHORIZED,
    ),
    refunds: and_(refunds.c.status == RefundStatus.PENDING, refunds.c.lease_version == 0),
    deliveries: and_(deliveries.c.status == DeliveryStatus.PENDING, deliveries.c.lease_version == 0),
}


def oldest_unclaimed(table: Table) -> Select[Any]:
    """Select the time since which the oldest row has waited that no worker has claimed.

    That of an AUTHORIZED payment is yet to come, until its authorization is over.
    """
    return select(func.min(_SINCE[table], type_=UtcDateTime)).where(_is_unclaimed(table))


def unclaimed_count(table: Table, *, before: datetime) -> Select[int]:
    """Select the number of rows that have waited since before `before` and that no worker has claimed."""
    return select(func.count()).where(_is_unclaimed(table), _SINCE[table] < literal(before, UtcDateTime))


def unclaimed(table: Table, *, before: datetime, limit: int) -> Query:
    """Find such rows: at most `limit`, the oldest first."""
    since = _SINCE[table]
    return (
        select(breach(UNCLAIMED[table]), *IDS[table], table.c.status, since.label("since"))
        .where(_is_unclaimed(table), since < literal(before, UtcDateTime))
        .order_by(since)
        .limit(limit)
    )


def _is_unclaimed(table: Table) -> ColumnElement[bool]:
    # Only open rows have a due time, and the index on it leads to them.
    return and_(table.c.due_at.is_not(None), _IS_UNCLAIMED[table])
