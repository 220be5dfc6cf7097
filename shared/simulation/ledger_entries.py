"""What an entry of the gateway's ledger says. The gateway alone writes them."""

from enum import StrEnum


class EntryKind(StrEnum):
    """What happened to the money, by the word of an entry."""

    PENDING = "pending"
    """The operation was accepted, and is settled later: no money has moved yet."""
    AUTHORIZE = "authorize"
    """Funds are held, and no money has moved yet."""
    SALE = "sale"
    """The money moved at once."""
    DECLINE = "decline"
    """The charge was declined: no money moves."""
    CAPTURE = "capture"
    """Held funds have moved."""
    VOID = "void"
    """Held funds were released: no money moves."""
    CAPTURE_DECLINE = "capture_decline"
    """A capture was refused: the funds are still held."""
    REFUND = "refund"
    """Money was paid back."""
    REFUND_DECLINE = "refund_decline"
    """A refund was refused: no money moves."""


MOVES_MONEY = (EntryKind.SALE, EntryKind.CAPTURE)
CAPTURE_OR_VOID = (EntryKind.CAPTURE, EntryKind.VOID)
# The step of what is settled late, before that.
PENDING_STEP = 0
