"""Statements about ranges of payments and keys, about live payments of one order and about idempotency keys.

Each check is one statement on purpose; `shared.verify.scan` says why.
"""

from typing import Any

from sqlalchemy import ColumnElement, Select, Uuid, and_, bindparam, exists, func, or_, select, tuple_

from shared.database.api_key_tables import api_keys
from shared.database.refund_tables import refunds
from shared.database.tables import (
    deliveries,
    idempotency_keys,
    payments,
    webhook_endpoints,
)
from shared.lifecycle import NOT_LIVE
from shared.verify.breaches import BreachKind
from shared.verify.statements import IDS, Query, breach, in_range


def live_twice() -> Query:
    """Find live payments with a later live payment of the same user and order."""
    other = payments.alias()
    return (
        select(
            breach(BreachKind.LIVE_TWICE),
            *IDS[payments],
            other.c.id.label("other_payment_id"),
            payments.c.order_id,
        )
        .join(
            other,
            and_(
                other.c.user_id == payments.c.user_id,
                other.c.order_id == payments.c.order_id,
                other.c.status.not_in(NOT_LIVE),
                other.c.id > payments.c.id,
            ),
        )
        .where(in_range(payments.c.id), payments.c.status.not_in(NOT_LIVE))
    )


def next_payment(*, count: int) -> Select[Any]:
    """Select the id of the `count`-th payment after `after`, which ends the next range; no row if fewer are left."""
    return (
        select(payments.c.id)
        .where(payments.c.id > bindparam("after", type_=Uuid))
        .order_by(payments.c.id)
        .offset(count - 1)
        .limit(1)
    )


def payments_between() -> Select[int]:
    """Select the number of payments in the range."""
    return select(func.count()).select_from(payments).where(in_range(payments.c.id))


# The table of the objects that the keys of an operation name, by the pattern of their scopes. A key of
# POST /payment-methods is not checked: if the card was known already, no method was added, and the key names none.
_NAMED_BY = {
    "% POST /payments": payments,
    "% POST /payments/%/capture": payments,
    "% POST /payments/%/cancel": payments,
    "% POST /payments/%/refunds": refunds,
    "% POST /refunds/%": refunds,
    "% POST /webhook-endpoints": webhook_endpoints,
    "% POST /webhook-deliveries/%": deliveries,
    "% POST /api-keys": api_keys,
}


def next_key(*, count: int) -> Select[Any]:
    """Select the scope and key of the `count`-th idempotency key after the given one; no row if fewer are left."""
    return (
        select(idempotency_keys.c.scope, idempotency_keys.c.key)
        .where(_names(has_end=False))
        .order_by(idempotency_keys.c.scope, idempotency_keys.c.key)
        .offset(count - 1)
        .limit(1)
    )


def keys_between(*, has_end: bool) -> Select[int]:
    """Select the number of keys after the given one, and with `has_end` up to another one."""
    return select(func.count()).select_from(idempotency_keys).where(_names(has_end=has_end))


def dangling_keys(*, has_end: bool) -> Query:
    """Find keys of the same range whose object does not exist."""
    key = idempotency_keys.c
    names_nothing = [
        and_(key.scope.like(pattern), ~exists().where(table.c.id == key.object_id))
        for pattern, table in _NAMED_BY.items()
    ]
    return select(breach(BreachKind.DANGLING_IDEMPOTENCY_KEY), key.scope, key.key, key.object_id).where(
        _names(has_end=has_end), or_(*names_nothing)
    )


def _names(*, has_end: bool) -> ColumnElement[bool]:
    name = tuple_(idempotency_keys.c.scope, idempotency_keys.c.key)
    after = name > tuple_(bindparam("after_scope"), bindparam("after_key"))
    return and_(after, name <= tuple_(bindparam("upto_scope"), bindparam("upto_key"))) if has_end else after
