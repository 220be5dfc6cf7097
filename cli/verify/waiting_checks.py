"""Statements that find rows which no worker has ever claimed, however often the relay has published them again.

The relay moves the due time of what it publishes. So a row whose jobs nobody takes is never due for long, and only its
age shows that it waits.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, String, Table, and_, func, literal, select

from cli.verify.breaches import BreachKind
from cli.verify.payment_checks import Query
from shared.database.columns import UtcDateTime
from shared.database.tables import deliveries, payments
from shared.lifecycle import DeliveryStatus, PaymentStatus

UNCLAIMED = {payments: BreachKind.PAYMENT_UNCLAIMED, deliveries: BreachKind.DELIVERY_UNCLAIMED}
_STATUS = {payments: PaymentStatus.PENDING, deliveries: DeliveryStatus.PENDING}
_IDS: dict[Table, list[ColumnElement[Any]]] = {
    payments: [payments.c.id.label("payment_id")],
    deliveries: [deliveries.c.payment_id, deliveries.c.id.label("delivery_id")],
}


def oldest_unclaimed(table: Table) -> Select[Any]:
    """Select the time at which the oldest row was created that no worker has claimed."""
    return select(func.min(table.c.created_at)).where(_is_unclaimed(table))


def unclaimed_count(table: Table, *, before: datetime) -> Select[int]:
    """Select the number of rows that were created before `before` and that no worker has claimed."""
    return select(func.count()).where(_is_unclaimed(table), table.c.created_at < literal(before, UtcDateTime))


def unclaimed(table: Table, *, before: datetime, limit: int) -> Query:
    """Find such rows: at most `limit`, the oldest first."""
    return (
        select(literal(UNCLAIMED[table].value, String).label("kind"), *_IDS[table], table.c.status, table.c.created_at)
        .where(_is_unclaimed(table), table.c.created_at < literal(before, UtcDateTime))
        .order_by(table.c.created_at)
        .limit(limit)
    )


def _is_unclaimed(table: Table) -> ColumnElement[bool]:
    # Only open rows have a due time, and the index on it leads to them.
    return and_(table.c.due_at.is_not(None), table.c.lease_version == 0, table.c.status == _STATUS[table])
