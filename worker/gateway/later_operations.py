"""What the simulated gateway does to a payment that it has authorized or charged: capture, void and refund.

Each is one step in the ledger, which wins over the random numbers: what an earlier call recorded is answered again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from shared.lifecycle import CaptureFailureCode, FailureCode, OutcomeRule
from shared.payments.outcomes import Approved, Declined, GatewayAnswer, Pending, Voided
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundFailureCode
from shared.refunds.refund import Refund
from shared.simulation.scenarios import RefundScenario, read_scenario
from worker.gateway.answers import refund_id
from worker.gateway.delays import Delays
from worker.gateway.late_answers import LateAnswers
from worker.gateway.ledger import Entry, EntryKind, Ledger
from worker.gateway.ledger_errors import ledger_errors_as_unknown
from shared.simulation.decisions import CAPTURE_FAILURE_REASONS, FAILURE_REASONS, REFUND_FAILURE_REASONS
from worker.gateway.protocol import GatewayUnavailable
from shared.gateway_calls import SeedKeys
from shared.simulation.seeded_random import fraction

# The part of the tries of refunds that do not reach the gateway, where payments may fail at all.
REFUND_NETWORK_ERRORS = 0.01


class LaterOperations:
    """Captures, voids and refunds. `success_rate` is that of charges: at 1 nothing fails but by a test value."""

    def __init__(
        self,
        ledger: Ledger,
        keys: SeedKeys,
        delays: Delays,
        late_answers: LateAnswers,
        *,
        seed: str,
        success_rate: float,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._delays = delays
        self._late_answers = late_answers
        self._seed = seed
        self._success_rate = success_rate
        self._sleep = sleep

    async def capture(self, payment: Payment) -> GatewayAnswer:
        """See `Gateway.capture`. A live authorization is always captured."""
        delays_s = await self._delays_of(payment)
        entry = await self._record(_entry_of_capture(payment, EntryKind.CAPTURE, _held(payment)), delays_s)
        # Nothing is held any more, whoever released it.
        is_voided = entry.kind is EntryKind.VOID
        return _refused_capture(payment, CaptureFailureCode.CAPTURE_DECLINED) if is_voided else entry.answer

    async def close_capture_or_fetch(
        self, payment: Payment, failure_code: CaptureFailureCode | FailureCode
    ) -> GatewayAnswer:
        """See `Gateway.close_capture_or_fetch`."""
        refusal = _refused_capture(payment, failure_code)
        return (await self._record(_entry_of_capture(payment, EntryKind.CAPTURE_DECLINE, refusal))).answer

    async def void(self, payment: Payment) -> Voided | Approved:
        """See `Gateway.void`."""
        delays_s = await self._delays_of(payment)
        held = _held(payment)
        void = Entry(payment.id, EntryKind.VOID, payment.amount, payment.currency, held)
        entry = await self._record(void, delays_s)
        return held if entry.kind is EntryKind.CAPTURE else Voided(held.gateway)

    async def refund(self, payment: Payment, refund: Refund) -> GatewayAnswer | Pending:
        """See `Gateway.refund`. Each try may fail to reach the gateway; a test card names another outcome."""
        with ledger_errors_as_unknown():
            key = await self._keys.refund_key(payment, refund)
        scenario = read_scenario(payment.method)
        named = scenario.refund if scenario else None
        to_step_s, to_answer_s = self._delays.of_operation("refund", key, refund.gateway_tries)
        if self._is_unreachable(key, refund):
            await self._sleep(to_step_s + to_answer_s)
            with ledger_errors_as_unknown():
                # With other settings an earlier call may have reached the gateway.
                found = await self._ledger.find(payment.id, refund.number)
            if found is None:
                raise GatewayUnavailable(OutcomeRule.RATE)
            return found.answer
        if named is RefundScenario.DECLINED:
            entry = _entry_of_refund(refund, payment, _refused_refund(payment, RefundFailureCode.REFUND_DECLINED))
        else:
            gateway = _held(payment).gateway
            answer = replace(_held(payment), transaction_id=refund_id(gateway, self._seed, str(refund.id)), details={})
            entry = _entry_of_refund(refund, payment, answer)
        if named is RefundScenario.SLOW and (pending := await self._pending(entry, refund)):
            await self._sleep(to_step_s + to_answer_s)
            return pending
        return (await self._record(entry, (to_step_s, to_answer_s))).answer

    async def close_refund_or_fetch(
        self, payment: Payment, refund: Refund, failure_code: RefundFailureCode
    ) -> GatewayAnswer:
        """See `Gateway.close_refund_or_fetch`."""
        return (await self._record(_entry_of_refund(refund, payment, _refused_refund(payment, failure_code)))).answer

    async def _pending(self, entry: Entry, refund: Refund) -> Pending | None:
        """Return that a slow refund is pending; None if it is decided, or its time is over."""
        with ledger_errors_as_unknown():
            if await self._ledger.find(entry.payment_id, refund.number) is not None:
                return None
            return await self._late_answers.of_refund(entry, refund)

    def _is_unreachable(self, key: str, refund: Refund) -> bool:
        if self._success_rate >= 1:
            return False
        return fraction(self._seed, key, "refund network", refund.gateway_tries) < REFUND_NETWORK_ERRORS

    async def _delays_of(self, payment: Payment) -> tuple[float, float]:
        with ledger_errors_as_unknown():
            key = await self._keys.seed_key(payment)
        return self._delays.of_operation(payment.due_for, key, payment.gateway_tries)

    async def _record(self, entry: Entry, delays_s: tuple[float, float] = (0, 0)) -> Entry:
        """Write an entry between the two delays, and return what is on record."""
        to_step_s, to_answer_s = delays_s
        if to_step_s:
            await self._sleep(to_step_s)
        with ledger_errors_as_unknown():
            found = await self._ledger.record_entry(entry)
        if to_answer_s:
            await self._sleep(to_answer_s)
        return found


def _held(payment: Payment) -> Approved:
    """Return the answer to the payment's authorization or charge, as its row keeps it."""
    columns: tuple[Any, ...] = (
        payment.gateway,
        payment.gateway_transaction_id,
        payment.gateway_details or {},
        payment.outcome_rule,
    )
    return Approved(*columns)


def _refused_capture(payment: Payment, failure_code: CaptureFailureCode | FailureCode) -> Declined:
    # Its order may refuse a capture, too.
    if isinstance(failure_code, FailureCode):
        reason, rule = FAILURE_REASONS[failure_code], OutcomeRule.ORDER
    else:
        reason, rule = CAPTURE_FAILURE_REASONS[failure_code], OutcomeRule.VOIDED
    return Declined(payment.gateway, failure_code, reason, {}, rule)


def _refused_refund(payment: Payment, failure_code: RefundFailureCode) -> Declined:
    is_declined = failure_code is RefundFailureCode.REFUND_DECLINED
    rule = OutcomeRule.CARD if is_declined else OutcomeRule.VOIDED
    return Declined(payment.gateway, failure_code, REFUND_FAILURE_REASONS[failure_code], {}, rule)


def _entry_of_capture(payment: Payment, kind: EntryKind, answer: GatewayAnswer) -> Entry:
    amount = payment.amount if payment.operation_amount is None else payment.operation_amount
    return Entry(payment.id, kind, amount, payment.currency, answer, payment.operation_number)


def _entry_of_refund(refund: Refund, payment: Payment, answer: GatewayAnswer) -> Entry:
    kind = EntryKind.REFUND if isinstance(answer, Approved) else EntryKind.REFUND_DECLINE
    return Entry(payment.id, kind, refund.amount, payment.currency, answer, refund.number)
