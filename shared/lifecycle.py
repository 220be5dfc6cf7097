"""The life of a payment: its statuses, the moves between them and why a move happens. It never touches a database.

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
with `order` exist with an order service only; they too fail a payment only after the gateway has closed it.
"""

from enum import StrEnum


class PaymentStatus(StrEnum):
    """Where a payment stands; the words clients see."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Nothing moves this payment any more."""
        return not TRANSITIONS[self]

    @property
    def is_live(self) -> bool:
        """Stands in the way of another payment for the same order: money has moved or still may."""
        return self not in NOT_LIVE


class HistoryReason(StrEnum):
    """Why a payment moved; the closed set of `reason` in its history."""

    ACCEPTED = "accepted"
    CLAIMED = "claimed"
    LEASE_EXPIRED = "lease_expired"
    RETRIED = "retried"
    RELEASED = "released"
    GATEWAY_APPROVED = "gateway_approved"
    GATEWAY_DECLINED = "gateway_declined"
    GATEWAY_UNREACHABLE = "gateway_unreachable"
    CLAIMS_EXHAUSTED = "claims_exhausted"
    ORDER_UNREACHABLE = "order_unreachable"
    ORDER_REFUSED = "order_refused"
    ORDER_CHECK_TIMED_OUT = "order_check_timed_out"
    CANCELLED = "cancelled"


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


class FailureCode(StrEnum):
    """Why a payment failed: the gateway's words, and what its order says against it; a closed set."""

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
    """Where a delivery stands: `pending` and `sending` are open, the others have ended."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"


OPEN_DELIVERY = (DeliveryStatus.PENDING, DeliveryStatus.SENDING)


class DeliveryKind(StrEnum):
    """To whom a delivery goes."""

    ENDPOINT = "endpoint"
    CALLBACK = "callback"
    ORDER = "order"  # the order service, which is told in its own way


class EventType(StrEnum):
    """What is worth telling."""

    INITIATED = "payment.initiated"
    COMPLETED = "payment.completed"
    FAILED = "payment.failed"
    CANCELLED = "payment.cancelled"
    ORDER_CONFLICT = "payment.order_conflict"  # charged, but its order was cancelled meanwhile: somebody must decide


EVENT_OF_STATUS: dict[PaymentStatus, EventType | None] = {
    PaymentStatus.PENDING: EventType.INITIATED,
    PaymentStatus.PROCESSING: None,
    PaymentStatus.COMPLETED: EventType.COMPLETED,
    PaymentStatus.FAILED: EventType.FAILED,
    PaymentStatus.CANCELLED: EventType.CANCELLED,
}

TERMINAL_EVENTS = tuple(event for status, event in EVENT_OF_STATUS.items() if event is not None and status.is_terminal)
