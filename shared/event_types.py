"""The types of events, and which moves and steps call for which. No database here."""

from enum import StrEnum

from shared.lifecycle import HistoryReason, PaymentStatus


class EventType(StrEnum):
    """The type of an event, as its receivers see it."""

    INITIATED = "payment.initiated"
    REQUIRES_ACTION = "payment.requires_action"
    AUTHORIZED = "payment.authorized"
    CAPTURE_FAILED = "payment.capture_failed"
    COMPLETED = "payment.completed"
    FAILED = "payment.failed"
    CANCELLED = "payment.cancelled"
    PARTIALLY_REFUNDED = "payment.partially_refunded"
    REFUNDED = "payment.refunded"
    # The payment was charged, but its order was cancelled meanwhile: a person must decide what to do.
    ORDER_CONFLICT = "payment.order_conflict"
    REFUND_CREATED = "refund.created"
    REFUND_COMPLETED = "refund.completed"
    REFUND_FAILED = "refund.failed"
    REFUND_CANCELLED = "refund.cancelled"


# The event of a move, by the status after it and its reason. Other moves have none.
EVENT_OF_MOVE: dict[tuple[PaymentStatus, HistoryReason], EventType] = {
    (PaymentStatus.PENDING, HistoryReason.ACCEPTED): EventType.INITIATED,
    (PaymentStatus.REQUIRES_ACTION, HistoryReason.ACTION_REQUIRED): EventType.REQUIRES_ACTION,
    (PaymentStatus.AUTHORIZED, HistoryReason.AUTHORIZED): EventType.AUTHORIZED,
    (PaymentStatus.AUTHORIZED, HistoryReason.CAPTURE_FAILED): EventType.CAPTURE_FAILED,
    (PaymentStatus.COMPLETED, HistoryReason.GATEWAY_APPROVED): EventType.COMPLETED,
    (PaymentStatus.COMPLETED, HistoryReason.CLAIMS_EXHAUSTED): EventType.COMPLETED,
    (PaymentStatus.COMPLETED, HistoryReason.CAPTURED): EventType.COMPLETED,
    (PaymentStatus.FAILED, HistoryReason.GATEWAY_DECLINED): EventType.FAILED,
    (PaymentStatus.FAILED, HistoryReason.GATEWAY_UNREACHABLE): EventType.FAILED,
    (PaymentStatus.FAILED, HistoryReason.CLAIMS_EXHAUSTED): EventType.FAILED,
    (PaymentStatus.FAILED, HistoryReason.ORDER_REFUSED): EventType.FAILED,
    (PaymentStatus.FAILED, HistoryReason.ORDER_CHECK_TIMED_OUT): EventType.FAILED,
    (PaymentStatus.FAILED, HistoryReason.ACTION_DECLINED): EventType.FAILED,
    (PaymentStatus.FAILED, HistoryReason.ACTION_EXPIRED): EventType.FAILED,
    (PaymentStatus.CANCELLED, HistoryReason.CANCELLED): EventType.CANCELLED,
    (PaymentStatus.CANCELLED, HistoryReason.VOIDED): EventType.CANCELLED,
    (PaymentStatus.PARTIALLY_REFUNDED, HistoryReason.REFUND_COMPLETED): EventType.PARTIALLY_REFUNDED,
    (PaymentStatus.REFUNDED, HistoryReason.REFUND_COMPLETED): EventType.REFUNDED,
}
# The event of a refund's step, beside that of the payment's move.
REFUND_EVENT_OF_REASON: dict[HistoryReason, EventType] = {
    HistoryReason.REFUND_REQUESTED: EventType.REFUND_CREATED,
    HistoryReason.REFUND_COMPLETED: EventType.REFUND_COMPLETED,
    HistoryReason.REFUND_FAILED: EventType.REFUND_FAILED,
    HistoryReason.REFUND_CANCELLED: EventType.REFUND_CANCELLED,
}

# What an endpoint gets that names no types.
DEFAULT_EVENTS = (EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED)
# What the `callback_url` of a payment gets.
CALLBACK_EVENTS = tuple(event for event in EventType if event not in {EventType.INITIATED, EventType.ORDER_CONFLICT})
# Events that are written only if an endpoint wants them. The others are a record of what happened in any case.
WRITTEN_IF_WANTED = frozenset({EventType.INITIATED})
