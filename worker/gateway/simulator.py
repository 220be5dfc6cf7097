"""The simulated gateway: takes as long as a real one, decides like one and keeps a ledger, but moves no money.

The ledger wins over the random numbers: what an earlier call recorded is returned again, also after the settings have
changed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from shared.lifecycle import CaptureFailureCode, FailureCode, OutcomeRule, PaymentOperation
from shared.payments.outcomes import ActionRequired, Approved, Declined, GatewayAnswer, Pending, Voided
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundFailureCode
from shared.refunds.refund import Refund
from worker.gateway.answers import first_entry, gateway_of
from worker.gateway.delays import Delays
from worker.gateway.late_answers import LateAnswers, NotifyLater, not_notified
from worker.gateway.later_operations import LaterOperations
from worker.gateway.ledger import Entry, EntryKind, Ledger
from worker.gateway.ledger_errors import ledger_errors_as_unknown
from shared.simulation.decisions import FAILURE_REASONS, OutcomeSettings, SimulatedOutcome, decide_outcome
from worker.gateway.protocol import ChargeAnswer, GatewayUnavailable
from shared.gateway_calls import SeedKeys, SimulatedRequest, UnseededKeys, simulated_request


class SimulatedGateway:
    """A `Gateway` with its own ledger. Each operation takes a random time between the two delays (milliseconds).

    `seed_keys` finds the key for which a payment's random numbers are drawn; without it, that is the payment's id.
    `notify_later` is called for each answer that comes late.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        seed: str | None = None,
        seed_keys: SeedKeys | None = None,
        success_rate: float,
        failure_scenarios: bool = False,
        delay_min_ms: int,
        delay_max_ms: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        notify_later: NotifyLater = not_notified,
    ) -> None:
        self._ledger = ledger
        self._seed_keys = seed_keys or UnseededKeys()
        self._rules = OutcomeSettings(seed=seed or "", success_rate=success_rate, uses_test_amounts=failure_scenarios)
        self._delays = Delays(seed or "", min_ms=delay_min_ms, max_ms=delay_max_ms)
        self._sleep = sleep
        self._late_answers = LateAnswers(ledger, seed or "", notify_later)
        self._later = LaterOperations(
            ledger,
            self._seed_keys,
            self._delays,
            self._late_answers,
            seed=seed or "",
            success_rate=success_rate,
            sleep=sleep,
        )

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
        request = await self._request(payment)
        decline = self._decline_entry(request, failure_code)
        entry = await self._record_entry(decline)
        if entry.kind is EntryKind.AUTHORIZE and payment.due_for is PaymentOperation.CHARGE:
            entry = await self._record_entry(replace(decline, kind=EntryKind.VOID))
        return entry.answer

    async def capture(self, payment: Payment) -> GatewayAnswer:
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
        request = await self._request(payment)
        outcome = decide_outcome(request, self._rules)
        to_first_s, to_second_s, to_answer_s = self._delays.of_charge(request)
        await self._sleep(to_first_s)
        if request.requires_action or request.is_late:
            undecided = await self._undecided(request, outcome, is_held=is_held)
            if undecided is not None:
                await self._sleep(to_second_s + to_answer_s)
                return undecided
        entry = await self._first_step(request, outcome, is_held=is_held)
        await self._sleep(to_second_s)
        if entry is not None and entry.kind is EntryKind.AUTHORIZE and not is_held:
            entry = await self._record_entry(replace(entry, kind=EntryKind.CAPTURE))
        await self._sleep(to_answer_s)
        if entry is None:
            raise GatewayUnavailable(outcome.rule)
        return entry.answer

    async def _undecided(
        self, request: SimulatedRequest, outcome: SimulatedOutcome, *, is_held: bool
    ) -> ActionRequired | Pending | None:
        """Return what must happen before the payment is decided; None if nothing, or if it is decided."""
        with ledger_errors_as_unknown():
            if await self._ledger.find(request.payment_id) is not None:
                return None
            if request.requires_action:
                return ActionRequired(gateway_of(request, self._rules.seed))
            entry = first_entry(request, outcome, self._rules.seed, is_held=is_held)
            return await self._late_answers.of_charge(entry, request.seed_key)

    async def _request(self, payment: Payment) -> SimulatedRequest:
        with ledger_errors_as_unknown():
            return await simulated_request(payment, self._seed_keys)

    async def _first_step(self, request: SimulatedRequest, outcome: SimulatedOutcome, *, is_held: bool) -> Entry | None:
        """Authorize, charge or decline unless an earlier call did. Return None if the network fails and none did."""
        if outcome.failure is FailureCode.NETWORK_ERROR:
            # With other settings an earlier call may have reached the network.
            with ledger_errors_as_unknown():
                return await self._ledger.find(request.payment_id)
        return await self._record_entry(first_entry(request, outcome, self._rules.seed, is_held=is_held))

    async def _record_entry(self, entry: Entry) -> Entry:
        with ledger_errors_as_unknown():
            return await self._ledger.record_entry(entry)

    def _decline_entry(self, request: SimulatedRequest, failure_code: FailureCode) -> Entry:
        outcome = decide_outcome(request, self._rules)
        rule = outcome.rule if outcome.failure is failure_code else OutcomeRule.VOIDED
        declined = Declined(
            gateway=gateway_of(request, self._rules.seed),
            failure_code=failure_code,
            failure_reason=FAILURE_REASONS[failure_code],
            details={},
            outcome_rule=rule,
        )
        return Entry(request.payment_id, EntryKind.DECLINE, request.amount, request.currency, declined)
