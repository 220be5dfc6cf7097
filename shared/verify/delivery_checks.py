"""Statements that find breaches among deliveries.

Each of them checks one range of payments. Each check is one statement on purpose; `shared.verify.scan` says why.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select

from shared.database.columns import UtcDateTime
from shared.database.tables import deliveries, events, payments, webhook_endpoints
from shared.delivery_lifecycle import DeliveryKind, DeliveryStatus
from shared.event_types import CALLBACK_EVENTS, EventType
from shared.verify.breaches import BreachKind
from shared.verify.event_checks import certainly_wants
from shared.verify.statements import IDS, Query, breach, in_range, not_once

_UNDELIVERED_ENDS = (DeliveryStatus.EXHAUSTED, DeliveryStatus.CANCELLED)
_OF_EVENT = and_(
    deliveries.c.event_id == events.c.id,
    # SQLite has an index for this condition only.
    deliveries.c.payment_id == events.c.payment_id,
    in_range(deliveries.c.payment_id),
)


def missing_endpoint_deliveries() -> Query:
    """Find events without exactly one delivery to an endpoint that certainly matched them.

    No table says what an endpoint that was changed later wanted at the time of the event.
    """
    endpoint = webhook_endpoints.c
    matched = certainly_wants(events.c.type, events.c.created_at)
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
    return not_once(found, BreachKind.MISSING_ENDPOINT_DELIVERY, BreachKind.DELIVERY_REPEATED)


def missing_callback_deliveries() -> Query:
    """Find ends of payments with a callback URL that do not have exactly one delivery to it."""
    found = (
        _events_with_deliveries(DeliveryKind.CALLBACK)
        .join(payments, and_(payments.c.id == events.c.payment_id, in_range(payments.c.id)))
        .where(payments.c.callback_url.is_not(None), events.c.type.in_(CALLBACK_EVENTS))
        .subquery()
    )
    return not_once(found, BreachKind.MISSING_CALLBACK_DELIVERY, BreachKind.DELIVERY_REPEATED)


def missing_order_deliveries(since: datetime, event_type: EventType) -> Query:
    """Find events of this type that happened after `since` and do not have exactly one order update."""
    happened = and_(events.c.type == event_type, events.c.created_at > literal(since, UtcDateTime))
    found = _events_with_deliveries(DeliveryKind.ORDER).where(happened).subquery()
    return not_once(found, BreachKind.MISSING_ORDER_DELIVERY, BreachKind.DELIVERY_REPEATED)


def silent_order_updates() -> Query:
    """Find order updates that ended without being delivered and without a reason."""
    return select(breach(BreachKind.ORDER_UPDATE_SILENT), *IDS[deliveries], deliveries.c.status).where(
        in_range(deliveries.c.payment_id),
        deliveries.c.kind == DeliveryKind.ORDER,
        deliveries.c.status.in_(_UNDELIVERED_ENDS),
        deliveries.c.last_error.is_(None),
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
