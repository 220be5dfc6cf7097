"""The words of explanations: a sentence, or a part of one, for each word of the closed sets."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shared.database.clock import rfc3339
from shared.delivery_lifecycle import DeliveryStatus
from shared.event_types import EventType
from shared.failure_reasons import CAPTURE_FAILURE_REASONS, FAILURE_REASONS, REFUND_FAILURE_REASONS
from shared.lifecycle import FailureCode, HistoryReason, PaymentStatus
from shared.refund_lifecycle import RefundHistoryReason, RefundStatus
from shared.simulation.calls import CallOutcome
from shared.simulation.ledger_entries import EntryKind
from shared.simulation.rules import Pace

PAYMENT_STATUSES = {
    PaymentStatus.PENDING: "no worker has taken it up yet",
    PaymentStatus.PROCESSING: "a worker has it, or will take it up again",
    PaymentStatus.REQUIRES_ACTION: "it waits for the approval of its customer",
    PaymentStatus.AUTHORIZED: "the gateway holds the money, and nothing has moved yet",
    PaymentStatus.COMPLETED: "the money has moved, and nothing is refunded",
    PaymentStatus.PARTIALLY_REFUNDED: "a part of the money was paid back",
    PaymentStatus.REFUNDED: "all of the money was paid back",
    PaymentStatus.FAILED: "nothing was charged",
    PaymentStatus.CANCELLED: "it was cancelled, and nothing was charged",
}
REFUND_STATUSES = {
    RefundStatus.PENDING: "no worker has taken it up yet",
    RefundStatus.PROCESSING: "a worker has it, or will take it up again",
    RefundStatus.COMPLETED: "the money was paid back",
    RefundStatus.FAILED: "nothing was paid back",
    RefundStatus.CANCELLED: "it was cancelled, and nothing was paid back",
}
# What a row of a history says. A claim says why a worker took the payment or the refund up.
REASONS: dict[str, str] = {
    HistoryReason.ACCEPTED: "The payment was accepted.",
    HistoryReason.CLAIMED: "A worker took it up for the first time.",
    HistoryReason.LEASE_EXPIRED: "A worker took it up, because the one before had recorded nothing in its time: it had "
    "died, was paused, or could not reach the database.",
    HistoryReason.RETRIED: "A worker took it up for the next call.",
    HistoryReason.GATEWAY_TIMED_OUT: "A worker took it up to ask the gateway again.",
    HistoryReason.RELEASED: "A worker took it up, because the one before was stopped.",
    HistoryReason.GATEWAY_APPROVED: "The gateway did the operation.",
    HistoryReason.GATEWAY_DECLINED: "The gateway declined it.",
    HistoryReason.GATEWAY_UNREACHABLE: "No call got an answer. The last worker closed it at the gateway, so that "
    "nothing can happen later.",
    HistoryReason.CLAIMS_EXHAUSTED: "Too many workers had died with it, so the gateway's own record decided.",
    HistoryReason.ORDER_UNREACHABLE: "A worker took it up to check the order again.",
    HistoryReason.ORDER_REFUSED: "The order service said that the order must not be paid with this payment.",
    HistoryReason.ORDER_CHECK_TIMED_OUT: "The order service did not answer for so long that the payment was given up.",
    HistoryReason.GATEWAY_PENDING: "The gateway accepted it, to settle it later.",
    HistoryReason.GATEWAY_SETTLED: "A worker took it up to fetch the late answer of the gateway.",
    HistoryReason.ACTION_REQUIRED: "The gateway wanted the approval of the customer first.",
    HistoryReason.ACTION_APPROVED: "The customer approved the payment.",
    HistoryReason.ACTION_DECLINED: "The customer declined the payment.",
    HistoryReason.ACTION_EXPIRED: "The customer did not answer in time.",
    HistoryReason.CANCELLED: "It was cancelled.",
    HistoryReason.AUTHORIZED: "The gateway held the money.",
    HistoryReason.CAPTURE_REQUESTED: "A capture was asked for.",
    HistoryReason.CAPTURED: "The gateway moved the money that it held.",
    HistoryReason.CAPTURE_FAILED: "The capture failed. The gateway still held the money.",
    HistoryReason.VOID_REQUESTED: "A cancel was asked for.",
    HistoryReason.AUTHORIZATION_EXPIRED: "A worker took it up, because nobody had captured the money in time.",
    HistoryReason.VOIDED: "The gateway released the money that it held.",
    HistoryReason.REFUND_REQUESTED: "A refund was asked for.",
    HistoryReason.REFUND_COMPLETED: "A refund was paid.",
    HistoryReason.REFUND_FAILED: "A refund failed.",
    HistoryReason.REFUND_CANCELLED: "A refund was cancelled.",
    RefundHistoryReason.REQUESTED: "The refund was accepted.",
}
# The same reasons, where an operation has a better word.
_REASONS_OF: dict[tuple[str, str], str] = {
    ("charge", HistoryReason.GATEWAY_APPROVED): "The gateway charged the payment.",
    ("refund", HistoryReason.GATEWAY_APPROVED): "The gateway paid the money back.",
}
# What a call came to, by the reason of the row after its claim; else as in REASONS.
CALL_RESULTS: dict[str, str] = {
    HistoryReason.RETRIED: "The gateway could not be reached, and nothing happened.",
    HistoryReason.GATEWAY_TIMED_OUT: "The answer of the gateway was lost.",
    HistoryReason.LEASE_EXPIRED: "No record says whether the call was made.",
    HistoryReason.RELEASED: "The worker was stopped before the gateway had answered.",
    HistoryReason.GATEWAY_UNREACHABLE: "The gateway gave no answer again, and it was the last call.",
}
OPERATIONS = {
    "charge": "charge",
    "authorize": "authorization",
    "capture": "capture",
    "void": "void",
    "refund": "refund",
}
LEDGER = {
    EntryKind.PENDING: "was to be settled later",
    EntryKind.AUTHORIZE: "was held",
    EntryKind.SALE: "moved at once",
    EntryKind.DECLINE: "was declined",
    EntryKind.CAPTURE: "moved",
    EntryKind.VOID: "was released",
    EntryKind.CAPTURE_DECLINE: "was not captured",
    EntryKind.REFUND: "was paid back",
    EntryKind.REFUND_DECLINE: "was not paid back",
}
OUTCOMES: dict[str, str] = {
    CallOutcome.APPROVE: "the gateway does what it is asked to",
    CallOutcome.NETWORK_ERROR: "the gateway cannot be reached, and nothing happens",
    CallOutcome.TIMEOUT_CHARGED: "the gateway does it, and its answer is lost",
    CallOutcome.TIMEOUT_NOT_CHARGED: "nothing happens, and the answer is lost",
    CallOutcome.PENDING: "the gateway settles it later, and notifies of that",
    CallOutcome.PENDING_LOST: "the gateway settles it later, and no notification comes",
}
PACES = {
    Pace.DRAWN: "for the time that was drawn",
    Pace.AT_ONCE: "for no time at all",
    Pace.LONGEST: "for the longest delay",
    Pace.SLOW: "for five times the usual delay, within its bound",
}
DELIVERY_STATUSES = {
    DeliveryStatus.PENDING: "waits for its next attempt",
    DeliveryStatus.SENDING: "is being sent",
    DeliveryStatus.DELIVERED: "was delivered",
    DeliveryStatus.EXHAUSTED: "was given up, because no attempt of its schedule succeeded or its receiver wanted no "
    "more",
    DeliveryStatus.CANCELLED: "was cancelled, because its receiver is gone or wants it no more",
}
EVENTS = {
    EventType.INITIATED: "the payment was accepted",
    EventType.REQUIRES_ACTION: "the customer must approve the payment",
    EventType.AUTHORIZED: "the money is held",
    EventType.CAPTURE_FAILED: "a capture failed",
    EventType.COMPLETED: "the money has moved",
    EventType.FAILED: "the payment failed",
    EventType.CANCELLED: "the payment was cancelled",
    EventType.PARTIALLY_REFUNDED: "a part was paid back",
    EventType.REFUNDED: "all was paid back",
    EventType.ORDER_CONFLICT: "the order of the paid payment was cancelled",
    EventType.REFUND_CREATED: "a refund was accepted",
    EventType.REFUND_COMPLETED: "a refund was paid",
    EventType.REFUND_FAILED: "a refund failed",
    EventType.REFUND_CANCELLED: "a refund was cancelled",
}
_FAILURES = {
    str(code): reason
    for reasons in (REFUND_FAILURE_REASONS, CAPTURE_FAILURE_REASONS, FAILURE_REASONS)
    for code, reason in reasons.items()
}
# Without the name of a member.
_FAILURES[FailureCode.AUTHENTICATION_REQUIRED] = "The issuer wants 3-D Secure, and the payment has no page for it."
_MS_PER_UNIT = ((86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes"))


def reason_words(operation: str, reason: str, *, worker: str | None = None) -> str:
    """Return what a row in the history of an operation says; with the name of the `worker` that claimed, if given."""
    words = _REASONS_OF.get((operation, reason)) or REASONS.get(reason, "It moved on.")
    return words.replace("A worker", f"Worker {worker}", 1) if worker else words


def explained(code: str) -> str:
    """Return an outcome or a failure code with its meaning in brackets."""
    meaning = OUTCOMES.get(code) or _begun_small(_FAILURES.get(code, "an older version knew it"))
    return f"{code} ({meaning})"


def failed_with(code: str) -> str:
    """Return a failure code with what it means in brackets."""
    return f"{code} ({_begun_small(_FAILURES.get(code, 'an older version knew it'))})"


def steered_to(remark: Mapping[str, Any]) -> str:
    """Return what a call was made to do and how long it was made to take, as the end of a sentence."""
    parts = []
    if remark["outcome"]:
        parts.append(f"end as {explained(remark['outcome'])}")
    if remark["delay_ms"] is not None:
        parts.append(f"take {duration(remark['delay_ms'])}")
    elif remark["pace"]:
        parts.append(f"work {PACES[Pace(remark['pace'])]}")
    return " and ".join(parts) or "go on as usual"


def duration(ms: int) -> str:
    """Return a time in milliseconds, and from a minute on in a larger unit, too."""
    for unit, name in _MS_PER_UNIT:
        if ms >= unit:
            return f"{ms:,} ms ({ms / unit:.1f} {name})"
    return f"{ms:,} ms"


def moment(at: datetime) -> str:
    """Return a moment as it stands in a sentence."""
    return rfc3339(at)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _begun_small(sentence: str) -> str:
    """Return a sentence as a part of another one."""
    return (sentence[0].lower() + sentence[1:]).rstrip(".")
