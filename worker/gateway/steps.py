"""One step of an operation in the ledger: what a call finds or writes there. The ledger wins over the decision."""

from collections.abc import Callable

from shared.payments.outcomes import GatewayAnswer, Pending
from shared.simulation.calls import Call
from shared.simulation.decisions import Decision
from worker.gateway.late_answers import LateAnswers
from worker.gateway.ledger import Entry, Ledger
from worker.gateway.ledger_errors import ledger_errors_as_unknown

type EntryOf = Callable[[GatewayAnswer], Entry]
"""Returns the entry by which the operation ends with an answer."""


class Steps:
    """Takes the steps of calls."""

    def __init__(self, ledger: Ledger, late_answers: LateAnswers) -> None:
        self._ledger = ledger
        self._late_answers = late_answers

    async def take(
        self, call: Call, decision: Decision, answer: GatewayAnswer | None, entry_of: EntryOf
    ) -> Entry | Pending | None:
        """Return the entry of the operation, once it is on record: an earlier call's, or one that ends in `answer`.

        Return Pending while it is settled later, and None if nothing happens: then there need be no `answer`. Raises
        OutcomeUnknown.
        """
        with ledger_errors_as_unknown():
            if call.may_be_repeated or decision.settles_late or answer is None:
                # What an earlier call has decided holds, also if other rules and settings hold by now.
                found = await self._ledger.on_record(call.payment_id, call.operation_number)
                if found.settled is not None:
                    return found.settled
                if found.pending is not None:
                    entry = entry_of(found.pending.answer)
                    return await self._late_answers.of(found.pending, call) or await self._ledger.record_entry(entry)
            if answer is None:
                return None
            entry = entry_of(answer)
            if decision.settles_late and (pending := await self._late_answers.begin(entry, call, decision)):
                return pending
            return await self._ledger.record_entry(entry)

    async def settled(self, call: Call) -> Entry | None:
        """Return the entry of the operation if an earlier call has settled it. Raises OutcomeUnknown."""
        with ledger_errors_as_unknown():
            return (await self._ledger.on_record(call.payment_id, call.operation_number)).settled
