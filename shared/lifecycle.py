"""The life of a payment and of a delivery: statuses, the moves between them and their reasons. No database here.

                 accepted
                    │
                    ▼
    cancelled ┌───────────┐  claimed   ┌────────────┐  gateway_approved   ┌───────────┐
    ┌─────────│  PENDING  │───────────▶│ PROCESSING │────────────────────▶│ COMPLETED │
    ▼         └───────────┘            └────────────┘                     └───────────┘
 ┌───────────┐                          │  ▲      │    gateway_declined   ┌───────────┐
 │ CANCELLED │                          └──┘      └──────────────────────▶│  FAILED   │
 └───────────┘  lease_expired, retried, released   gateway_unreachable    └───────────┘
                order_unreachable                  order_refused, order_check_timed_out

PENDING is left once, by the first claim or by a cancel; later claims are moves from PROCESSING to PROCESSING.
`claims_exhausted` settles a payment by the gateway's own record, to either COMPLETED or FAILED. The reasons that begin
with `order` exist with an order service only; they too fail a payment only after the gateway has voided it.

The paragraph below each word says what it means and which process moves it on.
"""

from enum import StrEnum


class PaymentStatus(StrEnum):
    """The status of a payment; the words that clients see."""

    PENDING = "PENDING"
    """Accepted and committed; no worker has claimed it, and the gateway has never heard of it. The first claim of a
    worker moves it to PROCESSING, a cancel of its owner to CANCELLED."""
    PROCESSING = "PROCESSING"
    """Claimed by a worker, which checks the order and asks the gateway, or due again for another try. The worker that
    holds the lease moves it to COMPLETED or FAILED; if that worker dies, the lease ends and another one claims it."""
    COMPLETED = "COMPLETED"
    """The gateway has charged it. Nothing moves it any more."""
    FAILED = "FAILED"
    """The gateway or the order refused it, and nothing was charged. Nothing moves it any more: another try is a new
    payment."""
    CANCELLED = "CANCELLED"
    """Cancelled before a worker claimed it. Nothing moves it any more."""

    @property
    def is_terminal(self) -> bool:
        """Nothing moves this payment any more."""
        return not TRANSITIONS[self]

    @property
    def is_live(self) -> bool:
        """The payment blocks another payment for the same order: money has moved, or still may."""
        return self not in NOT_LIVE


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
    CANCELLED = "cancelled"
    """Its owner cancelled the payment while it was PENDING. It is CANCELLED."""


TRANSITIONS: dict[PaymentStatus, frozenset[PaymentStatus]] = {
    PaymentStatus.PENDING: frozenset({PaymentStatus.PROCESSING, PaymentStatus.CANCELLED}),
    PaymentStatus.PROCESSING: frozenset({PaymentStatus.PROCESSING, PaymentStatus.COMPLETED, PaymentStatus.FAILED}),
    PaymentStatus.COMPLETED: frozenset(),
    PaymentStatus.FAILED: frozenset(),
    PaymentStatus.CANCELLED: frozenset(),
}

NOT_LIVE = frozenset({PaymentStatus.FAILED, PaymentStatus.CANCELLED})

MAY_BE_CLAIMED = tuple(status for status in PaymentStatus if PaymentStatus.PROCESSING in TRANSITIONS[status])
MAY_BE_SETTLED = tuple(status for status in PaymentStatus if PaymentStatus.COMPLETED in TRANSITIONS[status])
MAY_BE_CANCELLED = tuple(status for status in PaymentStatus if PaymentStatus.CANCELLED in TRANSITIONS[status])


class OutcomeRule(StrEnum):
    """What decided how a payment ended; the closed set of `outcome_rule`. It is set with the end and never changes."""

    CARD = "card"
    """The test number of the card names the outcome, whatever the success rate."""
    ADDRESS = "address"
    """The test address of the PayPal account names the outcome, whatever the success rate."""
    AMOUNT = "amount"
    """The last two digits of the amount name the outcome; only with PAYMENT_FAILURE_SCENARIOS."""
    RATE = "rate"
    """No other rule applied: the success rate and a random number decided."""
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
    ORDER_NOT_FOUND = "order_not_found"
    ORDER_NOT_OWNED = "order_not_owned"
    ORDER_NOT_PAYABLE = "order_not_payable"
    ORDER_AMOUNT_MISMATCH = "order_amount_mismatch"
    ORDER_SERVICE_UNAVAILABLE = "order_service_unavailable"


class MethodType(StrEnum):
    """How a payer pays."""

    CREDIT_CARD = "CREDIT_CARD"
    DEBIT_CARD = "DEBIT_CARD"
    PAYPAL = "PAYPAL"


class DeliveryStatus(StrEnum):
    """The status of a delivery: `pending` and `sending` are open, the others have ended."""

    PENDING = "pending"
    """Waits for its first attempt or the next one, at `due_at`. A worker that claims it moves it to `sending`."""
    SENDING = "sending"
    """Claimed by a worker, which sends it and records the attempt. If that worker dies, the lease ends and another one
    sends it again: the receiver recognises it by its id."""
    DELIVERED = "delivered"
    """The receiver answered 2xx, or the order is confirmed. Only a resend moves it on."""
    EXHAUSTED = "exhausted"
    """No attempt of the schedule succeeded, the receiver answered 410, the order was cancelled, or the secret of the
    endpoint cannot be decrypted. Only a resend moves it on."""
    CANCELLED = "cancelled"
    """Its endpoint was disabled or deleted, or its receiver is gone. An attempt that was running meanwhile makes it
    `delivered` if the receiver accepts it. Otherwise only a resend moves it on, once the endpoint is enabled."""


OPEN_DELIVERY = (DeliveryStatus.PENDING, DeliveryStatus.SENDING)


class DeliveryKind(StrEnum):
    """The kind of receiver that a delivery goes to."""

    ENDPOINT = "endpoint"
    CALLBACK = "callback"
    # The order service, which gets an update of the order instead of a webhook.
    ORDER = "order"


class EventType(StrEnum):
    """The type of an event, as its receivers see it."""

    INITIATED = "payment.initiated"
    COMPLETED = "payment.completed"
    FAILED = "payment.failed"
    CANCELLED = "payment.cancelled"
    # The payment was charged, but its order was cancelled meanwhile: a person must decide what to do.
    ORDER_CONFLICT = "payment.order_conflict"


EVENT_OF_STATUS: dict[PaymentStatus, EventType | None] = {
    PaymentStatus.PENDING: EventType.INITIATED,
    PaymentStatus.PROCESSING: None,
    PaymentStatus.COMPLETED: EventType.COMPLETED,
    PaymentStatus.FAILED: EventType.FAILED,
    PaymentStatus.CANCELLED: EventType.CANCELLED,
}

TERMINAL_EVENTS = tuple(event for status, event in EVENT_OF_STATUS.items() if event is not None and status.is_terminal)
