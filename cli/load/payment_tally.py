"""What is known of every payment of a load: when it was accepted and how it ended. Nothing is requested here.

A payment is lost if it was accepted and never ends. An order is paid twice if two of its payments are live.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from cli.load.client import Document, unix_s
from shared.lifecycle import REFUNDABLE, PaymentStatus

# The status and the failure code, which is empty if the payment did not fail.
type End = tuple[PaymentStatus, str]


@dataclass(slots=True)
class KnownPayment:
    """A payment as the API showed it last."""

    order_id: str
    status: PaymentStatus
    failure_code: str
    sequence: int
    # Unix times in seconds, by the clock of the service.
    created_at: float
    processed_at: float | None


@dataclass(slots=True)
class PaymentTally:
    """The payments of the orders whose ids begin with `prefix`. Other payments do not belong to the load."""

    prefix: str
    known: dict[str, KnownPayment] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    # Ids of payments that the API accepted and later did not know.
    missing: set[str] = field(default_factory=set)
    # Ids of payments that ended twice, differently.
    changed: set[str] = field(default_factory=set)
    # Ids of orders whose requests were not answered, so that it is unknown whether they were accepted.
    unanswered: set[str] = field(default_factory=set)
    ends: Counter[End] = field(default_factory=Counter)
    # The latest `created_at`: the service's clock has shown this time at least.
    newest_at: float = 0.0
    _first_of: dict[str, str] = field(default_factory=dict)
    _several: dict[str, set[str]] = field(default_factory=dict)

    def see(self, document: Document) -> None:
        """Note a payment as the API shows it, in its 202 or later."""
        payment_id, order_id = document["id"], document["order_id"]
        if not order_id.startswith(self.prefix):
            return
        status = PaymentStatus(document["status"])
        before = self.known.get(payment_id)
        if before is None:
            self._note_order(order_id, payment_id)
        elif before.status.has_ended:
            if not _is_refund_of(before, status, document["sequence"]):
                if status.has_ended and status != before.status and document["sequence"] >= before.sequence:
                    self.changed.add(payment_id)
                # Only refunds move a payment that has ended. An answer in which it is open is an older one.
                return
            self.ends -= Counter({(before.status, before.failure_code): 1})
        known = KnownPayment(
            order_id,
            status,
            document["failure_code"] or "",
            document["sequence"],
            unix_s(document["created_at"]),
            unix_s(document["processed_at"]) if document["processed_at"] else None,
        )
        self.known[payment_id] = known
        self.newest_at = max(self.newest_at, known.created_at)
        if status.has_ended:
            self.open.discard(payment_id)
            self.missing.discard(payment_id)
            self.ends[status, known.failure_code] += 1
        else:
            self.open.add(payment_id)

    def miss(self, payment_id: str) -> None:
        """Note that the API does not know a payment that it accepted."""
        self.open.discard(payment_id)
        self.missing.add(payment_id)

    @property
    def settled(self) -> int:
        """The number of payments that have ended."""
        return self.ends.total()

    @property
    def oldest_open_at(self) -> float | None:
        """The `created_at` of the oldest payment that has not ended; None if all have."""
        return min((self.known[payment_id].created_at for payment_id in self.open), default=None)

    @property
    def paid_twice(self) -> dict[str, set[str]]:
        """The orders with more than one live payment, and the ids of those payments."""
        live = {
            order_id: {payment_id for payment_id in payments if self.known[payment_id].status.is_live}
            for order_id, payments in self._several.items()
        }
        return {order_id: payments for order_id, payments in live.items() if len(payments) > 1}

    @property
    def ended_at(self) -> list[float]:
        """The Unix times in seconds at which payments ended, in order."""
        return sorted(known.processed_at for known in self.known.values() if known.processed_at is not None)

    def settle_times_ms(self) -> list[float]:
        """Return the milliseconds from the acceptance of each payment to its end, by the clock of the service."""
        return [
            (known.processed_at - known.created_at) * 1000
            for known in self.known.values()
            if known.processed_at is not None
        ]

    def created_between(self) -> tuple[float, float] | None:
        """Return the Unix times in seconds at which the first and the last payment were accepted; None without one."""
        moments = [known.created_at for known in self.known.values()]
        return (min(moments), max(moments)) if moments else None

    def found_after_all(self) -> int:
        """Return the number of orders whose requests were not answered and whose payments exist all the same."""
        return len(self.unanswered & self._first_of.keys())

    def _note_order(self, order_id: str, payment_id: str) -> None:
        first = self._first_of.setdefault(order_id, payment_id)
        if first != payment_id:
            self._several.setdefault(order_id, {first}).add(payment_id)


def _is_refund_of(before: KnownPayment, status: PaymentStatus, sequence: int) -> bool:
    """Return whether refunds lead from the known payment to one with this status and sequence."""
    return (
        before.status in REFUNDABLE and status in {*REFUNDABLE, PaymentStatus.REFUNDED} and sequence > before.sequence
    )


def settled_per_s(ended_at: Iterable[float], begin: float, end: float) -> float:
    """Return how many payments per second ended between two Unix times."""
    return sum(1 for moment in ended_at if begin <= moment < end) / (end - begin) if end > begin else 0.0
