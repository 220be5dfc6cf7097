"""The invariants that `payments verify` checks, the kinds of breaches, and what to do about each. No database here."""

from dataclasses import dataclass
from enum import StrEnum


class Invariant(StrEnum):
    """The names of the promises that must hold at every moment. Reports use these names."""

    HISTORY = "history"
    LEDGER = "ledger"
    LIVE_PAYMENT = "live_payment"
    IDEMPOTENCY_KEY = "idempotency_key"
    EVENT = "event"
    DELIVERY = "delivery"
    ORDER_UPDATE = "order_update"
    DUE = "due"


PROMISES: dict[Invariant, str] = {
    Invariant.HISTORY: (
        "The history of a payment has no gaps, starts at PENDING, makes only allowed moves and ends in the payment's "
        "status."
    ),
    Invariant.LEDGER: (
        "A payment is COMPLETED if and only if it was charged once, as agreed. A FAILED or CANCELLED payment holds no "
        "money."
    ),
    Invariant.LIVE_PAYMENT: "A user has at most one live payment for an order.",
    Invariant.IDEMPOTENCY_KEY: "An idempotency key names an object that exists.",
    Invariant.EVENT: "Every move that calls for an event has exactly one, and there is no other event.",
    Invariant.DELIVERY: "An event has one delivery to each endpoint that it matched, and one to its callback URL.",
    Invariant.ORDER_UPDATE: "The order update of a completed payment is delivered, pending, or failed with a reason.",
    Invariant.DUE: (
        "Every open payment and delivery has a due time. None has been due, or has waited for its first claim, for "
        "longer than --due-max, and none that is claimed is due later than a lease lasts."
    ),
}


class BreachKind(StrEnum):
    """How an invariant was broken; a closed set."""

    HISTORY_GAP = "history_gap"
    HISTORY_START = "history_start"
    HISTORY_MOVE = "history_move"
    HISTORY_END = "history_end"
    CHARGED_TWICE = "charged_twice"
    COMPLETED_UNCHARGED = "completed_uncharged"
    CHARGE_MISMATCH = "charge_mismatch"
    ENDED_CHARGED = "ended_charged"
    ENDED_HELD = "ended_held"
    FAILED_NOT_VOIDED = "failed_not_voided"
    ORPHAN_CHARGE = "orphan_charge"
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
    DELIVERY_NEVER_DUE = "delivery_never_due"
    PAYMENT_OVERDUE = "payment_overdue"
    DELIVERY_OVERDUE = "delivery_overdue"
    PAYMENT_LEASED_TOO_LONG = "payment_leased_too_long"
    DELIVERY_LEASED_TOO_LONG = "delivery_leased_too_long"
    PAYMENT_UNCLAIMED = "payment_unclaimed"
    DELIVERY_UNCLAIMED = "delivery_unclaimed"


@dataclass(frozen=True, slots=True)
class BreachInfo:
    """A kind of breach, described for the operator: a sentence about one case, and what to do."""

    invariant: Invariant
    words: str
    what_to_do: str


_CHANGED_BY_HAND = (
    "No code of this version writes this. Look for a change by hand or a restored backup, and repair the row from the "
    "other tables."
)
_REFUND = "Refund the charge at the gateway by the transaction id in the ledger. Then find out which release wrote it."
_CLOCK_SET_BACK = (
    "The clock of the database was set back after the claim. If no worker works on the row, set its due_at to now."
)
_SET_DUE = "Set the due_at of the row to now. The relay then publishes it within seconds."
_CHECK_WORKERS = (
    "Check that a worker runs and reaches the database and Redis: GET /api/v1/stats lists the workers. If workers run "
    "and the age still grows, start more of them."
)
_CHECK_QUEUES = (
    "Check that workers run and take jobs: GET /health/ready on METRICS_PORT of each worker says whether it reaches "
    "the database and Redis and polls its queues. If they are ready and the age still grows, start more of them."
)
_INFORM_RECEIVER = (
    "Inform the receiver by hand, because there is no delivery to resend. Then look in the log for the transaction of "
    "the event."
)

KINDS: dict[BreachKind, BreachInfo] = {
    BreachKind.HISTORY_GAP: BreachInfo(
        Invariant.HISTORY,
        "The history is not numbered from 1 to the payment's sequence without gaps.",
        _CHANGED_BY_HAND,
    ),
    BreachKind.HISTORY_START: BreachInfo(Invariant.HISTORY, "The history does not start at PENDING.", _CHANGED_BY_HAND),
    BreachKind.HISTORY_MOVE: BreachInfo(
        Invariant.HISTORY, "The history has a move that is not allowed.", _CHANGED_BY_HAND
    ),
    BreachKind.HISTORY_END: BreachInfo(
        Invariant.HISTORY, "The history ends in another status than the payment has.", _CHANGED_BY_HAND
    ),
    BreachKind.CHARGED_TWICE: BreachInfo(Invariant.LEDGER, "The payment was charged more than once.", _REFUND),
    BreachKind.COMPLETED_UNCHARGED: BreachInfo(
        Invariant.LEDGER,
        "The payment is COMPLETED, and the ledger has no charge for it.",
        "The ledger decides whether money moved. Ask the payer to pay again before the order is delivered.",
    ),
    BreachKind.CHARGE_MISMATCH: BreachInfo(
        Invariant.LEDGER,
        "The payment is COMPLETED, and its charge has another amount, currency or transaction id.",
        "Compare the ledger's entry with the payment. Refund the difference, or charge it with a new payment.",
    ),
    BreachKind.ENDED_CHARGED: BreachInfo(
        Invariant.LEDGER, "The payment is FAILED or CANCELLED, and it was charged.", _REFUND
    ),
    BreachKind.ENDED_HELD: BreachInfo(
        Invariant.LEDGER,
        "The payment is FAILED or CANCELLED, and it is still authorized.",
        "Void the authorization at the gateway.",
    ),
    BreachKind.FAILED_NOT_VOIDED: BreachInfo(
        Invariant.LEDGER,
        "The payment is FAILED, and the ledger has no entry for it, so a late charge would still be taken.",
        "Decline the payment at the gateway under its key, so that it cannot be charged any more.",
    ),
    BreachKind.ORPHAN_CHARGE: BreachInfo(
        Invariant.LEDGER,
        "The ledger has a charge for a payment that does not exist.",
        "A payment was lost. Restore it from a backup, or refund the charge.",
    ),
    BreachKind.LIVE_TWICE: BreachInfo(
        Invariant.LIVE_PAYMENT,
        "Another payment of the same user and order is live, too.",
        "The index uq_payments_live is missing, or was created anew. Refund one of the two payments, then create "
        "the index again.",
    ),
    BreachKind.DANGLING_IDEMPOTENCY_KEY: BreachInfo(
        Invariant.IDEMPOTENCY_KEY,
        "The idempotency key names an object that does not exist.",
        "The object was removed by hand. Delete the key, so that its client can repeat the request.",
    ),
    BreachKind.EVENT_MISSING: BreachInfo(Invariant.EVENT, "A move of the payment has no event.", _INFORM_RECEIVER),
    BreachKind.EVENT_REPEATED: BreachInfo(
        Invariant.EVENT,
        "A move of the payment has more than one event.",
        "The unique index of events is missing. Remove the later event and its deliveries, then add the index again.",
    ),
    BreachKind.UNEXPECTED_EVENT: BreachInfo(
        Invariant.EVENT, "The payment has an event that no move calls for.", _CHANGED_BY_HAND
    ),
    BreachKind.MISSING_ENDPOINT_DELIVERY: BreachInfo(
        Invariant.DELIVERY, "An event has no delivery to an endpoint that it matched.", _INFORM_RECEIVER
    ),
    BreachKind.MISSING_CALLBACK_DELIVERY: BreachInfo(
        Invariant.DELIVERY, "An event has no delivery to the callback URL of its payment.", _INFORM_RECEIVER
    ),
    BreachKind.DELIVERY_REPEATED: BreachInfo(
        Invariant.DELIVERY,
        "An event has more than one delivery to the same receiver.",
        "A unique index of deliveries is missing. Remove the later delivery, then create the index again.",
    ),
    BreachKind.MISSING_ORDER_DELIVERY: BreachInfo(
        Invariant.ORDER_UPDATE,
        "The payment was completed, or refunded with ORDER_ON_REFUND=cancel, and it has no order update for that.",
        "A worker ran without ORDER_SERVICE_URL or ORDER_ON_REFUND. Set them for all workers, and update these orders "
        "by hand.",
    ),
    BreachKind.ORDER_UPDATE_SILENT: BreachInfo(
        Invariant.ORDER_UPDATE,
        "The order update ended without being delivered, and without a reason.",
        "Send the order update again: POST /api/v1/webhook-deliveries/{delivery_id}/resend.",
    ),
    BreachKind.PAYMENT_NEVER_DUE: BreachInfo(
        Invariant.DUE, "The payment is open and has no due time, so no process will look at it.", _SET_DUE
    ),
    BreachKind.DELIVERY_NEVER_DUE: BreachInfo(
        Invariant.DUE, "The delivery is open and has no due time, so no process will look at it.", _SET_DUE
    ),
    BreachKind.PAYMENT_OVERDUE: BreachInfo(Invariant.DUE, "The payment has been due for too long.", _CHECK_WORKERS),
    BreachKind.DELIVERY_OVERDUE: BreachInfo(Invariant.DUE, "The delivery has been due for too long.", _CHECK_WORKERS),
    BreachKind.PAYMENT_LEASED_TOO_LONG: BreachInfo(
        Invariant.DUE, "The payment is due later than any claim of it lasts.", _CLOCK_SET_BACK
    ),
    BreachKind.DELIVERY_LEASED_TOO_LONG: BreachInfo(
        Invariant.DUE, "The delivery is due later than any claim of it lasts.", _CLOCK_SET_BACK
    ),
    BreachKind.PAYMENT_UNCLAIMED: BreachInfo(
        Invariant.DUE, "No worker has claimed the payment since it was accepted.", _CHECK_QUEUES
    ),
    BreachKind.DELIVERY_UNCLAIMED: BreachInfo(
        Invariant.DUE, "No worker has claimed the delivery since its event.", _CHECK_QUEUES
    ),
}
