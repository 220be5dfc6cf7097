"""What is refused because of the state of a payment or of a refund, in words: each says the state and since when."""

from datetime import datetime

from shared.errors import PaymentNotRefundable, RefundExceedsBalance, RefundNotCancellable
from shared.lifecycle import PaymentStatus
from shared.payments.balance import Balance
from shared.refund_lifecycle import RefundStatus
from shared.wording import in_state, refused_in_state

# What a client can do instead of refunding a payment in this status.
INSTEAD_OF_REFUNDING = {
    PaymentStatus.PENDING: "Nothing is charged yet: cancel it instead.",
    PaymentStatus.PROCESSING: "Wait until it is COMPLETED.",
    PaymentStatus.REQUIRES_ACTION: "Nothing is charged yet: cancel it instead.",
    PaymentStatus.AUTHORIZED: "Nothing is captured yet: cancel it instead.",
    PaymentStatus.REFUNDED: "All that was captured is refunded, and there is nothing left.",
    PaymentStatus.FAILED: "Nothing was charged, and there is nothing to refund.",
    PaymentStatus.CANCELLED: "Nothing was charged, and there is nothing to refund.",
}
# What a client can do instead of cancelling a refund in this status.
INSTEAD_OF_CANCELLING = {
    RefundStatus.PROCESSING: "Wait for it to end.",
    RefundStatus.COMPLETED: "The money has been paid back.",
    RefundStatus.FAILED: "No money was paid back, and its amount may be refunded again.",
    RefundStatus.CANCELLED: "No money was paid back, and its amount may be refunded again.",
}


def not_refundable(status: PaymentStatus, since: datetime) -> PaymentNotRefundable:
    """Return the refusal to refund a payment, which the client may see, in this status since this moment."""
    return PaymentNotRefundable(
        refused_in_state(
            "The payment",
            status,
            since,
            so="it cannot be refunded",
            remedy=INSTEAD_OF_REFUNDING[status],
        )
    )


def exceeds_balance(status: PaymentStatus, since: datetime, amounts: Balance) -> RefundExceedsBalance:
    """Return the refusal of a refund for which too little of the payment, which the client may see, is left."""
    left = (
        f"Of its {amounts.captured} minor units {amounts.refunded} are refunded and {amounts.reserved} reserved for "
        f"refunds in progress, so {amounts.refundable} can be refunded."
    )
    remedy = (
        "Ask for at most that." if amounts.refundable else "Wait for the refunds in progress: what fails is free again."
    )
    state = in_state("The payment", status, since)
    return RefundExceedsBalance(amounts.refundable, f"{state}. {left} {remedy}")


def refund_not_cancellable(status: RefundStatus, since: datetime) -> RefundNotCancellable:
    """Return the refusal to cancel a refund, which the client may see, in this status since this moment."""
    return RefundNotCancellable(
        refused_in_state(
            "The refund",
            status,
            since,
            so="it can no longer be cancelled",
            remedy=INSTEAD_OF_CANCELLING[status],
        )
    )
