"""The life of a payment: statuses, the moves between them and their reasons. No database here.

 PENDING ──▶ PROCESSING ──▶ COMPLETED ──▶ PARTIALLY_REFUNDED ──▶ REFUNDED
    │             │             └────────────────────────────────▲
    ▼             ├──▶ FAILED
 CANCELLED        ├──▶ AUTHORIZED ──▶ PROCESSING (capture_requested) ──▶ COMPLETED, or AUTHORIZED (capture_failed)
                  │        └────────▶ PROCESSING (void_requested, authorization_expired) ──▶ CANCELLED
                  └──▶ REQUIRES_ACTION ──▶ PROCESSING (action_approved), FAILED (action_declined, action_expired)
                           └─────────────▶ CANCELLED

PENDING is left once, by the first claim or by a cancel; later claims are moves from PROCESSING to PROCESSING. What a
PROCESSING payment is due for is its operation: a charge, an authorization, a capture or a void. `claims_exhausted`
settles a payment by the gateway's own record. The reasons that begin with `order` exist with an order service only.
A gateway that settles late leaves the payment PROCESSING (`gateway_pending`), without a claim, until it is asked again.

A refund has a life of its own (`shared.refund_lifecycle`). Each of its steps is a move of its payment too, mostly
without a new status, so that the payment's sequence moves with its amounts.

The paragraph below each word says what it means and which process moves it on. The classes of statuses are written out,
and never derived from the moves: a status that is new must be put into each of them, or left out of it, by hand.
"""

from enum import StrEnum


class PaymentStatus(StrEnum):
    """The status of a payment; the words that clients see."""

    PENDING = "PENDING"
    """Accepted and committed; no worker has claimed it, and the gateway has never heard of it. The first claim of a
    worker moves it to PROCESSING, a cancel to CANCELLED."""
    PROCESSING = "PROCESSING"
    """Due for an operation, or claimed by a worker for it: the worker checks the order and asks the gateway. The worker
    that holds the lease moves it on; if that worker dies, the lease ends and another one claims it."""
    REQUIRES_ACTION = "REQUIRES_ACTION"
    """The customer must approve it at the page of the bank or of PayPal. An approval makes it due for the gateway, a
    cancel or the end of the time limit ends it."""
    AUTHORIZED = "AUTHORIZED"
    """The gateway holds the funds. A request to capture or to void, or the end of the authorization, makes it due."""
    COMPLETED = "COMPLETED"
    """The gateway has charged it, and nothing is refunded. Only refunds move it."""
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    """A part of what was captured is refunded. Only refunds move it."""
    REFUNDED = "REFUNDED"
    """All that was captured is refunded. Nothing moves it any more; its order may be paid again."""
    FAILED = "FAILED"
    """The gateway or the order refused it, and nothing was charged. Nothing moves it any more: another try is a new
    payment."""
    CANCELLED = "CANCELLED"
    """Cancelled before a worker claimed it or before its customer approved it, or its authorization was voided. Nothing
    moves it any more."""

    @property
    def has_ended(self) -> bool:
        """No worker has anything to do for the payment any more."""
        return self in ENDED

    @property
    def is_settled(self) -> bool:
        """The payment has ended, or waits for a client or its customer: nobody need wait for its next move."""
        return self in ENDED or self in WAITING

    @property
    def is_live(self) -> bool:
        """The payment blocks another payment for the same order: money has moved, or still may."""
        return self in LIVE


class PaymentOperation(StrEnum):
    """What a payment is due for: one operation at a time."""

    CHARGE = "charge"
    """Authorize the amount and capture it at once."""
    AUTHORIZE = "authorize"
    """Hold the amount, to be captured on request."""
    CAPTURE = "capture"
    """Capture all or a part of what is held; the rest is released."""
    VOID = "void"
    """Release what is held: on request, or at the end of the authorization."""


class CaptureMethod(StrEnum):
    """When a payment is captured."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"


class ActionResult(StrEnum):
    """What the customer answered at the page of the bank or of PayPal."""

    APPROVED = "approved"
    DECLINED = "declined"


class HistoryReason(StrEnum):
    """Why a payment moved; the closed set of `reason` in its history."""

    ACCEPTED = "accepted"
    """The API committed the intent: the first entry of every history. A worker claims the payment next."""
    CLAIMED = "claimed"
    """A worker claimed the payment for the first time. It records what the gateway answers."""
    LEASE_EXPIRED = "lease_expired"
    """A worker claimed the payment because the lease of the one before had ended without a record: that one died, was
    paused, or could not reach the database. It asks the gateway again under the same key."""
    RETRIED = "retried"
    """A worker claimed the payment for another try, after the gateway had said that nothing happened."""
    GATEWAY_TIMED_OUT = "gateway_timed_out"
    """A worker claimed the payment to ask again, after the answer of the gateway was lost. The gateway answers again
    what it has done."""
    RELEASED = "released"
    """A worker claimed the payment that another one had released because it was stopped."""
    GATEWAY_APPROVED = "gateway_approved"
    """The gateway charged the payment. It is COMPLETED."""
    GATEWAY_DECLINED = "gateway_declined"
    """The gateway declined the payment. It is FAILED."""
    GATEWAY_UNREACHABLE = "gateway_unreachable"
    """The gateway could not be reached in any of GATEWAY_TRIES_MAX tries, and the payment was voided there. It is
    FAILED."""
    CLAIMS_EXHAUSTED = "claims_exhausted"
    """More than MAX_CLAIMS claims ended without an answer. The payment is settled by the gateway's own record:
    COMPLETED if it was charged there, else FAILED."""
    ORDER_UNREACHABLE = "order_unreachable"
    """A worker claimed the payment to check its order again, after the order service had not answered."""
    ORDER_REFUSED = "order_refused"
    """The order service says that the order must not be paid with this payment. It is FAILED."""
    ORDER_CHECK_TIMED_OUT = "order_check_timed_out"
    """The order service did not answer for ORDER_CHECK_TIMEOUT seconds. The payment is FAILED."""
    GATEWAY_PENDING = "gateway_pending"
    """The gateway accepted the payment and settles it later. No worker holds it until then."""
    GATEWAY_SETTLED = "gateway_settled"
    """A worker claimed the payment to ask for the gateway's late answer: the gateway had notified, or its time was
    over."""
    ACTION_REQUIRED = "action_required"
    """The gateway wants the customer to approve the payment. It is REQUIRES_ACTION."""
    ACTION_APPROVED = "action_approved"
    """The customer approved the payment. It is due for the gateway."""
    ACTION_DECLINED = "action_declined"
    """The customer declined the payment. It is FAILED."""
    ACTION_EXPIRED = "action_expired"
    """The customer did not answer for ACTION_EXPIRES_S seconds. The payment is FAILED."""
    CANCELLED = "cancelled"
    """The payment was cancelled while it was PENDING or REQUIRES_ACTION. It is CANCELLED."""
    AUTHORIZED = "authorized"
    """The gateway holds the funds. The payment is AUTHORIZED."""
    CAPTURE_REQUESTED = "capture_requested"
    """A client asked to capture the authorization. The payment is due for it."""
    CAPTURED = "captured"
    """The gateway captured the authorization. The payment is COMPLETED."""
    CAPTURE_FAILED = "capture_failed"
    """The capture was refused, or the gateway could not be reached. The payment is AUTHORIZED again."""
    VOID_REQUESTED = "void_requested"
    """A client cancelled the AUTHORIZED payment. It is due for the void."""
    AUTHORIZATION_EXPIRED = "authorization_expired"
    """A worker claimed the payment because its authorization had ended without a capture. It voids the payment."""
    VOIDED = "voided"
    """The gateway released the funds. The payment is CANCELLED."""
    REFUND_REQUESTED = "refund_requested"
    """A refund of the payment was accepted; its amount is reserved."""
    REFUND_COMPLETED = "refund_completed"
    """A refund was paid. The payment is PARTIALLY_REFUNDED or REFUNDED."""
    REFUND_FAILED = "refund_failed"
    """A refund failed. Its amount may be refunded again."""
    REFUND_CANCELLED = "refund_cancelled"
    """A refund was cancelled before a worker claimed it. Its amount may be refunded again."""


TRANSITIONS: dict[PaymentStatus, frozenset[PaymentStatus]] = {
    PaymentStatus.PENDING: frozenset({PaymentStatus.PROCESSING, PaymentStatus.CANCELLED}),
    PaymentStatus.PROCESSING: frozenset(
        {
            PaymentStatus.PROCESSING,
            PaymentStatus.REQUIRES_ACTION,
            PaymentStatus.AUTHORIZED,
            PaymentStatus.COMPLETED,
            PaymentStatus.FAILED,
            PaymentStatus.CANCELLED,
        }
    ),
    PaymentStatus.REQUIRES_ACTION: frozenset({PaymentStatus.PROCESSING, PaymentStatus.FAILED, PaymentStatus.CANCELLED}),
    PaymentStatus.AUTHORIZED: frozenset({PaymentStatus.PROCESSING}),
    # A step of a refund that changes no status is a move from a status to itself.
    PaymentStatus.COMPLETED: frozenset(
        {PaymentStatus.COMPLETED, PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED}
    ),
    PaymentStatus.PARTIALLY_REFUNDED: frozenset({PaymentStatus.PARTIALLY_REFUNDED, PaymentStatus.REFUNDED}),
    PaymentStatus.REFUNDED: frozenset(),
    PaymentStatus.FAILED: frozenset(),
    PaymentStatus.CANCELLED: frozenset(),
}

# No worker has anything to do for the payment any more.
ENDED = (
    PaymentStatus.COMPLETED,
    PaymentStatus.FAILED,
    PaymentStatus.CANCELLED,
    PaymentStatus.PARTIALLY_REFUNDED,
    PaymentStatus.REFUNDED,
)
# The next move is a client's or a customer's, or comes at the end of a time limit.
WAITING = (PaymentStatus.REQUIRES_ACTION, PaymentStatus.AUTHORIZED)
# A worker has something to do for the payment, or holds it.
IN_PROGRESS = (PaymentStatus.PENDING, PaymentStatus.PROCESSING)
# The payment blocks another payment for the same order.
LIVE = (
    PaymentStatus.PENDING,
    PaymentStatus.PROCESSING,
    PaymentStatus.REQUIRES_ACTION,
    PaymentStatus.AUTHORIZED,
    PaymentStatus.COMPLETED,
    PaymentStatus.PARTIALLY_REFUNDED,
)
NOT_LIVE = (PaymentStatus.FAILED, PaymentStatus.CANCELLED, PaymentStatus.REFUNDED)
# Of the live ones: the order is paid.
PAID = (PaymentStatus.COMPLETED, PaymentStatus.PARTIALLY_REFUNDED)
# A worker that has the lease records what its claim ended with.
MAY_BE_SETTLED = (PaymentStatus.PROCESSING,)
# A cancel succeeds at once, without a worker.
CANCELLED_AT_ONCE = (PaymentStatus.PENDING, PaymentStatus.REQUIRES_ACTION)
# Refunds are accepted.
REFUNDABLE = (PaymentStatus.COMPLETED, PaymentStatus.PARTIALLY_REFUNDED)


class OutcomeRule(StrEnum):
    """What decided how a payment ended. It is set with the end and never changes.

    These are the words of `outcome_rule`; the only other value is `rule:` with the id of a rule of an admin.
    """

    REQUEST = "request"
    """The request's own `simulation` named the outcome."""
    CARD = "card"
    """The test number of the card names the outcome, whatever the success rate."""
    ADDRESS = "address"
    """The test address of the PayPal account names the outcome, whatever the success rate."""
    AMOUNT = "amount"
    """The last two digits of the amount name the outcome; only with PAYMENT_FAILURE_SCENARIOS."""
    RATE = "rate"
    """No other rule applied: the success rate and a random number decided."""
    CUSTOMER = "customer"
    """The customer decided: the payment was not approved at the page of the bank or of PayPal."""
    VOIDED = "closed"
    """The payment was voided at the gateway before the gateway had decided: its workers died too often."""
    ORDER = "order"
    """The order service decided: the order must not be paid with this payment, or could not be checked."""


class FailureCode(StrEnum):
    """Why a payment failed: a code of the gateway, or of the check of its order. A closed set."""

    CARD_DECLINED = "card_declined"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    NETWORK_ERROR = "network_error"
    INVALID_PAYMENT_METHOD = "invalid_payment_method"
    LOST_CARD = "lost_card"
    STOLEN_CARD = "stolen_card"
    EXPIRED_CARD = "expired_card"
    INCORRECT_CVC = "incorrect_cvc"
    PROCESSING_ERROR = "processing_error"
    CARD_VELOCITY_EXCEEDED = "card_velocity_exceeded"
    FRAUD_SUSPECTED = "fraud_suspected"
    PAYER_ACCOUNT_RESTRICTED = "payer_account_restricted"
    INSTRUMENT_DECLINED = "instrument_declined"
    AUTHENTICATION_REQUIRED = "authentication_required"
    AUTHENTICATION_FAILED = "authentication_failed"
    ACTION_EXPIRED = "action_expired"
    ORDER_NOT_FOUND = "order_not_found"
    ORDER_NOT_OWNED = "order_not_owned"
    ORDER_NOT_PAYABLE = "order_not_payable"
    ORDER_AMOUNT_MISMATCH = "order_amount_mismatch"
    ORDER_SERVICE_UNAVAILABLE = "order_service_unavailable"


class CaptureFailureCode(StrEnum):
    """Why a capture failed, beside the codes of its order. A closed set."""

    CAPTURE_DECLINED = "capture_declined"
    NETWORK_ERROR = "network_error"


class MethodType(StrEnum):
    """How a payer pays."""

    CREDIT_CARD = "CREDIT_CARD"
    DEBIT_CARD = "DEBIT_CARD"
    PAYPAL = "PAYPAL"
