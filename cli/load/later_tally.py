"""What is known of the payments that a load captures or refunds. Nothing is requested here."""

from collections import Counter
from dataclasses import dataclass, field

from cli.load.client import Document
from shared.refund_lifecycle import RefundStatus


@dataclass(slots=True)
class KnownRefund:
    """A refund that the API accepted, as it showed it last."""

    amount: int
    status: RefundStatus


@dataclass(slots=True)
class LaterPayment:
    """A payment that is captured or refunded, with what the API accepted for it."""

    payment_id: str
    # The amount of the capture that was accepted; None without one.
    capture: int | None = None
    # By their ids.
    refunds: dict[str, KnownRefund] = field(default_factory=dict)
    # The payment as the API showed it last; empty if it was not shown since its 202.
    shown: Document = field(default_factory=dict)
    # Nothing more is going to be requested for it.
    is_finished: bool = False

    def see_refund(self, refund: Document) -> None:
        """Note a refund as the API shows it."""
        self.refunds[refund["id"]] = KnownRefund(refund["amount"], RefundStatus(refund["status"]))

    def amount_of(self, *statuses: RefundStatus) -> int:
        """Return the sum of the refunds in one of these statuses."""
        return sum(refund.amount for refund in self.refunds.values() if refund.status in statuses)


@dataclass(slots=True)
class LaterTally:
    """The payments of a run that are captured or refunded."""

    payments: list[LaterPayment] = field(default_factory=list)
    # Captures and refunds that were refused, by what was asked for and the answer.
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def captures(self) -> int:
        """The number of captures that were accepted."""
        return sum(payment.capture is not None for payment in self.payments)

    @property
    def refund_ends(self) -> Counter[RefundStatus]:
        """The refunds that were accepted, by their last status."""
        return Counter(refund.status for payment in self.payments for refund in payment.refunds.values())

    @property
    def refunds_ended(self) -> int:
        """The number of refunds that have ended."""
        return sum(count for status, count in self.refund_ends.items() if status.has_ended)
