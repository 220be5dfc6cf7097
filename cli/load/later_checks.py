"""Checks the captures and refunds of a load when it is over, by what any client sees."""

from cli.load.checks import LoadVerdict
from cli.load.later_tally import LaterPayment, LaterTally
from shared.lifecycle import PaymentStatus
from shared.refund_lifecycle import RefundStatus

CAPTURED = (PaymentStatus.COMPLETED, PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED)
OPEN = (RefundStatus.PENDING, RefundStatus.PROCESSING)


def judge_captures_and_refunds(tally: LaterTally, verdict: LoadVerdict) -> None:
    """Check that each capture and refund that was accepted ended as it says, and that the amounts agree."""
    if not tally.payments:
        return
    verdict.compared.append(
        f"{tally.captures:,} captures and {tally.refund_ends.total():,} refunds, as the API shows them: "
        "each ended as it says, and the amounts of the payments agree"
    )
    for words, is_broken in (
        ("A capture was accepted, and the payment does not say so.", _capture_is_lost),
        ("A refund was accepted and never ended.", _refund_is_open),
        ("The amounts of a payment are not those of its refunds.", _amounts_differ),
        ("More was refunded than was captured.", _is_refunded_above),
    ):
        verdict.note(words, [payment.payment_id for payment in tally.payments if is_broken(payment)])
    if unfinished := sum(not payment.is_finished for payment in tally.payments):
        verdict.not_looked_at.append(
            f"{unfinished:,} payments whose captures or refunds were given up before they ended"
        )


def _capture_is_lost(payment: LaterPayment) -> bool:
    """A capture that failed shows its error; every other one is the payment's amount."""
    if payment.capture is None or payment.shown.get("last_capture_error"):
        return False
    is_captured = payment.shown.get("status") in CAPTURED
    return not (is_captured and payment.shown["amount_captured"] == payment.capture)


def _refund_is_open(payment: LaterPayment) -> bool:
    return payment.amount_of(*OPEN) > 0


def _amounts_differ(payment: LaterPayment) -> bool:
    """Whether the payment shows other amounts, or another status, than its refunds make.."""
    shown = payment.shown
    if not payment.refunds or not payment.is_finished:
        return False
    refunded, captured = payment.amount_of(RefundStatus.COMPLETED), shown["amount_captured"]
    status = PaymentStatus.COMPLETED
    if refunded:
        status = PaymentStatus.REFUNDED if refunded == captured else PaymentStatus.PARTIALLY_REFUNDED
    found = (shown["amount_refunded"], shown["amount_refundable"], shown["status"])
    return found != (refunded, captured - refunded, status)


def _is_refunded_above(payment: LaterPayment) -> bool:
    """Whether refunds were accepted together that are more than what was captured."""
    accepted = payment.amount_of(*OPEN, RefundStatus.COMPLETED)
    return accepted > 0 and accepted > int(payment.shown["amount_captured"])
