"""What the simulated gateway does to a payment that it has authorized or charged: capture, void and refund.

Each is one step in the ledger, which wins over what is decided: what an earlier call recorded is answered again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from shared.failure_reasons import CAPTURE_FAILURE_REASONS, FAILURE_REASONS, REFUND_FAILURE_REASONS
from shared.lifecycle import CaptureFailureCode, FailureCode, OutcomeRule
from shared.payments.outcomes import Approved, Declined, GatewayAnswer, Pending, Voided
from shared.payments.payment import Payment
from shared.refund_lifecycle import RefundFailureCode
from shared.refunds.refund import Refund
from shared.simulation.calls import Call
from shared.simulation.decisions import Decision
from shared.simulation.delays import Delays
from shared.simulation.ledger_entries import EntryKind
from worker.gateway.answers import refund_id
from worker.gateway.deciding import Decider
from worker.gateway.ledger import Entry, Ledger
from worker.gateway.ledger_errors import ledger_errors_as_unknown
from worker.gateway.protocol import GatewayTimedOut, GatewayUnavailable
from worker.gateway.steps import EntryOf, Steps


class LaterOperations:
    """Captures, voids and refunds."""

    def __init__(
        self,
        ledger: Ledger,
        decider: Decider,
        delays: Delays,
        steps: Steps,
        *,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._decider = decider
        self._delays = delays
        self._steps = steps
        self._sleep = sleep

    async def capture(self, payment: Payment) -> GatewayAnswer | Pending:
        """See `Gateway.capture`."""
        call, decision = await self._decider.of_payment(payment)
        if decision.failure is None:
            answer: GatewayAnswer = replace(_held(payment), remark=decision.remark)
        else:
            answer = _refused_capture(payment, CaptureFailureCode(decision.failure), decision)
        delays_s = self._delays.of_operation(payment.due_for, call, decision)
        found = await self._ask(call, decision, answer, partial(_entry_of_capture, payment), delays_s)
        # Nothing is held any more, whoever released it.
        if isinstance(found, Entry) and found.kind is EntryKind.VOID:
            return _refused_capture(payment, CaptureFailureCode.CAPTURE_DECLINED)
        return found.answer if isinstance(found, Entry) else found

    async def close_capture_or_fetch(
        self, payment: Payment, failure_code: CaptureFailureCode | FailureCode
    ) -> GatewayAnswer:
        """See `Gateway.close_capture_or_fetch`."""
        return (await self._record(_entry_of_capture(payment, _refused_capture(payment, failure_code)))).answer

    async def void(self, payment: Payment) -> Voided | Approved:
        """See `Gateway.void`."""
        delays_s = self._delays.of_operation(payment.due_for, await self._decider.call(payment))
        held = _held(payment)
        void = Entry(payment.id, EntryKind.VOID, payment.amount, payment.currency, held)
        entry = await self._record(void, delays_s)
        return held if entry.kind is EntryKind.CAPTURE else Voided(held.gateway)

    async def refund(self, payment: Payment, refund: Refund) -> GatewayAnswer | Pending:
        """See `Gateway.refund`. Each try may fail to reach the gateway; a test card names another outcome."""
        call, decision = await self._decider.of_refund(payment, refund)
        if decision.failure is None:
            held = _held(payment)
            transaction = refund_id(held.gateway, self._decider.settings.seed, str(refund.id))
            answer: GatewayAnswer = replace(held, transaction_id=transaction, details={}, remark=decision.remark)
        else:
            answer = _refused_refund(payment, RefundFailureCode(decision.failure), decision)
        delays_s = self._delays.of_operation("refund", call, decision)
        found = await self._ask(call, decision, answer, partial(_entry_of_refund, refund, payment), delays_s)
        return found.answer if isinstance(found, Entry) else found

    async def close_refund_or_fetch(
        self, payment: Payment, refund: Refund, failure_code: RefundFailureCode
    ) -> GatewayAnswer:
        """See `Gateway.close_refund_or_fetch`."""
        return (await self._record(_entry_of_refund(refund, payment, _refused_refund(payment, failure_code)))).answer

    async def _ask(
        self, call: Call, decision: Decision, answer: GatewayAnswer, entry_of: EntryOf, delays_s: tuple[float, float]
    ) -> Entry | Pending:
        """Take the step of a call between the two delays. Return the entry of the operation, or that it is pending."""
        to_step_s, to_answer_s = delays_s
        await self._sleep(to_step_s)
        found = await self._steps.take(call, decision, None if decision.is_unreachable else answer, entry_of)
        await self._sleep(to_answer_s)
        if decision.loses_answer:
            raise GatewayTimedOut(decision.rule, decision.remark)
        if found is None:
            raise GatewayUnavailable(decision.rule, decision.remark)
        return found

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


def _refused_capture(
    payment: Payment, failure_code: CaptureFailureCode | FailureCode, decision: Decision | None = None
) -> Declined:
    # Its order may refuse a capture, too.
    if isinstance(failure_code, FailureCode):
        reason, rule = FAILURE_REASONS[failure_code], str(OutcomeRule.ORDER)
    else:
        reason, rule = CAPTURE_FAILURE_REASONS[failure_code], decision.rule if decision else str(OutcomeRule.VOIDED)
    return Declined(payment.gateway, failure_code, reason, {}, rule, decision.remark if decision else None)


def _refused_refund(payment: Payment, failure_code: RefundFailureCode, decision: Decision | None = None) -> Declined:
    rule, remark = (decision.rule, decision.remark) if decision else (OutcomeRule.VOIDED, None)
    return Declined(payment.gateway, failure_code, REFUND_FAILURE_REASONS[failure_code], {}, rule, remark)


def _entry_of_capture(payment: Payment, answer: GatewayAnswer) -> Entry:
    amount = payment.amount if payment.operation_amount is None else payment.operation_amount
    kind = EntryKind.CAPTURE if isinstance(answer, Approved) else EntryKind.CAPTURE_DECLINE
    return Entry(payment.id, kind, amount, payment.currency, answer, payment.operation_number)


def _entry_of_refund(refund: Refund, payment: Payment, answer: GatewayAnswer) -> Entry:
    kind = EntryKind.REFUND if isinstance(answer, Approved) else EntryKind.REFUND_DECLINE
    return Entry(payment.id, kind, refund.amount, payment.currency, answer, refund.number)
