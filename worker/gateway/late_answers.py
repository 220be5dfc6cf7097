"""Answers that come late: the gateway says "pending" first, and settles some seconds later.

What is settled then is fixed with the first answer. It is written when the gateway is asked for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from shared.payments.outcomes import Pending
from shared.simulation.calls import Call
from shared.simulation.decisions import Decision
from shared.simulation.delays import CHARGE_SETTLES_MAX_S, CHARGE_SETTLES_MIN_S, REFUND_SETTLES_S
from shared.simulation.ledger_entries import EntryKind
from shared.simulation.seeded_random import fraction
from worker.gateway.ledger import Entry, Ledger


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

    async def begin(self, entry: Entry, call: Call, decision: Decision) -> Pending | None:
        """Write that the operation of `entry` is pending, unless an earlier call did; None if its time is over.

        Raises as `Ledger.record_entry` does.
        """
        if call.refund_id is not None:
            wait_s = REFUND_SETTLES_S
        else:
            drawn = fraction(self._seed, call.seed_key, "settles")
            wait_s = CHARGE_SETTLES_MIN_S + drawn * (CHARGE_SETTLES_MAX_S - CHARGE_SETTLES_MIN_S)
        written = await self._ledger.begin_pending(replace(entry, kind=EntryKind.PENDING), wait_s)
        return await self.of(written, call, notifies=decision.notifies)

    async def of(self, pending: Entry, call: Call, *, notifies: bool = True) -> Pending | None:
        """Return that an operation is pending by its entry; None if its time is over. Raises DatabaseUnavailable."""
        settles_in_s = await self._ledger.settles_in_s(pending)
        if not settles_in_s:
            return None
        gateway = str(pending.answer.gateway)
        if notifies:
            self._notify_later(LateAnswer(gateway, pending.payment_id, call.refund_id, settles_in_s))
        return Pending(gateway, settles_in_s, pending.answer.remark)
