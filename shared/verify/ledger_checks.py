"""Statements that compare payments and refunds with the gateway's ledger.

Each of them checks one range of payments. Each check is one statement on purpose; `shared.verify.scan` says why.
"""

from sqlalchemy import ColumnElement, Subquery, and_, case, func, or_, select

from shared.database.refund_tables import payment_balances, refunds
from shared.database.tables import gateway_ledger, payments
from shared.lifecycle import HistoryReason, OutcomeRule, PaymentStatus
from shared.refund_lifecycle import RefundStatus
from shared.simulation.ledger_entries import CAPTURE_OR_VOID, MOVES_MONEY, PENDING_STEP, EntryKind
from shared.verify.breaches import BreachKind
from shared.verify.statements import IDS, Query, in_range, is_wrong, kind_of, only_breaches

# Money was taken for these, whatever was paid back afterwards.
CHARGED = (PaymentStatus.COMPLETED, PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED)
# No money was taken for these, and none ever is.
UNCHARGED = (PaymentStatus.FAILED, PaymentStatus.CANCELLED)


def charges() -> Query:
    """Find payments that disagree with the gateway's ledger. A payment that is PROCESSING may be charged already."""
    ledger = _ledger_by_payment()
    is_waiting_for_answer = and_(
        payments.c.status == PaymentStatus.PROCESSING, payments.c.due_reason == HistoryReason.GATEWAY_SETTLED
    )
    is_authorized = payments.c.status == PaymentStatus.AUTHORIZED
    is_uncharged = payments.c.status.in_(UNCHARGED)
    counts_as_charged = payments.c.status.in_(CHARGED)
    is_charged = and_(ledger.c.charges > 0, ledger.c.voids == 0)
    as_agreed = and_(
        ledger.c.amount == func.coalesce(payment_balances.c.captured, payments.c.amount),
        ledger.c.currency == payments.c.currency,
        ledger.c.transaction_id == payments.c.gateway_transaction_id,
    )
    as_held = and_(ledger.c.held == payments.c.amount, ledger.c.held_currency == payments.c.currency)
    return only_breaches(
        select(
            kind_of(
                (ledger.c.charges > 1, BreachKind.CHARGED_TWICE),
                (
                    and_(ledger.c.voids > 0, or_(ledger.c.ends > ledger.c.voids, ledger.c.refunds > 0)),
                    BreachKind.MONEY_AFTER_VOID,
                ),
                (ledger.c.voids > 1, BreachKind.VOIDED_TWICE),
                (ledger.c.amount > ledger.c.held, BreachKind.CAPTURED_ABOVE_HOLD),
                (and_(counts_as_charged, is_wrong(is_charged)), BreachKind.COMPLETED_UNCHARGED),
                (and_(counts_as_charged, is_wrong(as_agreed)), BreachKind.CHARGE_MISMATCH),
                (and_(is_uncharged, is_charged), BreachKind.ENDED_CHARGED),
                (and_(is_uncharged, ledger.c.holds > ledger.c.ends), BreachKind.ENDED_HELD),
                (
                    and_(
                        payments.c.status == PaymentStatus.FAILED,
                        # The gateway charges nothing that a customer has not approved.
                        payments.c.outcome_rule.is_distinct_from(OutcomeRule.CUSTOMER),
                        func.coalesce(ledger.c.decided, 0) == 0,
                    ),
                    BreachKind.FAILED_NOT_VOIDED,
                ),
                (
                    and_(
                        payments.c.status == PaymentStatus.REQUIRES_ACTION,
                        or_(ledger.c.charges > 0, ledger.c.holds > 0),
                    ),
                    BreachKind.ACTION_DECIDED,
                ),
                (
                    and_(is_waiting_for_answer, func.coalesce(ledger.c.pending, 0) == 0),
                    BreachKind.PENDING_UNKNOWN,
                ),
                (
                    and_(is_authorized, is_wrong(and_(ledger.c.holds == 1, ledger.c.ends == 0))),
                    BreachKind.AUTHORIZED_NOT_HELD,
                ),
                (and_(is_authorized, is_wrong(as_held)), BreachKind.HOLD_MISMATCH),
            ).label("kind"),
            *IDS[payments],
            payments.c.status,
        )
        .outerjoin(ledger, ledger.c.payment_id == payments.c.id)
        .outerjoin(
            payment_balances,
            and_(payment_balances.c.payment_id == payments.c.id, in_range(payment_balances.c.payment_id)),
        )
        .where(in_range(payments.c.id))
    )


def _ledger_by_payment() -> Subquery:
    """Select what the ledger has of each payment."""
    entry = gateway_ledger.c
    moves_money = entry.kind.in_(MOVES_MONEY)
    is_hold = entry.kind == EntryKind.AUTHORIZE

    def count(which: ColumnElement[bool], name: str) -> ColumnElement[int]:
        return func.count(case((which, 1))).label(name)

    return (
        select(
            entry.payment_id,
            count(moves_money, "charges"),
            count(is_hold, "holds"),
            count(entry.step == PENDING_STEP, "pending"),
            count(entry.kind != EntryKind.PENDING, "decided"),
            count(entry.kind.in_(CAPTURE_OR_VOID), "ends"),
            count(entry.kind == EntryKind.VOID, "voids"),
            count(entry.kind == EntryKind.REFUND, "refunds"),
            func.max(case((moves_money, entry.amount))).label("amount"),
            func.max(case((moves_money, entry.currency))).label("currency"),
            func.max(case((moves_money, entry.answer["transaction_id"].as_string()))).label("transaction_id"),
            func.max(case((is_hold, entry.amount))).label("held"),
            func.max(case((is_hold, entry.currency))).label("held_currency"),
        )
        .where(in_range(entry.payment_id))
        .group_by(entry.payment_id)
        .subquery()
    )


def orphans() -> Query:
    """Find charges of payments that do not exist, and money that was paid back without a refund."""
    entry = gateway_ledger.c
    is_refund = entry.kind == EntryKind.REFUND
    return only_breaches(
        select(
            kind_of(
                (and_(~is_refund, payments.c.id.is_(None)), BreachKind.ORPHAN_CHARGE),
                (and_(is_refund, refunds.c.id.is_(None)), BreachKind.ORPHAN_REFUND),
            ).label("kind"),
            entry.payment_id,
            entry.key.label("ledger_key"),
        )
        .outerjoin(payments, and_(payments.c.id == entry.payment_id, in_range(payments.c.id)))
        .outerjoin(
            refunds,
            and_(
                refunds.c.payment_id == entry.payment_id,
                refunds.c.number == entry.step,
                in_range(refunds.c.payment_id),
            ),
        )
        .where(in_range(entry.payment_id), entry.kind.in_([*MOVES_MONEY, EntryKind.REFUND]))
    )


def refunds_at_the_gateway() -> Query:
    """Find refunds that disagree with the gateway's ledger. A refund that is PROCESSING may be paid already."""
    entry = gateway_ledger.c
    is_paid = entry.kind == EntryKind.REFUND
    as_agreed = and_(
        entry.amount == refunds.c.amount,
        entry.currency == payments.c.currency,
        or_(
            refunds.c.status != RefundStatus.COMPLETED,
            entry.answer["transaction_id"].as_string() == refunds.c.gateway_transaction_id,
        ),
    )
    may_not_be_paid = refunds.c.status.in_((RefundStatus.PENDING, RefundStatus.FAILED, RefundStatus.CANCELLED))
    return only_breaches(
        select(
            kind_of(
                (
                    and_(refunds.c.status == RefundStatus.COMPLETED, is_wrong(is_paid)),
                    BreachKind.REFUND_UNPAID,
                ),
                (and_(may_not_be_paid, is_paid), BreachKind.REFUND_PAID_ANYWAY),
                (and_(is_paid, is_wrong(as_agreed)), BreachKind.REFUND_MISMATCH),
                (
                    and_(refunds.c.status == RefundStatus.FAILED, entry.payment_id.is_(None)),
                    BreachKind.REFUND_NOT_CLOSED,
                ),
            ).label("kind"),
            *IDS[refunds],
            refunds.c.status,
        )
        .join(payments, and_(payments.c.id == refunds.c.payment_id, in_range(payments.c.id)))
        .outerjoin(
            gateway_ledger,
            and_(
                entry.payment_id == refunds.c.payment_id,
                entry.step == refunds.c.number,
                in_range(entry.payment_id),
            ),
        )
        .where(in_range(refunds.c.payment_id))
    )
