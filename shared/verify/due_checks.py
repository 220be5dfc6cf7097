"""Statements that find breaches among due times: rows that no process looks at, or that wait for too long."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, bindparam, case, func, literal, or_, select

from shared import refund_lifecycle
from shared.database.columns import UtcDateTime
from shared.database.leases import is_held
from shared.database.refund_tables import refunds
from shared.database.tables import deliveries, payments
from shared.delivery_lifecycle import OPEN_DELIVERY, DeliveryStatus
from shared.lifecycle import WAITING, HistoryReason, PaymentStatus
from shared.refund_lifecycle import RefundHistoryReason, RefundStatus
from shared.verify.breaches import BreachKind
from shared.verify.statements import IDS, Query, Times, breach, in_range, is_wrong, kind_of, only_breaches

OVERDUE = {
    payments: BreachKind.PAYMENT_OVERDUE,
    refunds: BreachKind.REFUND_OVERDUE,
    deliveries: BreachKind.DELIVERY_OVERDUE,
}
LEASED_TOO_LONG = {
    payments: BreachKind.PAYMENT_LEASED_TOO_LONG,
    refunds: BreachKind.REFUND_LEASED_TOO_LONG,
    deliveries: BreachKind.DELIVERY_LEASED_TOO_LONG,
}
# A row that a worker has claimed. One that waits for its next try may be due at any time.
_IS_CLAIMED: dict[Table, ColumnElement[bool]] = {
    payments: and_(payments.c.status == PaymentStatus.PROCESSING, payments.c.due_reason == HistoryReason.LEASE_EXPIRED),
    refunds: and_(
        refunds.c.status == RefundStatus.PROCESSING, refunds.c.due_reason == RefundHistoryReason.LEASE_EXPIRED
    ),
    deliveries: deliveries.c.status == DeliveryStatus.SENDING,
}


def open_payments() -> Query:
    """Find open payments without a due time, and those that wait and are not due at the end of that.

    The parameter `over` is the latest moment at which a worker may believe that an authorization or a customer's time
    is over. From then on the relay moves the due time.
    """
    ends_at = case(
        (payments.c.status == PaymentStatus.AUTHORIZED, payments.c.capture_before), else_=payments.c.action_expires_at
    )
    is_due_at_its_end = or_(
        payments.c.due_at == ends_at,
        # What the relay has published is due by real time, which may be behind.
        and_(or_(is_held(payments), payments.c.due_at > ends_at), ends_at <= bindparam("over", type_=UtcDateTime)),
    )
    return only_breaches(
        select(
            kind_of(
                (payments.c.due_at.is_(None), BreachKind.PAYMENT_NEVER_DUE),
                (
                    and_(payments.c.status.in_(WAITING), is_wrong(is_due_at_its_end)),
                    BreachKind.EXPIRY_MISMATCH,
                ),
            ).label("kind"),
            *IDS[payments],
            payments.c.status,
        ).where(
            in_range(payments.c.id),
            payments.c.status.in_([status for status in PaymentStatus if not status.has_ended]),
        )
    )


def refunds_never_due() -> Query:
    """Find open refunds without a due time."""
    return _never_due(
        refunds, BreachKind.REFUND_NEVER_DUE, refunds.c.payment_id, refunds.c.status.in_(refund_lifecycle.OPEN)
    )


def deliveries_never_due() -> Query:
    """Find open deliveries without a due time."""
    return _never_due(
        deliveries, BreachKind.DELIVERY_NEVER_DUE, deliveries.c.payment_id, deliveries.c.status.in_(OPEN_DELIVERY)
    )


def _never_due(table: Table, kind: BreachKind, payment_id: ColumnElement[Any], is_open: ColumnElement[bool]) -> Query:
    return select(breach(kind), *IDS[table], table.c.status).where(
        in_range(payment_id), is_open, table.c.due_at.is_(None)
    )


def oldest_due(table: Table, times: Times) -> Select[Any]:
    """Select the due times of the rows that have been due for the longest: of those that are held, and of the others.

    Each is null if there is none.
    """
    held = case((is_held(table), table.c.due_at))
    others = case((is_held(table), None), else_=table.c.due_at)
    return select(func.min(held).label("held"), func.min(others).label("others")).where(_is_due_since(table, times))


def overdue_count(table: Table, before: Times) -> Select[Any]:
    """Select the number of rows that were due before `before`."""
    return select(func.count()).where(_is_due_since(table, before))


def overdue(table: Table, before: Times, limit: int) -> Query:
    """Find the rows that were due before `before`: at most `limit`, the longest due first."""
    return (
        select(breach(OVERDUE[table]), *IDS[table], table.c.status, table.c.due_at)
        .where(_is_due_since(table, before))
        .order_by(table.c.due_at)
        .limit(limit)
    )


def leased_too_long(table: Table, after: Times, limit: int) -> Query:
    """Find rows that a worker has claimed, and that are due after `after`: at most `limit`, with their `total`."""
    # Counted beside the rows, so that a list that was cut short still has its total.
    total = func.count().over().label("total")
    return (
        select(breach(LEASED_TOO_LONG[table]), *IDS[table], table.c.status, table.c.due_at, total)
        .where(table.c.due_at > _by_time_of(table, after), _IS_CLAIMED[table])
        .order_by(table.c.due_at.desc())
        .limit(limit)
    )


def _is_due_since(table: Table, before: Times) -> ColumnElement[bool]:
    # The first condition is for the index.
    latest = literal(max(before.service, before.real), UtcDateTime)
    return and_(table.c.due_at <= latest, table.c.due_at <= _by_time_of(table, before))


def _by_time_of(table: Table, times: Times) -> ColumnElement[datetime]:
    """Return that one of the two moments by which the row is due: the real one if it is held."""
    real, service = literal(times.real, UtcDateTime), literal(times.service, UtcDateTime)
    return case((is_held(table), real), else_=service)
