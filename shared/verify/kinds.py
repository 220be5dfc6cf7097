"""What each kind of breach is, in words for the operator, and what to do about it. No database here."""

from dataclasses import dataclass

from shared.verify.breaches import BreachKind, Invariant


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
_REFUND_AT_GATEWAY = (
    "Refund the charge at the gateway by the transaction id in the ledger. Then find out which release wrote it."
)
_RECOMPUTE_BALANCE = (
    "No code of this version writes this. Compare the row of payment_balances with the payment, its refunds and the "
    "ledger, and correct the row."
)
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
    BreachKind.REFUND_HISTORY_GAP: BreachInfo(
        Invariant.HISTORY,
        "The history of the refund is not numbered from 1 to the refund's sequence without gaps.",
        _CHANGED_BY_HAND,
    ),
    BreachKind.REFUND_HISTORY_START: BreachInfo(
        Invariant.HISTORY, "The history of the refund does not start at PENDING.", _CHANGED_BY_HAND
    ),
    BreachKind.REFUND_HISTORY_MOVE: BreachInfo(
        Invariant.HISTORY, "The history of the refund has a move that is not allowed.", _CHANGED_BY_HAND
    ),
    BreachKind.REFUND_HISTORY_END: BreachInfo(
        Invariant.HISTORY, "The history of the refund ends in another status than the refund has.", _CHANGED_BY_HAND
    ),
    BreachKind.MONEY_AFTER_VOID: BreachInfo(
        Invariant.LEDGER,
        "The authorization was voided, and it was captured or refunded all the same.",
        "Ask the gateway what happened to the transaction id in the ledger. Give back what was captured there, and "
        "claim back what was refunded.",
    ),
    BreachKind.VOIDED_TWICE: BreachInfo(
        Invariant.LEDGER,
        "The authorization was voided more than once.",
        "The index uq_gateway_ledger_capture_or_void is missing. Remove the later entry, then create the index again.",
    ),
    BreachKind.CAPTURED_ABOVE_HOLD: BreachInfo(
        Invariant.LEDGER,
        "More was captured than was authorized.",
        "If the payment is COMPLETED, refund the difference with POST /api/v1/payments/{payment_id}/refunds. Otherwise "
        "refund it at the gateway by the transaction id in the ledger.",
    ),
    BreachKind.CHARGED_TWICE: BreachInfo(
        Invariant.LEDGER, "The payment was charged more than once.", _REFUND_AT_GATEWAY
    ),
    BreachKind.COMPLETED_UNCHARGED: BreachInfo(
        Invariant.LEDGER,
        "The payment is COMPLETED or refunded, and the ledger has no charge for it.",
        "The ledger decides whether money moved. Ask the payer to pay again before the order is delivered.",
    ),
    BreachKind.CHARGE_MISMATCH: BreachInfo(
        Invariant.LEDGER,
        "The payment is COMPLETED or refunded, and its charge has another amount, currency or transaction id.",
        "Compare the ledger's entry with the payment. Refund what is too much with POST /api/v1/payments/{payment_id}/"
        "refunds, or charge what is missing with a new payment.",
    ),
    BreachKind.ENDED_CHARGED: BreachInfo(
        Invariant.LEDGER, "The payment is FAILED or CANCELLED, and it was charged.", _REFUND_AT_GATEWAY
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
    BreachKind.AUTHORIZED_NOT_HELD: BreachInfo(
        Invariant.LEDGER,
        "The payment is AUTHORIZED, and the gateway does not hold its funds: they were never held, or were captured or "
        "released.",
        "Cancel the payment with POST /api/v1/payments/{payment_id}/cancel. It ends as the ledger says.",
    ),
    BreachKind.HOLD_MISMATCH: BreachInfo(
        Invariant.LEDGER,
        "The payment is AUTHORIZED, and the gateway holds another amount or currency.",
        "Cancel the payment with POST /api/v1/payments/{payment_id}/cancel, and authorize a new one.",
    ),
    BreachKind.ACTION_DECIDED: BreachInfo(
        Invariant.LEDGER,
        "The payment waits for its customer, and the gateway has charged or authorized it already.",
        "Cancel the payment with POST /api/v1/payments/{payment_id}/cancel. Then void or refund it at the gateway.",
    ),
    BreachKind.PENDING_UNKNOWN: BreachInfo(
        Invariant.LEDGER,
        "The payment waits for a late answer, and the gateway knows nothing of it.",
        "Set the due_at of the row to now. A worker then asks the gateway.",
    ),
    BreachKind.ORPHAN_CHARGE: BreachInfo(
        Invariant.LEDGER,
        "The ledger has a charge for a payment that does not exist.",
        "A payment was lost. Restore it from a backup, or refund the charge.",
    ),
    BreachKind.BALANCE_MISSING: BreachInfo(
        Invariant.BALANCE,
        "The payment was authorized on its own or has a refund, and it has no balance.",
        _RECOMPUTE_BALANCE,
    ),
    BreachKind.UNEXPECTED_BALANCE: BreachInfo(
        Invariant.BALANCE,
        "The payment has a balance, and it was neither authorized on its own nor refunded.",
        _RECOMPUTE_BALANCE,
    ),
    BreachKind.BALANCE_MISMATCH: BreachInfo(
        Invariant.BALANCE,
        "The balance has another authorized or captured amount than the payment.",
        _RECOMPUTE_BALANCE,
    ),
    BreachKind.REFUND_SUM_MISMATCH: BreachInfo(
        Invariant.BALANCE,
        "The balance has another refunded or reserved amount than the refunds add up to.",
        _RECOMPUTE_BALANCE,
    ),
    BreachKind.REFUND_STATUS_MISMATCH: BreachInfo(
        Invariant.REFUND,
        "The status of the payment does not fit what was refunded: REFUNDED is all, PARTIALLY_REFUNDED is a part.",
        _CHANGED_BY_HAND,
    ),
    BreachKind.REFUND_UNPAID: BreachInfo(
        Invariant.REFUND,
        "The refund is COMPLETED, and the ledger has no refund for it.",
        "The ledger decides whether money moved. Pay the amount back at the gateway by the transaction id of the "
        "payment. The service counts it as refunded already.",
    ),
    BreachKind.REFUND_PAID_ANYWAY: BreachInfo(
        Invariant.REFUND,
        "The refund is PENDING, FAILED or CANCELLED, and the gateway paid it.",
        "A PENDING refund becomes COMPLETED by itself. For the others do not refund the amount again, although the "
        "service would accept it. Then find out which release wrote it.",
    ),
    BreachKind.REFUND_MISMATCH: BreachInfo(
        Invariant.REFUND,
        "The gateway paid the refund with another amount, currency or transaction id.",
        "Compare the ledger's entry with the refund. Refund what is missing with POST /api/v1/payments/{payment_id}/"
        "refunds, or claim back what is too much.",
    ),
    BreachKind.REFUND_NOT_CLOSED: BreachInfo(
        Invariant.REFUND,
        "The refund is FAILED, and the ledger has no entry for it, so a late refund would still be paid.",
        "Refuse the refund at the gateway under its number, so that it cannot be paid any more.",
    ),
    BreachKind.ORPHAN_REFUND: BreachInfo(
        Invariant.REFUND,
        "The ledger has a refund that does not exist in the table of refunds.",
        "A refund was lost. Restore it from a backup. Until then do not refund its amount again.",
    ),
    BreachKind.LIVE_TWICE: BreachInfo(
        Invariant.LIVE_PAYMENT,
        "Another payment of the same user and order is live, too.",
        "The index uq_payments_live is missing, or was created anew. Refund one of the two payments with POST /api/v1/"
        "payments/{payment_id}/refunds, or cancel it, then create the index again.",
    ),
    BreachKind.DANGLING_IDEMPOTENCY_KEY: BreachInfo(
        Invariant.IDEMPOTENCY_KEY,
        "The idempotency key names an object that does not exist.",
        "The object was removed by hand. Delete the key, so that its client can repeat the request.",
    ),
    BreachKind.EVENT_MISSING: BreachInfo(Invariant.EVENT, "A move of the payment has no event.", _INFORM_RECEIVER),
    BreachKind.EVENT_REPEATED: BreachInfo(
        Invariant.EVENT,
        "A move of the payment has more than one event, or its cancelled order was reported twice.",
        "Remove the later event and its deliveries. If both have the same sequence, the unique index of events is "
        "missing: add it again.",
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
    BreachKind.REFUND_NEVER_DUE: BreachInfo(
        Invariant.DUE, "The refund is open and has no due time, so no process will look at it.", _SET_DUE
    ),
    BreachKind.DELIVERY_NEVER_DUE: BreachInfo(
        Invariant.DUE, "The delivery is open and has no due time, so no process will look at it.", _SET_DUE
    ),
    BreachKind.EXPIRY_MISMATCH: BreachInfo(
        Invariant.DUE,
        "The payment is AUTHORIZED or REQUIRES_ACTION, and it is not due at the end of that.",
        "Set the due_at of the row to its capture_before, or to its action_expires_at.",
    ),
    BreachKind.PAYMENT_OVERDUE: BreachInfo(Invariant.DUE, "The payment has been due for too long.", _CHECK_WORKERS),
    BreachKind.REFUND_OVERDUE: BreachInfo(Invariant.DUE, "The refund has been due for too long.", _CHECK_WORKERS),
    BreachKind.DELIVERY_OVERDUE: BreachInfo(Invariant.DUE, "The delivery has been due for too long.", _CHECK_WORKERS),
    BreachKind.PAYMENT_LEASED_TOO_LONG: BreachInfo(
        Invariant.DUE, "The payment is due later than any claim of it lasts.", _CLOCK_SET_BACK
    ),
    BreachKind.REFUND_LEASED_TOO_LONG: BreachInfo(
        Invariant.DUE, "The refund is due later than any claim of it lasts.", _CLOCK_SET_BACK
    ),
    BreachKind.DELIVERY_LEASED_TOO_LONG: BreachInfo(
        Invariant.DUE, "The delivery is due later than any claim of it lasts.", _CLOCK_SET_BACK
    ),
    BreachKind.PAYMENT_UNCLAIMED: BreachInfo(
        Invariant.DUE,
        "No worker has claimed the payment since it was accepted, since something was requested of it, since its "
        "authorization or its customer's time was over, or since the gateway's late answer was to come.",
        _CHECK_QUEUES,
    ),
    BreachKind.REFUND_UNCLAIMED: BreachInfo(
        Invariant.DUE, "No worker has claimed the refund since it was accepted.", _CHECK_QUEUES
    ),
    BreachKind.DELIVERY_UNCLAIMED: BreachInfo(
        Invariant.DUE, "No worker has claimed the delivery since its event.", _CHECK_QUEUES
    ),
}
