"""A statement that finds payments whose amounts do not agree with their status and their refunds.

It checks one range of payments. It is one statement on purpose; `shared.verify.scan` says why.
"""

from sqlalchemy import ColumnElement, Subquery, and_, case, func, or_, select

from shared.database.refund_tables import payment_balances, refunds
from shared.database.tables import payments
from shared.lifecycle import PaymentOperation, PaymentStatus
from shared.refund_lifecycle import OPEN, RefundStatus
from shared.verify.breaches import BreachKind
from shared.verify.ledger_checks import CHARGED
from shared.verify.statements import IDS, Query, in_range, kind_of, only_breaches

# What a payment is due for, or was at last, after it was authorized.
_AFTER_AUTHORIZATION = (PaymentOperation.CAPTURE, PaymentOperation.VOID)
_REFUNDED = (PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED)


def balances() -> Query:
    """Find balances that are missing, superfluous or wrong, and statuses that do not fit the completed refunds."""
    balance, refunded = payment_balances.c, _refunds_by_payment()
    was_authorized = func.coalesce(payments.c.operation.in_(_AFTER_AUTHORIZATION), False)
    must_exist = or_(was_authorized, refunded.c.payment_id.is_not(None))
    paid_back, reserved = (func.coalesce(refunded.c[name], 0) for name in ("paid_back", "reserved"))
    captured = func.coalesce(balance.captured, payments.c.amount)
    return only_breaches(
        select(
            kind_of(
                (and_(must_exist, balance.payment_id.is_(None)), BreachKind.BALANCE_MISSING),
                (and_(~must_exist, balance.payment_id.is_not(None)), BreachKind.UNEXPECTED_BALANCE),
                (
                    or_(balance.authorized != payments.c.amount, balance.captured != _captured(was_authorized)),
                    BreachKind.BALANCE_MISMATCH,
                ),
                (~_status_fits(paid_back, captured), BreachKind.REFUND_STATUS_MISMATCH),
                (
                    or_(balance.refunded != paid_back, balance.reserved != reserved),
                    BreachKind.REFUND_SUM_MISMATCH,
                ),
            ).label("kind"),
            *IDS[payments],
            payments.c.status,
        )
        .outerjoin(payment_balances, and_(balance.payment_id == payments.c.id, in_range(balance.payment_id)))
        .outerjoin(refunded, refunded.c.payment_id == payments.c.id)
        # The plain charge has no part in this.
        .where(
            in_range(payments.c.id),
            or_(
                was_authorized,
                payments.c.status.in_(_REFUNDED),
                balance.payment_id.is_not(None),
                refunded.c.payment_id.is_not(None),
            ),
        )
    )


def _refunds_by_payment() -> Subquery:
    """Select the sums of the completed and of the open refunds of each payment."""

    def total(which: ColumnElement[bool], name: str) -> ColumnElement[int]:
        return func.sum(case((which, refunds.c.amount), else_=0)).label(name)

    return (
        select(
            refunds.c.payment_id,
            total(refunds.c.status == RefundStatus.COMPLETED, "paid_back"),
            total(refunds.c.status.in_(OPEN), "reserved"),
        )
        .where(in_range(refunds.c.payment_id))
        .group_by(refunds.c.payment_id)
        .subquery()
    )


def _captured(was_authorized: ColumnElement[bool]) -> ColumnElement[int]:
    """Return what the payment's own row says was captured."""
    on_request = func.coalesce(payments.c.operation_amount, payments.c.amount)
    return case(
        (payments.c.status.not_in(CHARGED), 0),
        (was_authorized, on_request),
        else_=payments.c.amount,
    )


def _status_fits(paid_back: ColumnElement[int], captured: ColumnElement[int]) -> ColumnElement[bool]:
    """Return whether the status says how much of what was captured is refunded: nothing, a part, or all of it."""
    return case(
        (paid_back == 0, payments.c.status.not_in(_REFUNDED)),
        (paid_back < captured, payments.c.status == PaymentStatus.PARTIALLY_REFUNDED),
        else_=and_(payments.c.status == PaymentStatus.REFUNDED, paid_back == captured),
    )
