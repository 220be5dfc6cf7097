"""What is known of every payment of a load, by its own id: accepted when, ended how. It asks nobody.

A payment is lost if it was accepted and has no end; an order is charged twice if two of its payments are live.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from cli.load_client import Document, unix_s
from shared.lifecycle import PaymentStatus

type End = tuple[PaymentStatus, str]  # the failure code, or nothing


@dataclass(slots=True)
class Known:
    """One payment, as the API showed it last."""

    order_id: str
    status: PaymentStatus
    failure_code: str
    sequence: int
    created_at: float  # unix s, by the service's clock, like processed_at
    processed_at: float | None


@dataclass(slots=True)
class Book:
    """The payments of the orders whose ids begin with `prefix`; others are somebody else's."""

    prefix: str
    known: dict[str, Known] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)  # accepted, and then the API did not know them
    changed: set[str] = field(default_factory=set)  # ended twice, differently
    unanswered: set[str] = field(default_factory=set)  # orders of which nobody knows whether they were accepted
    ends: Counter[End] = field(default_factory=Counter)
    newest_at: float = 0.0  # the latest created_at: as late as the service's clock is known to be
    _first_of: dict[str, str] = field(default_factory=dict)
    _several: dict[str, set[str]] = field(default_factory=dict)

    def see(self, document: Document) -> None:
        """Note a payment as the API shows it: in its 202 or later."""
        payment_id, order_id = document["id"], document["order_id"]
        if not order_id.startswith(self.prefix):
            return
        status = PaymentStatus(document["status"])
        before = self.known.get(payment_id)
        if before is None:
            self._note_order(order_id, payment_id)
        elif before.status.is_terminal:
            if status.is_terminal and status != before.status:
                self.changed.add(payment_id)
            return  # an ended payment does not move: what shows it open is an older answer
        known = Known(
            order_id,
            status,
            document["failure_code"] or "",
            document["sequence"],
            unix_s(document["created_at"]),
            unix_s(document["processed_at"]) if document["processed_at"] else None,
        )
        self.known[payment_id] = known
        self.newest_at = max(self.newest_at, known.created_at)
        if status.is_terminal:
            self.open.discard(payment_id)
            self.missing.discard(payment_id)
            self.ends[status, known.failure_code] += 1
        else:
            self.open.add(payment_id)

    def miss(self, payment_id: str) -> None:
        """The API does not know a payment that it accepted."""
        self.open.discard(payment_id)
        self.missing.add(payment_id)

    @property
    def settled(self) -> int:
        """Payments that have ended."""
        return self.ends.total()

    @property
    def oldest_open_at(self) -> float | None:
        """The created_at of the first payment that has not ended."""
        return min((self.known[payment_id].created_at for payment_id in self.open), default=None)

    @property
    def paid_twice(self) -> dict[str, set[str]]:
        """Orders with more than one payment that is live, and those payments."""
        live = {
            order_id: {payment_id for payment_id in payments if self.known[payment_id].status.is_live}
            for order_id, payments in self._several.items()
        }
        return {order_id: payments for order_id, payments in live.items() if len(payments) > 1}

    @property
    def ended_at(self) -> list[float]:
        """When payments ended, unix s, in order."""
        return sorted(known.processed_at for known in self.known.values() if known.processed_at is not None)

    def settle_times_ms(self) -> list[float]:
        """How long payments took from acceptance to their end, by the service's own clock."""
        return [
            (known.processed_at - known.created_at) * 1000
            for known in self.known.values()
            if known.processed_at is not None
        ]

    def created_between(self) -> tuple[float, float] | None:
        """When the first and the last payment were accepted, unix s."""
        moments = [known.created_at for known in self.known.values()]
        return (min(moments), max(moments)) if moments else None

    def found_after_all(self) -> int:
        """Orders whose requests nobody answered, and whose payments are there."""
        return len(self.unanswered & self._first_of.keys())

    def _note_order(self, order_id: str, payment_id: str) -> None:
        first = self._first_of.setdefault(order_id, payment_id)
        if first != payment_id:
            self._several.setdefault(order_id, {first}).add(payment_id)


def settled_per_s(ended_at: Iterable[float], begin: float, end: float) -> float:
    """How many payments ended per second between two moments."""
    return sum(1 for moment in ended_at if begin <= moment < end) / (end - begin) if end > begin else 0.0
