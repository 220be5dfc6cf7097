"""What `payments verify` holds true, how it can be broken, and what to do then. It never touches a database."""

from dataclasses import dataclass
from enum import StrEnum


class Invariant(StrEnum):
    """What must hold at every moment; the names that a report uses."""

    HISTORY = "history"
    LEDGER = "ledger"
    LIVE_PAYMENT = "live_payment"
    IDEMPOTENCY_KEY = "idempotency_key"
    EVENT = "event"
    DELIVERY = "delivery"
    ORDER_UPDATE = "order_update"
    DUE = "due"


PROMISES: dict[Invariant, str] = {
    Invariant.HISTORY: "a payment's history is gap-free, starts at PENDING, makes allowed moves and ends in its status",
    Invariant.LEDGER: "COMPLETED if and only if charged once, as agreed; what failed or was cancelled holds no money",
    Invariant.LIVE_PAYMENT: "a user has at most one live payment for an order",
    Invariant.IDEMPOTENCY_KEY: "an idempotency key names an object that exists",
    Invariant.EVENT: "what a history entry calls for was told once, and nothing else",
    Invariant.DELIVERY: "every endpoint that an event matched, and its callback URL, has one delivery",
    Invariant.ORDER_UPDATE: "a completed payment's order update is delivered, pending, or failed with a reason",
    Invariant.DUE: "what is open is due at some time, and nothing is due for longer than the relay needs",
}


class BreachKind(StrEnum):
    """How an invariant was broken; a closed set."""

    HISTORY_GAP = "history_gap"
    HISTORY_START = "history_start"
    HISTORY_MOVE = "history_move"
    HISTORY_END = "history_end"
    CHARGED_TWICE = "charged_twice"
    COMPLETED_UNCHARGED = "completed_uncharged"
    CHARGED_OTHERWISE = "charged_otherwise"
    ENDED_CHARGED = "ended_charged"
    ENDED_HELD = "ended_held"
    FAILED_UNCLOSED = "failed_unclosed"
    CHARGE_OF_NOBODY = "charge_of_nobody"
    LIVE_TWICE = "live_twice"
    KEY_OF_NOTHING = "key_of_nothing"
    EVENT_MISSING = "event_missing"
    EVENT_REPEATED = "event_repeated"
    EVENT_UNCALLED = "event_uncalled"
    ENDPOINT_UNTOLD = "endpoint_untold"
    CALLBACK_UNTOLD = "callback_untold"
    DELIVERY_REPEATED = "delivery_repeated"
    ORDER_UNTOLD = "order_untold"
    ORDER_UPDATE_SILENT = "order_update_silent"
    PAYMENT_NEVER_DUE = "payment_never_due"
    DELIVERY_NEVER_DUE = "delivery_never_due"
    PAYMENT_OVERDUE = "payment_overdue"
    DELIVERY_OVERDUE = "delivery_overdue"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of breach, in words for the operator."""

    invariant: Invariant
    words: str
    what_to_do: str


_BY_HAND = (
    "No code of ours writes this: look for a hand-made change or a restored backup, and repair the row from the others."
)
_REFUND = "Refund it at the gateway by the transaction id in the ledger, then find out which release wrote it."
_RESTART = "Set its due_at to now: the relay brings it within seconds."
_WORKERS = (
    "See that a worker runs and reaches the database and Redis (GET /api/v1/stats lists the workers); "
    "if they run and the age grows, start more."
)
_TELL = "Tell the receiver by hand: no delivery can be resent. Then look in the log for the event's transaction."

KINDS: dict[BreachKind, Kind] = {
    BreachKind.HISTORY_GAP: Kind(
        Invariant.HISTORY, "whose history is not numbered 1 to the payment's sequence", _BY_HAND
    ),
    BreachKind.HISTORY_START: Kind(Invariant.HISTORY, "whose history does not start at PENDING", _BY_HAND),
    BreachKind.HISTORY_MOVE: Kind(Invariant.HISTORY, "whose history makes a move that is not allowed", _BY_HAND),
    BreachKind.HISTORY_END: Kind(Invariant.HISTORY, "whose history ends in another status than theirs", _BY_HAND),
    BreachKind.CHARGED_TWICE: Kind(Invariant.LEDGER, "charged more than once", _REFUND),
    BreachKind.COMPLETED_UNCHARGED: Kind(
        Invariant.LEDGER,
        "COMPLETED without a charge in the ledger",
        "Ask the payer again before the order is delivered; the ledger decides whether money moved.",
    ),
    BreachKind.CHARGED_OTHERWISE: Kind(
        Invariant.LEDGER,
        "COMPLETED with a charge of another amount, currency or transaction id",
        "Compare the ledger's entry with the payment and refund the difference, or charge it with a new payment.",
    ),
    BreachKind.ENDED_CHARGED: Kind(Invariant.LEDGER, "FAILED or CANCELLED, and charged", _REFUND),
    BreachKind.ENDED_HELD: Kind(
        Invariant.LEDGER, "FAILED or CANCELLED, and still authorized", "Void the authorization at the gateway."
    ),
    BreachKind.FAILED_UNCLOSED: Kind(
        Invariant.LEDGER,
        "FAILED without an entry in the ledger: a late charge would still be taken",
        "Close it at the gateway (a decline under its key), so that nothing can be charged any more.",
    ),
    BreachKind.CHARGE_OF_NOBODY: Kind(
        Invariant.LEDGER,
        "in the ledger with a charge and not among the payments",
        "A payment was lost: restore it from a backup, or refund the charge.",
    ),
    BreachKind.LIVE_TWICE: Kind(
        Invariant.LIVE_PAYMENT,
        "live beside another payment of the same user and order",
        "The index uq_payments_live_order is gone or was built anew: refund one of the two, then create it again.",
    ),
    BreachKind.KEY_OF_NOTHING: Kind(
        Invariant.IDEMPOTENCY_KEY,
        "idempotency keys that name nothing",
        "What it named was removed by hand. Delete the key: its client may then repeat the request.",
    ),
    BreachKind.EVENT_MISSING: Kind(Invariant.EVENT, "with a move that was not told", _TELL),
    BreachKind.EVENT_REPEATED: Kind(
        Invariant.EVENT,
        "with a move that was told more than once",
        "The unique index of events is gone: remove the later event with its deliveries, then create it again.",
    ),
    BreachKind.EVENT_UNCALLED: Kind(Invariant.EVENT, "with an event that no move calls for", _BY_HAND),
    BreachKind.ENDPOINT_UNTOLD: Kind(Invariant.DELIVERY, "with an event that an endpoint wanted and never gets", _TELL),
    BreachKind.CALLBACK_UNTOLD: Kind(Invariant.DELIVERY, "with an event that its callback URL never gets", _TELL),
    BreachKind.DELIVERY_REPEATED: Kind(
        Invariant.DELIVERY,
        "with more than one delivery of an event to the same receiver",
        "A unique index of deliveries is gone: remove the later one, then create it again.",
    ),
    BreachKind.ORDER_UNTOLD: Kind(
        Invariant.ORDER_UPDATE,
        "COMPLETED, and the order service is never told",
        "A worker ran without ORDER_SERVICE_URL: set it everywhere, and set these orders to paid by hand.",
    ),
    BreachKind.ORDER_UPDATE_SILENT: Kind(
        Invariant.ORDER_UPDATE,
        "with an order update that ended without a reason",
        "Send it again: POST /api/v1/webhook-deliveries/{delivery_id}/resend.",
    ),
    BreachKind.PAYMENT_NEVER_DUE: Kind(Invariant.DUE, "open and due at no time: nobody will look at them", _RESTART),
    BreachKind.DELIVERY_NEVER_DUE: Kind(Invariant.DUE, "deliveries that are open and due at no time", _RESTART),
    BreachKind.PAYMENT_OVERDUE: Kind(Invariant.DUE, "due for too long", _WORKERS),
    BreachKind.DELIVERY_OVERDUE: Kind(Invariant.DUE, "deliveries that are due for too long", _WORKERS),
}
