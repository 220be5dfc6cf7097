"""Statements that find breaches among events.

Each of them checks one range of payments. Each check is one statement on purpose; `shared.verify.scan` says why.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, Text, and_, case, cast, exists, extract, func, or_, select

from shared.database.tables import events, payment_history, webhook_endpoints
from shared.event_types import EVENT_OF_MOVE, REFUND_EVENT_OF_REASON, WRITTEN_IF_WANTED, EventType
from shared.verify.breaches import BreachKind
from shared.verify.ledger_checks import CHARGED
from shared.verify.statements import Query, breach, in_range, not_once

# Seconds; longer than any transaction of the service. A transaction that began before a change may not have seen it.
SETTLING_S = 60
_MOVE = payment_history.c.new_status + " " + payment_history.c.reason
# The event of a move, and the one of a refund's step, which is a move of the payment, too.
_EXPECTED_TYPE: ColumnElement[str] = case(
    {f"{status} {reason}": event.value for (status, reason), event in EVENT_OF_MOVE.items()}, value=_MOVE
)
_EXPECTED_REFUND_TYPE: ColumnElement[str] = case(
    {reason.value: event.value for reason, event in REFUND_EVENT_OF_REASON.items()}, value=payment_history.c.reason
)


def events_missing() -> Query:
    """Find moves that do not have exactly one event.

    An event of a type in WRITTEN_IF_WANTED must exist only if an endpoint certainly wanted it.
    """
    must_exist = or_(
        _EXPECTED_TYPE.not_in(WRITTEN_IF_WANTED),
        events.c.id.is_not(None),
        exists().where(certainly_wants(_EXPECTED_TYPE, payment_history.c.created_at)),
    )
    return _missing(_EXPECTED_TYPE, and_(_EXPECTED_TYPE.is_not(None), must_exist))


def refund_events_missing() -> Query:
    """Find steps of refunds that do not have exactly one event."""
    return _missing(_EXPECTED_REFUND_TYPE, payment_history.c.reason.in_(REFUND_EVENT_OF_REASON))


def _missing(expected: ColumnElement[str], must_exist: ColumnElement[bool]) -> Query:
    move = payment_history.c
    found = (
        select(move.payment_id, move.sequence, expected.label("event_type"), func.count(events.c.id).label("times"))
        .outerjoin(
            events,
            and_(
                events.c.payment_id == move.payment_id,
                events.c.sequence == move.sequence,
                events.c.type == expected,
                in_range(events.c.payment_id),
            ),
        )
        .where(in_range(move.payment_id), must_exist)
        .group_by(move.payment_id, move.sequence, move.new_status, move.reason)
        .subquery()
    )
    return not_once(found, BreachKind.EVENT_MISSING, BreachKind.EVENT_REPEATED)


def unexpected_events() -> Query:
    """Find events that no move calls for. A charged payment may have an event about its cancelled order, too."""
    move = payment_history.c
    is_conflict = and_(events.c.type == EventType.ORDER_CONFLICT, move.new_status.in_(CHARGED))
    return (
        select(
            breach(BreachKind.UNEXPECTED_EVENT),
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
                or_(events.c.type == _EXPECTED_TYPE, events.c.type == _EXPECTED_REFUND_TYPE, is_conflict),
            ),
        )
        .where(in_range(events.c.payment_id), move.payment_id.is_(None))
    )


def order_conflicts_repeated() -> Query:
    """Find payments with more than one event about their cancelled order. No move calls for that event."""
    kind = breach(BreachKind.EVENT_REPEATED)
    return (
        select(kind, events.c.payment_id, events.c.type.label("event_type"))
        .where(in_range(events.c.payment_id), events.c.type == EventType.ORDER_CONFLICT)
        .group_by(events.c.payment_id, events.c.type)
        .having(func.count() > 1)
    )


def certainly_wants(event_type: ColumnElement[str], at: ColumnElement[datetime]) -> ColumnElement[bool]:
    """Return the condition that an endpoint is enabled, wants the type, and was not changed since long before `at`."""
    endpoint = webhook_endpoints.c
    return and_(
        endpoint.enabled,
        endpoint.deleted_at.is_(None),
        extract("epoch", at) - extract("epoch", endpoint.updated_at) > SETTLING_S,
        cast(endpoint.event_types, Text).contains('"' + event_type + '"'),
    )
