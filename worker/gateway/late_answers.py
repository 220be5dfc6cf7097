"""Answers that come late: the gateway says "pending" first, and settles some seconds later.

What is settled then is fixed with the first answer. It is written when the gateway is asked for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from shared.payments.outcomes import Pending
from shared.refunds.refund import Refund
from worker.gateway.ledger import Entry, EntryKind, Ledger
from shared.simulation.seeded_random import fraction

# Seconds until a charge or an authorization is settled, drawn between the two.
CHARGE_SETTLES_MIN_S, CHARGE_SETTLES_MAX_S = 5.0, 15.0
# Seconds until a slow refund is settled.
REFUND_SETTLES_S = 10.0


@dataclass(frozen=True, slots=True)
class LateAnswer:
    """An answer that the gateway has in about `settles_in_s` seconds, to a payment or to a refund of it."""

    gateway: str
    payment_id: UUID
    refund_id: UUID | None
    settles_in_s: float


type NotifyLater = Callable[[LateAnswer], None]
"""Takes note that there will be a late answer, to notify of it."""


def not_notified(_answer: LateAnswer) -> None:
    """Notify nobody."""


class LateAnswers:
    """The answers that come late. Whoever is to be notified of them is told through `notify_later`."""

    def __init__(self, ledger: Ledger, seed: str, notify_later: NotifyLater) -> None:
        self._ledger = ledger
        self._seed = seed
        self._notify_later = notify_later

    async def of_charge(self, entry: Entry, seed_key: str) -> Pending | None:
        """Return that the charge or authorization of `entry` is pending; None if its time is over.

        Raises as `Ledger.record_entry` does.
        """
        drawn = fraction(self._seed, seed_key, "settles")
        wait_s = CHARGE_SETTLES_MIN_S + drawn * (CHARGE_SETTLES_MAX_S - CHARGE_SETTLES_MIN_S)
        return await self._pending(entry, wait_s, refund_id=None)

    async def of_refund(self, entry: Entry, refund: Refund) -> Pending | None:
        """Return that the refund of `entry` is pending; None if its time is over. Raises as `of_charge`."""
        return await self._pending(entry, REFUND_SETTLES_S, refund_id=refund.id)

    async def _pending(self, entry: Entry, wait_s: float, *, refund_id: UUID | None) -> Pending | None:
        settles_in_s = await self._ledger.settles_in_s(replace(entry, kind=EntryKind.PENDING), wait_s)
        if not settles_in_s:
            return None
        gateway = str(entry.answer.gateway)
        self._notify_later(LateAnswer(gateway, entry.payment_id, refund_id, settles_in_s))
        return Pending(gateway, settles_in_s)
