"""What is refused because of the state of a payment, in words: each refusal says the state and since when."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.errors import (
    NoActionRequired,
    OrderAlreadyPaid,
    PaymentInProgress,
    PaymentNotCancellable,
    PaymentNotCapturable,
)
from shared.lifecycle import CANCELLED_AT_ONCE, PAID, WAITING, PaymentStatus
from shared.logs import redact
from shared.wording import in_state, refused_in_state

# What a client can do instead of cancelling a payment in this status.
INSTEAD_OF_CANCELLING = {
    PaymentStatus.PROCESSING: "Wait for it to end.",
    PaymentStatus.COMPLETED: "It was charged: refund it instead.",
    PaymentStatus.PARTIALLY_REFUNDED: "It was charged: refund the rest instead.",
    PaymentStatus.REFUNDED: "All of it was refunded, and there is nothing to cancel.",
    PaymentStatus.FAILED: "Nothing was charged, and there is nothing to cancel.",
}
# What a client can do instead of capturing a payment in this status.
INSTEAD_OF_CAPTURING = {
    PaymentStatus.PENDING: "Only what is AUTHORIZED is captured on request: wait for it to be processed.",
    PaymentStatus.PROCESSING: "A worker is at work on it: read it again before you decide.",
    PaymentStatus.REQUIRES_ACTION: "Its customer has not approved it yet: wait until it is AUTHORIZED.",
    PaymentStatus.AUTHORIZED: "Its authorization is over: the payment is about to be voided.",
    PaymentStatus.COMPLETED: "It is captured already, and a payment is captured once.",
    PaymentStatus.PARTIALLY_REFUNDED: "It was captured already, and a payment is captured once.",
    PaymentStatus.REFUNDED: "It was captured already, and a payment is captured once.",
    PaymentStatus.FAILED: "Nothing is held, and there is nothing to capture.",
    PaymentStatus.CANCELLED: "Nothing is held any more: pay again with a new payment.",
}

# What a client can do instead of answering for the customer of a payment in this status.
INSTEAD_OF_ANSWERING = {
    PaymentStatus.PENDING: "Only a payment that is REQUIRES_ACTION takes an answer: wait for it to be processed.",
    PaymentStatus.PROCESSING: "A worker is at work on it: wait for it to end.",
    PaymentStatus.REQUIRES_ACTION: "The time of its customer is over, and the payment is about to fail.",
    PaymentStatus.AUTHORIZED: "It is authorized already: capture or cancel it.",
    PaymentStatus.COMPLETED: "It is charged already.",
    PaymentStatus.PARTIALLY_REFUNDED: "It was charged already.",
    PaymentStatus.REFUNDED: "It was charged and refunded already.",
    PaymentStatus.FAILED: "Nothing was charged: pay again with a new payment.",
    PaymentStatus.CANCELLED: "Nothing was charged: pay again with a new payment.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePayment:
    """The payment that blocks another one for the same order; `since` is the moment of its status."""

    id: UUID
    status: PaymentStatus
    created_by: str
    since: datetime


def not_cancellable(status: PaymentStatus, since: datetime) -> PaymentNotCancellable:
    """Return the refusal to cancel a payment, which the client may see, in this status since this moment."""
    return PaymentNotCancellable(
        refused_in_state(
            "The payment",
            status,
            since,
            so="it can no longer be cancelled",
            remedy=INSTEAD_OF_CANCELLING[status],
        )
    )


def not_capturable(status: PaymentStatus, since: datetime) -> PaymentNotCapturable:
    """Return the refusal to capture a payment, which the client may see, in this status since this moment."""
    return PaymentNotCapturable(
        refused_in_state(
            "The payment",
            status,
            since,
            so="it cannot be captured",
            remedy=INSTEAD_OF_CAPTURING[status],
        )
    )


def no_action_required(status: PaymentStatus, since: datetime) -> NoActionRequired:
    """Return the refusal of an answer for the customer of a payment, which the client may see, in this status."""
    return NoActionRequired(
        refused_in_state(
            "The payment",
            status,
            since,
            so="no action of its customer is required",
            remedy=INSTEAD_OF_ANSWERING[status],
        )
    )


def order_taken(order_id: str, blocker: LivePayment) -> OrderAlreadyPaid | PaymentInProgress:
    """Return the refusal of another payment for the order, for a client that may see `blocker`.

    For every other client the errors have texts of their own, without the id, the status and the moment.
    """
    # The number of a card may stand where the id of an order should.
    order = f"Order {redact(order_id)}"
    if blocker.status in PAID:
        paid = in_state(f"payment {blocker.id}", blocker.status, blocker.since)
        return OrderAlreadyPaid(
            blocker.id,
            f"{order} is already paid: {paid}. It needs no other payment, unless all of this one is refunded.",
        )
    paying = in_state(f"payment {blocker.id}, which", blocker.status, blocker.since)
    can_be_cancelled = blocker.status in (*CANCELLED_AT_ONCE, *WAITING)
    remedy = "Wait for it to end, or cancel it" if can_be_cancelled else "Wait for it to end"
    return PaymentInProgress(blocker.id, f"{order} is being paid by {paying}. {remedy}.")
