"""The invariants that `payments verify` checks, and the kinds of breaches. No database here."""

from enum import StrEnum


class Invariant(StrEnum):
    """The names of the promises that must hold at every moment. Reports use these names."""

    HISTORY = "history"
    LEDGER = "ledger"
    BALANCE = "balance"
    REFUND = "refund"
    LIVE_PAYMENT = "live_payment"
    IDEMPOTENCY_KEY = "idempotency_key"
    EVENT = "event"
    DELIVERY = "delivery"
    ORDER_UPDATE = "order_update"
    DUE = "due"


PROMISES: dict[Invariant, str] = {
    Invariant.HISTORY: (
        "The history of a payment or refund has no gaps, starts at PENDING, makes only allowed moves and ends in its "
        "status."
    ),
    Invariant.LEDGER: (
        "A payment is COMPLETED or refunded if and only if it was charged once, as agreed, and never above its "
        "authorization. An AUTHORIZED payment is held. A FAILED, CANCELLED or REQUIRES_ACTION payment holds no money, "
        "and none moves after a void. What waits for a late answer is pending at the gateway."
    ),
    Invariant.BALANCE: (
        "A payment that was authorized on its own, or has a refund, has a balance, and no other has. Its amounts agree "
        "with the payment and its refunds."
    ),
    Invariant.REFUND: (
        "A refund is COMPLETED if and only if the gateway paid it, as agreed. A payment is REFUNDED if and only if its "
        "completed refunds add up to what was captured."
    ),
    Invariant.LIVE_PAYMENT: "A user has at most one live payment for an order.",
    Invariant.IDEMPOTENCY_KEY: "An idempotency key names an object that exists.",
    Invariant.EVENT: "Every move that calls for an event has exactly one, and there is no other event.",
    Invariant.DELIVERY: "An event has one delivery to each endpoint that it matched, and one to its callback URL.",
    Invariant.ORDER_UPDATE: "The order update of a completed payment is delivered, pending, or failed with a reason.",
    Invariant.DUE: (
        "Every open payment, refund and delivery has a due time, an AUTHORIZED payment the end of its authorization, a "
        "REQUIRES_ACTION payment that of its customer's time. "
        "None has been due, or has waited for its first claim, for longer than --due-max, and none that is claimed is "
        "due later than a lease lasts."
    ),
}


class BreachKind(StrEnum):
    """How an invariant was broken; a closed set."""

    HISTORY_GAP = "history_gap"
    HISTORY_START = "history_start"
    HISTORY_MOVE = "history_move"
    HISTORY_END = "history_end"
    REFUND_HISTORY_GAP = "refund_history_gap"
    REFUND_HISTORY_START = "refund_history_start"
    REFUND_HISTORY_MOVE = "refund_history_move"
    REFUND_HISTORY_END = "refund_history_end"
    CHARGED_TWICE = "charged_twice"
    MONEY_AFTER_VOID = "money_after_void"
    VOIDED_TWICE = "voided_twice"
    CAPTURED_ABOVE_HOLD = "captured_above_hold"
    COMPLETED_UNCHARGED = "completed_uncharged"
    CHARGE_MISMATCH = "charge_mismatch"
    ENDED_CHARGED = "ended_charged"
    ENDED_HELD = "ended_held"
    FAILED_NOT_VOIDED = "failed_not_voided"
    AUTHORIZED_NOT_HELD = "authorized_not_held"
    HOLD_MISMATCH = "hold_mismatch"
    ACTION_DECIDED = "action_decided"
    PENDING_UNKNOWN = "pending_unknown"
    ORPHAN_CHARGE = "orphan_charge"
    BALANCE_MISSING = "balance_missing"
    UNEXPECTED_BALANCE = "unexpected_balance"
    BALANCE_MISMATCH = "balance_mismatch"
    REFUND_SUM_MISMATCH = "refund_sum_mismatch"
    REFUND_STATUS_MISMATCH = "refund_status_mismatch"
    REFUND_UNPAID = "refund_unpaid"
    REFUND_PAID_ANYWAY = "refund_paid_anyway"
    REFUND_MISMATCH = "refund_mismatch"
    REFUND_NOT_CLOSED = "refund_not_closed"
    ORPHAN_REFUND = "orphan_refund"
    LIVE_TWICE = "live_twice"
    DANGLING_IDEMPOTENCY_KEY = "dangling_idempotency_key"
    EVENT_MISSING = "event_missing"
    EVENT_REPEATED = "event_repeated"
    UNEXPECTED_EVENT = "unexpected_event"
    MISSING_ENDPOINT_DELIVERY = "missing_endpoint_delivery"
    MISSING_CALLBACK_DELIVERY = "missing_callback_delivery"
    DELIVERY_REPEATED = "delivery_repeated"
    MISSING_ORDER_DELIVERY = "missing_order_delivery"
    ORDER_UPDATE_SILENT = "order_update_silent"
    PAYMENT_NEVER_DUE = "payment_never_due"
    REFUND_NEVER_DUE = "refund_never_due"
    DELIVERY_NEVER_DUE = "delivery_never_due"
    EXPIRY_MISMATCH = "expiry_mismatch"
    PAYMENT_OVERDUE = "payment_overdue"
    REFUND_OVERDUE = "refund_overdue"
    DELIVERY_OVERDUE = "delivery_overdue"
    PAYMENT_LEASED_TOO_LONG = "payment_leased_too_long"
    REFUND_LEASED_TOO_LONG = "refund_leased_too_long"
    DELIVERY_LEASED_TOO_LONG = "delivery_leased_too_long"
    PAYMENT_UNCLAIMED = "payment_unclaimed"
    REFUND_UNCLAIMED = "refund_unclaimed"
    DELIVERY_UNCLAIMED = "delivery_unclaimed"
