"""What a claim makes of its payment. Pure functions: a payment as it was claimed, and the payment afterwards."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, assert_never

from shared.database.clock import rfc3339
from shared.lifecycle import HistoryReason, PaymentOperation, PaymentStatus
from shared.payments.balance import Balance
from shared.payments.outcomes import (
    ActionNeeded,
    Approved,
    Authorized,
    ClaimOutcome,
    Declined,
    Postpone,
    Release,
    Retry,
    Settled,
    Unsettled,
    Voided,
    with_remark,
)
from shared.payments.payment import Payment


def after_claim(payment: Payment, outcome: ClaimOutcome, now: datetime) -> Payment:
    """Return the payment as the outcome of its claim leaves it."""
    return replace(_moved(payment, outcome, now), simulated=with_remark(payment.simulated, outcome))


def _moved(payment: Payment, outcome: ClaimOutcome, now: datetime) -> Payment:
    match outcome:
        case Settled(answer):
            return _settled(payment, answer, now)
        case Authorized(answer, valid_s):
            return _authorized(payment, answer, now + timedelta(seconds=valid_s), now)
        case ActionNeeded(answer, valid_s):
            return _requiring_action(payment, answer.gateway, now + timedelta(seconds=valid_s), now)
        case Unsettled(answer, ask_after_s):
            return _asked_anew(
                payment,
                PaymentStatus.PROCESSING,
                now,
                gateway=answer.gateway,
                earlier_calls=(payment.earlier_calls or 0) + payment.gateway_tries + 1,
                due_at=now + timedelta(seconds=ask_after_s),
                due_reason=HistoryReason.GATEWAY_SETTLED,
            )
        case Retry() | Postpone() | Release():
            return _due_again(payment, outcome, now)
        case _:
            assert_never(outcome)


def _due_again(payment: Payment, outcome: Retry | Postpone | Release, now: datetime) -> Payment:
    match outcome:
        case Retry(wait_s):
            return replace(
                payment,
                gateway_tries=payment.gateway_tries + 1,
                due_at=now + timedelta(seconds=wait_s),
                due_reason=HistoryReason.GATEWAY_TIMED_OUT if outcome.is_timeout else HistoryReason.RETRIED,
                held_until=None,
            )
        case Postpone(wait_s, until):
            return replace(
                payment,
                order_checks=payment.order_checks + 1,
                order_check_until=until,
                due_at=max(now, min(now + timedelta(seconds=wait_s), until)),
                due_reason=HistoryReason.ORDER_UNREACHABLE,
                held_until=None,
            )
        case Release():
            return replace(payment, due_at=now, due_reason=HistoryReason.RELEASED, held_until=None)
        case _:
            assert_never(outcome)


def _settled(payment: Payment, answer: Approved | Declined | Voided, now: datetime) -> Payment:
    match answer:
        case Voided():
            released = Balance(authorized=payment.amount, captured=0)
            return _ended(payment, PaymentStatus.CANCELLED, now, capture_before=None, balance=released)
        case Approved() if payment.due_for is PaymentOperation.CHARGE:
            return _ended(payment, PaymentStatus.COMPLETED, now, processed_at=now, **_told(answer))
        case Approved():
            return _captured(payment, now)
        case Declined() if payment.due_for is PaymentOperation.CAPTURE:
            error = {"code": answer.failure_code, "reason": answer.failure_reason, "at": rfc3339(now)}
            return replace(_waiting(payment, now), last_capture_error=error)
        case Declined():
            return _ended(
                payment,
                PaymentStatus.FAILED,
                now,
                processed_at=now,
                failure_code=answer.failure_code,
                failure_reason=answer.failure_reason,
                **_told(answer),
            )
        case _:
            assert_never(answer)


def _authorized(payment: Payment, answer: Approved, until: datetime, now: datetime) -> Payment:
    held = replace(payment, capture_before=until, **_told(answer))
    return replace(_waiting(held, now), balance=Balance(authorized=payment.amount, captured=0))


def _captured(payment: Payment, now: datetime) -> Payment:
    """Return the payment once a part of its authorization, or all, is captured; the rest is released."""
    amount = payment.amount if payment.operation_amount is None else payment.operation_amount
    return _ended(
        payment,
        PaymentStatus.COMPLETED,
        now,
        processed_at=now,
        capture_before=None,
        last_capture_error=None,
        balance=Balance(authorized=payment.amount, captured=amount),
    )


def _waiting(payment: Payment, now: datetime) -> Payment:
    """Return the payment as it waits for a capture: it is due at the end of its authorization, for the void."""
    return _asked_anew(
        payment,
        PaymentStatus.AUTHORIZED,
        now,
        operation=PaymentOperation.VOID,
        operation_amount=None,
        operation_number=payment.sequence + 1,
        earlier_calls=None,
        due_at=payment.capture_before,
        due_reason=HistoryReason.AUTHORIZATION_EXPIRED,
        balance=Balance(authorized=payment.amount, captured=0),
    )


def _requiring_action(payment: Payment, gateway: str, until: datetime, now: datetime) -> Payment:
    """Return the payment as it waits for its customer: it is due at the end of the time limit."""
    return _asked_anew(
        payment,
        PaymentStatus.REQUIRES_ACTION,
        now,
        gateway=gateway,
        # The customer is asked before the call that counts.
        earlier_calls=(payment.earlier_calls or 0) + payment.gateway_tries,
        action_expires_at=until,
        due_at=until,
        due_reason=HistoryReason.ACTION_EXPIRED,
    )


def _asked_anew(payment: Payment, status: PaymentStatus, now: datetime, **changes: Any) -> Payment:
    """Return the payment with an answer that does not end it: claims, tries and checks are counted anew.

    A plain charge becomes a named one: a version that knows no operations would take it for one that begins.
    """
    changes.setdefault("operation", payment.due_for)
    return replace(
        payment,
        operation_claim=payment.lease_version,
        status=status,
        sequence=payment.sequence + 1,
        operation_version=payment.lease_version,
        gateway_tries=0,
        order_checks=0,
        order_check_until=None,
        updated_at=now,
        held_until=None,
        **changes,
    )


def _ended(payment: Payment, status: PaymentStatus, now: datetime, **changes: Any) -> Payment:
    return replace(
        payment,
        status=status,
        sequence=payment.sequence + 1,
        due_at=None,
        due_reason=None,
        updated_at=now,
        held_until=None,
        **changes,
    )


def _told(answer: Approved | Declined) -> dict[str, Any]:
    """Return the columns that keep what the gateway told of a charge or an authorization."""
    columns: dict[str, Any] = {
        "gateway": answer.gateway,
        "gateway_details": answer.details,
        "outcome_rule": answer.outcome_rule,
    }
    if isinstance(answer, Approved):
        columns["gateway_transaction_id"] = answer.transaction_id
    return columns
