"""Statements that find breaches among payments, their histories, the gateway's ledger and idempotency keys.

Each of them checks one range of ids. Each check is one statement on purpose; `cli.verify.scan` says why.
"""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    Uuid,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from cli.verify.breaches import BreachKind
from shared.database.tables import (
    api_keys,
    deliveries,
    gateway_ledger,
    idempotency_keys,
    payment_history,
    payments,
    webhook_endpoints,
)
from shared.lifecycle import NOT_LIVE, TRANSITIONS, PaymentStatus
from worker.gateway.ledger import MOVES_MONEY, EntryKind

# A statement for breaches: each row has a `kind`, and its other columns are the ids that locate the breach.
type Query = Select[Any]


def in_range(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that `column` is in the range of ids that the statement is run for.

    A statement needs it for each of its tables, because no query planner infers it.
    """
    return and_(column > bindparam("after", type_=Uuid), column <= bindparam("upto", type_=Uuid))


def kind_of(*cases: tuple[ColumnElement[bool], BreachKind]) -> ColumnElement[str | None]:
    """Return the first kind whose condition is true, else null."""
    return case(*[(condition, literal(kind.value, String)) for condition, kind in cases], else_=None)


def only_breaches(found: Query) -> Query:
    """Select the rows of `found` that have a kind."""
    rows = found.subquery()
    return select(*rows.c).where(rows.c.kind.is_not(None))


def histories() -> Query:
    """Find histories that `lifecycle.TRANSITIONS` does not allow, or that do not fit their payment."""
    of_payment: dict[str, Any] = {"partition_by": payments.c.id, "order_by": payment_history.c.sequence}
    moves = (
        select(
            payments.c.id,
            payments.c.status,
            payments.c.sequence.label("length"),
            *payment_history.c["sequence", "previous_status", "new_status"],
            func.row_number().over(**of_payment).label("number"),
            func.lag(payment_history.c.new_status).over(**of_payment).label("status_before"),
        )
        .outerjoin(
            payment_history, and_(payment_history.c.payment_id == payments.c.id, in_range(payment_history.c.payment_id))
        )
        .where(in_range(payments.c.id))
        .subquery()
    )
    move = moves.c
    allowed = [f"{before}>{after}" for before, afters in TRANSITIONS.items() for after in afters]
    is_allowed = and_(
        move.previous_status == move.status_before, (move.previous_status + ">" + move.new_status).in_(allowed)
    )
    starts = and_(move.previous_status.is_(None), move.new_status == PaymentStatus.PENDING)
    return only_breaches(
        select(
            kind_of(
                (
                    or_(
                        func.count(move.sequence) != func.max(move.length),
                        _any(move.sequence != move.number),
                    ),
                    BreachKind.HISTORY_GAP,
                ),
                (_any(and_(move.number == 1, ~starts)), BreachKind.HISTORY_START),
                (_any(and_(move.number > 1, func.coalesce(~is_allowed, True))), BreachKind.HISTORY_MOVE),
                (_any(and_(move.sequence == move.length, move.new_status != move.status)), BreachKind.HISTORY_END),
            ).label("kind"),
            move.id.label("payment_id"),
        ).group_by(move.id)
    )


def _any(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return whether the condition is true for at least one row of the group."""
    return func.max(case((condition, 1), else_=0)) == 1


def charges() -> Query:
    """Find payments that disagree with the gateway's ledger. A payment that is PROCESSING may be charged already."""
    entry = gateway_ledger.c
    moves_money = entry.kind.in_(MOVES_MONEY)
    ledger = (
        select(
            entry.payment_id,
            func.count(case((moves_money, 1))).label("charges"),
            func.count(case((entry.kind == EntryKind.AUTHORIZE, 1))).label("holds"),
            func.count(case((entry.kind.in_([EntryKind.CAPTURE, EntryKind.VOID]), 1))).label("ends"),
            func.count(case((entry.kind == EntryKind.VOID, 1))).label("voids"),
            func.max(case((moves_money, entry.amount))).label("amount"),
            func.max(case((moves_money, entry.currency))).label("currency"),
            func.max(case((moves_money, entry.answer["transaction_id"].as_string()))).label("transaction_id"),
        )
        .where(in_range(entry.payment_id))
        .group_by(entry.payment_id)
        .subquery()
    )
    is_completed = payments.c.status == PaymentStatus.COMPLETED
    has_ended_unpaid = payments.c.status.in_(NOT_LIVE)
    is_charged = and_(ledger.c.charges > 0, ledger.c.voids == 0)
    as_agreed = and_(
        ledger.c.amount == payments.c.amount,
        ledger.c.currency == payments.c.currency,
        ledger.c.transaction_id == payments.c.gateway_transaction_id,
    )
    return only_breaches(
        select(
            kind_of(
                (ledger.c.charges > 1, BreachKind.CHARGED_TWICE),
                (and_(is_completed, func.coalesce(~is_charged, True)), BreachKind.COMPLETED_UNCHARGED),
                (and_(is_completed, func.coalesce(~as_agreed, True)), BreachKind.CHARGE_MISMATCH),
                (and_(has_ended_unpaid, is_charged), BreachKind.ENDED_CHARGED),
                (and_(has_ended_unpaid, ledger.c.holds > ledger.c.ends), BreachKind.ENDED_HELD),
                (
                    and_(payments.c.status == PaymentStatus.FAILED, ledger.c.payment_id.is_(None)),
                    BreachKind.FAILED_NOT_VOIDED,
                ),
            ).label("kind"),
            payments.c.id.label("payment_id"),
            payments.c.status,
        )
        .outerjoin(ledger, ledger.c.payment_id == payments.c.id)
        .where(in_range(payments.c.id))
    )


def orphan_charges() -> Query:
    """Find charges for payments that do not exist."""
    return (
        select(
            literal(BreachKind.ORPHAN_CHARGE.value, String).label("kind"),
            gateway_ledger.c.payment_id,
            gateway_ledger.c.key.label("ledger_key"),
        )
        .outerjoin(payments, and_(payments.c.id == gateway_ledger.c.payment_id, in_range(payments.c.id)))
        .where(in_range(gateway_ledger.c.payment_id), gateway_ledger.c.kind.in_(MOVES_MONEY), payments.c.id.is_(None))
    )


def live_twice() -> Query:
    """Find live payments with a later live payment of the same user and order."""
    other = payments.alias()
    return (
        select(
            literal(BreachKind.LIVE_TWICE.value, String).label("kind"),
            payments.c.id.label("payment_id"),
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


# The table of the objects that the keys of an operation name. A key of POST /payment-methods is not checked: if the
# card was known already, no method was added, and the key names none.
_NAMED_BY = {
    "POST /payments": payments,
    "POST /webhook-endpoints": webhook_endpoints,
    "POST /webhook-deliveries": deliveries,
    "POST /api-keys": api_keys,
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
        and_(key.scope.contains(f" {operation}"), ~exists().where(table.c.id == key.object_id))
        for operation, table in _NAMED_BY.items()
    ]
    kind = literal(BreachKind.DANGLING_IDEMPOTENCY_KEY.value, String).label("kind")
    return select(kind, key.scope, key.key, key.object_id).where(_names(has_end=has_end), or_(*names_nothing))


def _names(*, has_end: bool) -> ColumnElement[bool]:
    name = tuple_(idempotency_keys.c.scope, idempotency_keys.c.key)
    after = name > tuple_(bindparam("after_scope"), bindparam("after_key"))
    return and_(after, name <= tuple_(bindparam("upto_scope"), bindparam("upto_key"))) if has_end else after
