"""What the tables say of who was told, and of what is due: statements that find what must not be.

Most look at one range of payments, and are one statement on purpose: see `cli.verify_scan`.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    String,
    Table,
    Text,
    and_,
    case,
    cast,
    extract,
    func,
    literal,
    or_,
    select,
)

from cli.verify_kinds import BreachKind
from cli.verify_records import Query, in_range, kind_of, only_breaches
from shared.lifecycle import (
    EVENT_OF_STATUS,
    OPEN_DELIVERY,
    TERMINAL_EVENTS,
    DeliveryKind,
    DeliveryStatus,
    EventType,
    PaymentStatus,
)
from shared.models import UtcDateTime, deliveries, events, payment_history, payments, webhook_endpoints

SETTLING_S = 60  # longer than any transaction of ours: one that began before a change may not have seen it
_TOLD = {status: event for status, event in EVENT_OF_STATUS.items() if event is not None}
_CALLED_FOR = case({status.value: event.value for status, event in _TOLD.items()}, value=payment_history.c.new_status)
_SILENT_ENDS = (DeliveryStatus.EXHAUSTED, DeliveryStatus.CANCELLED)
_OF_EVENT = and_(
    deliveries.c.event_id == events.c.id,
    deliveries.c.payment_id == events.c.payment_id,  # SQLite has no other index for it
    in_range(deliveries.c.payment_id),
)


def events_missing() -> Query:
    """Moves whose event does not exist exactly once."""
    move = payment_history.c
    found = (
        select(move.payment_id, move.sequence, _CALLED_FOR.label("event_type"), func.count(events.c.id).label("times"))
        .outerjoin(
            events,
            and_(
                events.c.payment_id == move.payment_id,
                events.c.sequence == move.sequence,
                events.c.type == _CALLED_FOR,
                in_range(events.c.payment_id),
            ),
        )
        .where(in_range(move.payment_id), move.new_status.in_(list(_TOLD)))
        .group_by(move.payment_id, move.sequence, move.new_status)
        .subquery()
    )
    return _not_once(found, BreachKind.EVENT_MISSING, BreachKind.EVENT_REPEATED)


def events_uncalled() -> Query:
    """Events that no move calls for; that an order was cancelled meanwhile may be told beside the completion."""
    move = payment_history.c
    is_conflict = and_(events.c.type == EventType.ORDER_CONFLICT, move.new_status == PaymentStatus.COMPLETED)
    return (
        select(
            literal(BreachKind.EVENT_UNCALLED.value, String).label("kind"),
            *events.c["payment_id", "sequence"],
            events.c.type.label("event_type"),
            events.c.id.label("event_id"),
        )
        .outerjoin(
            payment_history,
            and_(
                move.payment_id == events.c.payment_id,
                move.sequence == events.c.sequence,
                in_range(move.payment_id),
                or_(events.c.type == _CALLED_FOR, is_conflict),
            ),
        )
        .where(in_range(events.c.payment_id), move.payment_id.is_(None))
    )


def endpoints_untold() -> Query:
    """Events without their one delivery to an endpoint that certainly matched them.

    That is one which is enabled now, wants the type, and has not been changed since some time before the event. What
    an endpoint that was changed later wanted at that time, nobody has written down.
    """
    endpoint = webhook_endpoints.c
    matched = and_(
        endpoint.enabled,
        endpoint.deleted_at.is_(None),
        extract("epoch", events.c.created_at) - extract("epoch", endpoint.updated_at) > SETTLING_S,
        cast(endpoint.event_types, Text).contains('"' + events.c.type + '"'),
    )
    found = (
        select(
            events.c.payment_id,
            events.c.id.label("event_id"),
            endpoint.id.label("endpoint_id"),
            _count_of(deliveries.c.endpoint_id == endpoint.id),
        )
        .join(webhook_endpoints, matched)
        .outerjoin(deliveries, _OF_EVENT)
        .where(in_range(events.c.payment_id))
        .group_by(events.c.payment_id, events.c.id, endpoint.id)
        .subquery()
    )
    return _not_once(found, BreachKind.ENDPOINT_UNTOLD, BreachKind.DELIVERY_REPEATED)


def callbacks_untold() -> Query:
    """Ends of payments with a callback URL, without their one delivery to it."""
    found = (
        _told_once(DeliveryKind.CALLBACK)
        .join(payments, and_(payments.c.id == events.c.payment_id, in_range(payments.c.id)))
        .where(payments.c.callback_url.is_not(None), events.c.type.in_(TERMINAL_EVENTS))
        .subquery()
    )
    return _not_once(found, BreachKind.CALLBACK_UNTOLD, BreachKind.DELIVERY_REPEATED)


def orders_untold(since: datetime) -> Query:
    """Completions after `since`, from when on the order service is told, without their one order update."""
    completed = and_(events.c.type == EventType.COMPLETED, events.c.created_at > literal(since, UtcDateTime))
    found = _told_once(DeliveryKind.ORDER).where(completed).subquery()
    return _not_once(found, BreachKind.ORDER_UNTOLD, BreachKind.DELIVERY_REPEATED)


def silent_order_updates() -> Query:
    """Order updates that ended without being delivered and without a reason."""
    return _of_deliveries(
        BreachKind.ORDER_UPDATE_SILENT,
        and_(
            deliveries.c.kind == DeliveryKind.ORDER,
            deliveries.c.status.in_(_SILENT_ENDS),
            deliveries.c.last_error.is_(None),
        ),
    )


def first_order_update() -> Select[Any]:
    """When the order service was told for the first time; no row if it never was."""
    return (
        select(deliveries.c.created_at)
        .where(deliveries.c.kind == DeliveryKind.ORDER)
        .order_by(deliveries.c.created_at)
        .limit(1)
    )


def payments_never_due() -> Query:
    """Open payments without a due time."""
    return select(
        literal(BreachKind.PAYMENT_NEVER_DUE.value, String).label("kind"),
        payments.c.id.label("payment_id"),
        payments.c.status,
    ).where(
        in_range(payments.c.id),
        payments.c.status.in_([status for status in PaymentStatus if not status.is_terminal]),
        payments.c.due_at.is_(None),
    )


def deliveries_never_due() -> Query:
    """Open deliveries without a due time."""
    is_lost = and_(deliveries.c.status.in_(OPEN_DELIVERY), deliveries.c.due_at.is_(None))
    return _of_deliveries(BreachKind.DELIVERY_NEVER_DUE, is_lost)


def oldest_due(table: Table, *, now: datetime) -> Select[Any]:
    """When the row that is due for the longest became due; null if none is due."""
    return select(func.min(table.c.due_at)).where(table.c.due_at <= literal(now, UtcDateTime))


def overdue_count(table: Table, *, before: datetime) -> Select[Any]:
    """How many rows have been due since before then."""
    return select(func.count()).where(table.c.due_at < literal(before, UtcDateTime))


def overdue(table: Table, kind: BreachKind, *, before: datetime, limit: int) -> Query:
    """The rows among them that have waited longest."""
    ids = [table.c.id.label("payment_id")] if table is payments else _ids_of_delivery()
    return (
        select(literal(kind.value, String).label("kind"), *ids, table.c.status, table.c.due_at)
        .where(table.c.due_at < literal(before, UtcDateTime))
        .order_by(table.c.due_at)
        .limit(limit)
    )


def _told_once(kind: DeliveryKind) -> Select[Any]:
    """Events with the number of their deliveries of this kind."""
    of_kind = and_(deliveries.c.kind == kind, deliveries.c.endpoint_id.is_(None))  # as the unique index says it
    return (
        select(events.c.payment_id, events.c.id.label("event_id"), _count_of(of_kind))
        .outerjoin(deliveries, _OF_EVENT)
        .where(in_range(events.c.payment_id))
        .group_by(events.c.payment_id, events.c.id)
    )


def _count_of(which: ColumnElement[bool]) -> ColumnElement[int]:
    """How many of the joined deliveries are of this kind.

    Not part of the join: PostgreSQL, whose statistics may not know a new kind yet, would compare each with each.
    """
    return func.count(case((which, deliveries.c.id))).label("times")


def _of_deliveries(kind: BreachKind, which: ColumnElement[bool]) -> Query:
    return select(literal(kind.value, String).label("kind"), *_ids_of_delivery(), deliveries.c.status).where(
        in_range(deliveries.c.payment_id), which
    )


def _ids_of_delivery() -> list[ColumnElement[Any]]:
    return [deliveries.c.payment_id, deliveries.c.id.label("delivery_id")]


def _not_once(found: FromClause, none: BreachKind, several: BreachKind) -> Query:
    """The rows of `found` whose `times` is not one."""
    kind = kind_of((found.c.times == 0, none), (found.c.times > 1, several)).label("kind")
    return only_breaches(select(kind, *(column for column in found.c if column.name != "times")))
