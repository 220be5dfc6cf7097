"""The simulated gateway: takes as long as a real one, decides like one and keeps a ledger, but moves no money.

The ledger wins over what is decided: what an earlier call recorded is returned again, also after rules and settings
have changed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from shared.failure_reasons import FAILURE_REASONS
from shared.gateway_calls import SeedKeys, UnseededKeys
from shared.lifecycle import CaptureFailureCode, FailureCode, OutcomeRule, PaymentOperation
from shared.payments.outcomes import ActionRequired, Approved, Declined, GatewayAnswer, Pending, Voided
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundFailureCode
from shared.refunds.refund import Refund
from shared.simulation.calls import Call
from shared.simulation.decisions import Decision, OutcomeSettings, decide
from shared.simulation.delays import Delays
from shared.simulation.gateways import gateway_of
from shared.simulation.ledger_entries import EntryKind
from worker.gateway.answers import first_answer, first_entry
from worker.gateway.deciding import Decider, NoRules, Rules
from worker.gateway.late_answers import LateAnswers, NotifyLater, not_notified
from worker.gateway.later_operations import LaterOperations
from worker.gateway.ledger import Entry, Ledger
from worker.gateway.ledger_errors import ledger_errors_as_unknown
from worker.gateway.protocol import ChargeAnswer, GatewayTimedOut, GatewayUnavailable
from worker.gateway.steps import Steps

# Milliseconds that a steered delay takes at most, whatever the lease.
DELAY_MAX_MS = 60_000


class SimulatedGateway:
    """A `Gateway` with its own ledger. Each operation takes a random time between the two delays (milliseconds).

    `seed_keys` finds the key for which a payment's random numbers are drawn; without it, that is the payment's id.
    `rules` are those of admins. A call that a rule makes slow takes at most `slow_max_ms`. `notify_later` is called for
    each answer that comes late.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        seed: str | None = None,
        seed_keys: SeedKeys | None = None,
        rules: Rules | None = None,
        success_rate: float,
        failure_scenarios: bool = False,
        delay_min_ms: int,
        delay_max_ms: int,
        slow_max_ms: int = DELAY_MAX_MS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        notify_later: NotifyLater = not_notified,
    ) -> None:
        self._ledger = ledger
        self._seed = seed or ""
        settings = OutcomeSettings(self._seed, success_rate=success_rate, uses_test_amounts=failure_scenarios)
        self._decider = Decider(settings, seed_keys or UnseededKeys(), rules or NoRules())
        self._delays = Delays(self._seed, min_ms=delay_min_ms, max_ms=delay_max_ms, slow_max_ms=slow_max_ms)
        self._sleep = sleep
        self._steps = Steps(ledger, LateAnswers(ledger, self._seed, notify_later))
        self._later = LaterOperations(ledger, self._decider, self._delays, self._steps, sleep=sleep)

    async def charge(self, payment: Payment) -> ChargeAnswer:
        """See `Gateway.charge`. If the process is killed, the ledger has what had happened until then."""
        return await self._begin(payment, is_held=False)

    async def authorize(self, payment: Payment) -> ChargeAnswer:
        """See `Gateway.authorize`."""
        return await self._begin(payment, is_held=True)

    async def void_or_fetch(
        self, payment: Payment, failure_code: FailureCode = FailureCode.PROCESSING_ERROR
    ) -> GatewayAnswer:
        """See `Gateway.void_or_fetch`. Answers without delay; of an unfinished charge, held funds are released."""
        decline = self._decline_entry(await self._decider.call(payment), failure_code)
        entry = await self._record_entry(decline)
        if entry.kind is EntryKind.AUTHORIZE and payment.due_for is PaymentOperation.CHARGE:
            entry = await self._record_entry(replace(decline, kind=EntryKind.VOID))
        return entry.answer

    async def capture(self, payment: Payment) -> GatewayAnswer | Pending:
        """See `Gateway.capture`."""
        return await self._later.capture(payment)

    async def close_capture_or_fetch(
        self, payment: Payment, failure_code: CaptureFailureCode | FailureCode
    ) -> GatewayAnswer:
        """See `Gateway.close_capture_or_fetch`."""
        return await self._later.close_capture_or_fetch(payment, failure_code)

    async def void(self, payment: Payment) -> Voided | Approved:
        """See `Gateway.void`."""
        return await self._later.void(payment)

    async def refund(self, payment: Payment, refund: Refund) -> GatewayAnswer | Pending:
        """See `Gateway.refund`."""
        return await self._later.refund(payment, refund)

    async def close_refund_or_fetch(
        self, payment: Payment, refund: Refund, failure_code: RefundFailureCode
    ) -> GatewayAnswer:
        """See `Gateway.close_refund_or_fetch`."""
        return await self._later.close_refund_or_fetch(payment, refund, failure_code)

    async def _begin(self, payment: Payment, *, is_held: bool) -> ChargeAnswer:
        """Authorize the payment and, unless it `is_held`, capture it at once."""
        call, decision = await self._decider.of_payment(payment)
        to_first_s, to_second_s, to_answer_s = self._delays.of_charge(call, decision)
        await self._sleep(to_first_s)
        found = await self._first_step(call, decision, is_held=is_held)
        await self._sleep(to_second_s)
        if isinstance(found, Entry) and found.kind is EntryKind.AUTHORIZE and not is_held:
            found = await self._record_entry(replace(found, kind=EntryKind.CAPTURE))
        await self._sleep(to_answer_s)
        if decision.loses_answer:
            raise GatewayTimedOut(decision.rule, decision.remark)
        if found is None:
            raise GatewayUnavailable(decision.rule, decision.remark)
        return found.answer if isinstance(found, Entry) else found

    async def _first_step(
        self, call: Call, decision: Decision, *, is_held: bool
    ) -> Entry | ActionRequired | Pending | None:
        """Authorize, charge or decline unless an earlier call did, or ask the customer; None if nothing happens."""
        if decision.requires_action:
            settled = await self._steps.settled(call)
            return settled or ActionRequired(gateway_of(call, self._seed), decision.remark)
        answer = first_answer(call, decision, self._seed)
        return await self._steps.take(call, decision, answer, partial(first_entry, call, is_held=is_held))

    async def _record_entry(self, entry: Entry) -> Entry:
        with ledger_errors_as_unknown():
            return await self._ledger.record_entry(entry)

    def _decline_entry(self, call: Call, failure_code: FailureCode) -> Entry:
        # What decided is said only where it decided for this failure.
        decision = decide(call, self._decider.settings)
        rule = decision.rule if decision.failure is failure_code else OutcomeRule.VOIDED
        declined = Declined(
            gateway=gateway_of(call, self._seed),
            failure_code=failure_code,
            failure_reason=FAILURE_REASONS[failure_code],
            details={},
            outcome_rule=rule,
        )
        return Entry(call.payment_id, EntryKind.DECLINE, call.amount, call.currency, declined)
