"""The life of a refund: statuses, the moves between them and their reasons. No database here.

 PENDING ──▶ PROCESSING ──▶ COMPLETED
    │             └───────▶ FAILED
    └──▶ CANCELLED

PENDING is left once, by the first claim or by a cancel; later claims are moves from PROCESSING to PROCESSING. Request,
completion, failure and cancel each also move the payment: see `shared.lifecycle`.
"""

from enum import StrEnum

from shared.lifecycle import HistoryReason


class RefundStatus(StrEnum):
    """The status of a refund; the words that clients see."""

    PENDING = "PENDING"
    """Accepted, its amount is reserved, and the gateway has never heard of it."""
    PROCESSING = "PROCESSING"
    """Claimed by a worker, which asks the gateway, or due again for another try."""
    COMPLETED = "COMPLETED"
    """The gateway has paid it back. Nothing moves it any more."""
    FAILED = "FAILED"
    """The gateway has refused it, or could not be reached. Nothing moves it any more; its amount is free again."""
    CANCELLED = "CANCELLED"
    """Cancelled before a worker claimed it. Nothing moves it any more; its amount is free again."""

    @property
    def has_ended(self) -> bool:
        """Nothing moves this refund any more."""
        return self in ENDED


class RefundHistoryReason(StrEnum):
    """Why a refund moved; the closed set of `reason` in its history."""

    REQUESTED = "requested"
    """The API, or the service itself, accepted the refund: the first entry of every history."""
    CLAIMED = "claimed"
    """A worker claimed the refund for the first time."""
    LEASE_EXPIRED = "lease_expired"
    """A worker claimed the refund because the lease of the one before had ended without a record."""
    RETRIED = "retried"
    """A worker claimed the refund for another try, after the gateway had said that nothing happened."""
    RELEASED = "released"
    """A worker claimed the refund that another one had released because it was stopped."""
    GATEWAY_PENDING = "gateway_pending"
    """The gateway accepted the refund and settles it later. No worker holds it until then."""
    GATEWAY_TIMED_OUT = "gateway_timed_out"
    """A worker claimed the refund to ask again, after the answer of the gateway was lost."""
    GATEWAY_SETTLED = "gateway_settled"
    """A worker claimed the refund to ask for the gateway's late answer: the gateway had notified, or its time was
    over."""
    GATEWAY_APPROVED = "gateway_approved"
    """The gateway paid it. The refund is COMPLETED."""
    GATEWAY_DECLINED = "gateway_declined"
    """The gateway declined it. The refund is FAILED."""
    GATEWAY_UNREACHABLE = "gateway_unreachable"
    """The gateway could not be reached in any of GATEWAY_TRIES_MAX tries. The refund is FAILED."""
    CLAIMS_EXHAUSTED = "claims_exhausted"
    """More than MAX_CLAIMS claims ended without an answer. The gateway's own record decides: COMPLETED or FAILED."""
    CANCELLED = "cancelled"
    """The refund was cancelled while it was PENDING. It is CANCELLED."""


class RefundReason(StrEnum):
    """Why the merchant refunds; the closed set of a refund's `reason`."""

    REQUESTED_BY_CUSTOMER = "requested_by_customer"
    DUPLICATE = "duplicate"
    FRAUDULENT = "fraudulent"
    ORDER_CANCELLED = "order_cancelled"
    OTHER = "other"


class RefundCause(StrEnum):
    """What made the service request a refund itself. A payment has at most one refund of each cause."""

    ORDER_CONFLICT = "order_conflict"


class RefundFailureCode(StrEnum):
    """Why a refund failed. A closed set."""

    REFUND_DECLINED = "refund_declined"
    NETWORK_ERROR = "network_error"


TRANSITIONS: dict[RefundStatus, frozenset[RefundStatus]] = {
    RefundStatus.PENDING: frozenset({RefundStatus.PROCESSING, RefundStatus.CANCELLED}),
    RefundStatus.PROCESSING: frozenset({RefundStatus.PROCESSING, RefundStatus.COMPLETED, RefundStatus.FAILED}),
    RefundStatus.COMPLETED: frozenset(),
    RefundStatus.FAILED: frozenset(),
    RefundStatus.CANCELLED: frozenset(),
}
# Nothing moves the refund any more.
ENDED = (RefundStatus.COMPLETED, RefundStatus.FAILED, RefundStatus.CANCELLED)
# A worker has something to do for the refund, or holds it; its amount is reserved.
OPEN = (RefundStatus.PENDING, RefundStatus.PROCESSING)
MAY_BE_CLAIMED = (RefundStatus.PENDING, RefundStatus.PROCESSING)
MAY_BE_SETTLED = (RefundStatus.PROCESSING,)
MAY_BE_CANCELLED = (RefundStatus.PENDING,)

# The reason of the payment's move that an end of the refund brings.
PAYMENT_REASON_OF_END: dict[RefundStatus, HistoryReason] = {
    RefundStatus.COMPLETED: HistoryReason.REFUND_COMPLETED,
    RefundStatus.FAILED: HistoryReason.REFUND_FAILED,
    RefundStatus.CANCELLED: HistoryReason.REFUND_CANCELLED,
}
