"""Statements that find breaches among events, deliveries and due times.

Most of them check one range of payments. Each check is one statement on purpose; `cli.verify.scan` says why.
"""

from collections.abc import Sequence
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
    exists,
    extract,
    func,
    literal,
    or_,
    select,
)

from cli.verify.breaches import BreachKind
from cli.verify.payment_checks import Query, in_range, kind_of, only_breaches
from shared.database.columns import UtcDateTime
from shared.database.tables import deliveries, events, payment_history, payments, webhook_endpoints
from shared.event_types import CALLBACK_EVENTS, EVENT_OF_MOVE, WRITTEN_IF_WANTED, EventType
from shared.lifecycle import OPEN_DELIVERY, PAID, DeliveryKind, DeliveryStatus, HistoryReason, PaymentStatus

# Seconds; longer than any transaction of the service. A transaction that began before a change may not have seen it.
SETTLING_S = 60
_MOVE = payment_history.c.new_status + " " + payment_history.c.reason
_EXPECTED_TYPE = case(
    {f"{status} {reason}": event.value for (status, reason), event in EVENT_OF_MOVE.items()}, value=_MOVE
)
_UNDELIVERED_ENDS = (DeliveryStatus.EXHAUSTED, DeliveryStatus.CANCELLED)
_OF_EVENT = and_(
    deliveries.c.event_id == events.c.id,
    # SQLite has an index for this condition only.
    deliveries.c.payment_id == events.c.payment_id,
    in_range(deliveries.c.payment_id),
)


def events_missing() -> Query:
    """Find moves that do not have exactly one event.

    An event of a type in WRITTEN_IF_WANTED must exist only if an endpoint certainly wanted it.
    """
    move = payment_history.c
    must_exist = or_(
        _EXPECTED_TYPE.not_in(WRITTEN_IF_WANTED),
        events.c.id.is_not(None),
        exists().where(_certainly_wants(_EXPECTED_TYPE, move.created_at)),
    )
    found = (
        select(
            move.payment_id, move.sequence, _EXPECTED_TYPE.label("event_type"), func.count(events.c.id).label("times")
        )
        .outerjoin(
            events,
            and_(
                events.c.payment_id == move.payment_id,
                events.c.sequence == move.sequence,
                events.c.type == _EXPECTED_TYPE,
                in_range(events.c.payment_id),
            ),
        )
        .where(in_range(move.payment_id), _EXPECTED_TYPE.is_not(None), must_exist)
        .group_by(move.payment_id, move.sequence, move.new_status, move.reason)
        .subquery()
    )
    return _not_once(found, BreachKind.EVENT_MISSING, BreachKind.EVENT_REPEATED)


def unexpected_events() -> Query:
    """Find events that no move calls for. A paid payment may have an event about its cancelled order, too."""
    move = payment_history.c
    is_conflict = and_(events.c.type == EventType.ORDER_CONFLICT, move.new_status.in_(PAID))
    return (
        select(
            literal(BreachKind.UNEXPECTED_EVENT.value, String).label("kind"),
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
                or_(events.c.type == _EXPECTED_TYPE, is_conflict),
            ),
        )
        .where(in_range(events.c.payment_id), move.payment_id.is_(None))
    )


def missing_endpoint_deliveries() -> Query:
    """Find events without exactly one delivery to an endpoint that certainly matched them.

    No table says what an endpoint that was changed later wanted at the time of the event.
    """
    endpoint = webhook_endpoints.c
    matched = _certainly_wants(events.c.type, events.c.created_at)
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
    return _not_once(found, BreachKind.MISSING_ENDPOINT_DELIVERY, BreachKind.DELIVERY_REPEATED)


def missing_callback_deliveries() -> Query:
    """Find ends of payments with a callback URL that do not have exactly one delivery to it."""
    found = (
        _events_with_deliveries(DeliveryKind.CALLBACK)
        .join(payments, and_(payments.c.id == events.c.payment_id, in_range(payments.c.id)))
        .where(payments.c.callback_url.is_not(None), events.c.type.in_(CALLBACK_EVENTS))
        .subquery()
    )
    return _not_once(found, BreachKind.MISSING_CALLBACK_DELIVERY, BreachKind.DELIVERY_REPEATED)


def missing_order_deliveries(since: datetime, event_type: EventType) -> Query:
    """Find events of this type that happened after `since` and do not have exactly one order update."""
    happened = and_(events.c.type == event_type, events.c.created_at > literal(since, UtcDateTime))
    found = _events_with_deliveries(DeliveryKind.ORDER).where(happened).subquery()
    return _not_once(found, BreachKind.MISSING_ORDER_DELIVERY, BreachKind.DELIVERY_REPEATED)


def silent_order_updates() -> Query:
    """Find order updates that ended without being delivered and without a reason."""
    return _of_deliveries(
        BreachKind.ORDER_UPDATE_SILENT,
        and_(
            deliveries.c.kind == DeliveryKind.ORDER,
            deliveries.c.status.in_(_UNDELIVERED_ENDS),
            deliveries.c.last_error.is_(None),
        ),
    )


def first_order_update(event_type: EventType) -> Select[Any]:
    """Select the time of the first order update for an event of this type; no row if there is none."""
    return (
        select(deliveries.c.created_at)
        .join(events, events.c.id == deliveries.c.event_id)
        .where(deliveries.c.kind == DeliveryKind.ORDER, events.c.type == event_type)
        .order_by(deliveries.c.created_at)
        .limit(1)
    )


def payments_never_due() -> Query:
    """Find open payments without a due time."""
    return select(
        literal(BreachKind.PAYMENT_NEVER_DUE.value, String).label("kind"),
        payments.c.id.label("payment_id"),
        payments.c.status,
    ).where(
        in_range(payments.c.id),
        payments.c.status.in_([status for status in PaymentStatus if not status.has_ended]),
        payments.c.due_at.is_(None),
    )


def deliveries_never_due() -> Query:
    """Find open deliveries without a due time."""
    is_lost = and_(deliveries.c.status.in_(OPEN_DELIVERY), deliveries.c.due_at.is_(None))
    return _of_deliveries(BreachKind.DELIVERY_NEVER_DUE, is_lost)


def oldest_due(table: Table, *, now: datetime) -> Select[Any]:
    """Select the due time of the row that has been due for the longest; null if none is due."""
    return select(func.min(table.c.due_at)).where(table.c.due_at <= literal(now, UtcDateTime))


def overdue_count(table: Table, *, before: datetime) -> Select[Any]:
    """Select the number of rows that were due before `before`."""
    return select(func.count()).where(table.c.due_at < literal(before, UtcDateTime))


def overdue(table: Table, kind: BreachKind, *, before: datetime, limit: int) -> Query:
    """Find the rows that were due before `before`: at most `limit`, the longest due first."""
    ids = [table.c.id.label("payment_id")] if table is payments else _ids_of_delivery()
    return (
        select(literal(kind.value, String).label("kind"), *ids, table.c.status, table.c.due_at)
        .where(table.c.due_at < literal(before, UtcDateTime))
        .order_by(table.c.due_at)
        .limit(limit)
    )


def leased_payments_due_after(moment: datetime, limit: int) -> Query:
    """Find payments that a worker has claimed, and that are due after `moment`."""
    # A payment that waits for its next try may be due at any time.
    which = and_(payments.c.status == PaymentStatus.PROCESSING, payments.c.due_reason == HistoryReason.LEASE_EXPIRED)
    ids = [payments.c.id.label("payment_id")]
    return _due_after(moment, payments, BreachKind.PAYMENT_LEASED_TOO_LONG, ids, which, limit)


def leased_deliveries_due_after(moment: datetime, limit: int) -> Query:
    """Find deliveries that a worker has claimed, and that are due after `moment`."""
    which = deliveries.c.status == DeliveryStatus.SENDING
    return _due_after(moment, deliveries, BreachKind.DELIVERY_LEASED_TOO_LONG, _ids_of_delivery(), which, limit)


def _due_after(
    moment: datetime,
    table: Table,
    kind: BreachKind,
    ids: Sequence[ColumnElement[Any]],
    which: ColumnElement[bool],
    limit: int,
) -> Query:
    # Counted beside the rows, so that a list that was cut short still has its total.
    total = func.count().over().label("total")
    return (
        select(literal(kind.value, String).label("kind"), *ids, table.c.status, table.c.due_at, total)
        .where(table.c.due_at > literal(moment, UtcDateTime), which)
        .order_by(table.c.due_at.desc())
        .limit(limit)
    )


def _certainly_wants(event_type: ColumnElement[str], at: ColumnElement[datetime]) -> ColumnElement[bool]:
    """Return the condition that an endpoint is enabled, wants the type, and was not changed since long before `at`."""
    endpoint = webhook_endpoints.c
    return and_(
        endpoint.enabled,
        endpoint.deleted_at.is_(None),
        extract("epoch", at) - extract("epoch", endpoint.updated_at) > SETTLING_S,
        cast(endpoint.event_types, Text).contains('"' + event_type + '"'),
    )


def _events_with_deliveries(kind: DeliveryKind) -> Select[Any]:
    """Select events with the number of their deliveries of this kind."""
    # The same condition as that of the unique index.
    of_kind = and_(deliveries.c.kind == kind, deliveries.c.endpoint_id.is_(None))
    return (
        select(events.c.payment_id, events.c.id.label("event_id"), _count_of(of_kind))
        .outerjoin(deliveries, _OF_EVENT)
        .where(in_range(events.c.payment_id))
        .group_by(events.c.payment_id, events.c.id)
    )


def _count_of(which: ColumnElement[bool]) -> ColumnElement[int]:
    """Return the number of joined deliveries that fulfil the condition.

    The condition is not part of the join: the statistics of PostgreSQL may not know a new kind yet, and it would then
    compare each event with each delivery.
    """
    return func.count(case((which, deliveries.c.id))).label("times")


def _of_deliveries(kind: BreachKind, which: ColumnElement[bool]) -> Query:
    return select(literal(kind.value, String).label("kind"), *_ids_of_delivery(), deliveries.c.status).where(
        in_range(deliveries.c.payment_id), which
    )


def _ids_of_delivery() -> list[ColumnElement[Any]]:
    return [deliveries.c.payment_id, deliveries.c.id.label("delivery_id")]


def _not_once(found: FromClause, none: BreachKind, several: BreachKind) -> Query:
    """Find the rows of `found` whose column `times` is not 1: `none` if it is 0, `several` if it is more."""
    kind = kind_of((found.c.times == 0, none), (found.c.times > 1, several)).label("kind")
    return only_breaches(select(kind, *(column for column in found.c if column.name != "times")))
