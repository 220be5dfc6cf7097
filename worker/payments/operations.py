"""The operations of a claimed payment at the gateway, and what the claim ends with.

This module never decides whether money moves: the gateway does.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import assert_never

from shared.lifecycle import (
    CaptureFailureCode,
    FailureCode,
    HistoryReason,
    MethodType,
    OutcomeRule,
    PaymentOperation,
)
from shared.payments.outcomes import (
    ActionNeeded,
    ActionRequired,
    Approved,
    Authorized,
    ClaimOutcome,
    Declined,
    GatewayAnswer,
    Pending,
    Retry,
    Settled,
    Unsettled,
    Voided,
)
from shared.payments.payment import Payment
from worker.gateway.protocol import ChargeAnswer, Gateway, GatewayTimedOut, NoAnswer
from worker.rules import POLL_AFTER_S, ChargeRules

# A bound for the exponent: without it, a payment with a thousand tries would overflow a float.
BACKOFF_DOUBLINGS_MAX = 16
# The longest backoff, in seconds, of a void, which is tried until the gateway answers.
VOID_BACKOFF_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a payment must not be charged."""

    failure_code: FailureCode
    reason: HistoryReason


class Operations:
    """Does what a payment is due for."""

    def __init__(self, gateway: Gateway, rules: ChargeRules) -> None:
        self._gateway = gateway
        self._rules = rules

    def exceeded_max_claims(self, payment: Payment) -> bool:
        """Return whether too many claims ended without an answer: then only the gateway's record counts."""
        # A claim that recorded a retry or a postponement did not end its worker.
        answered = payment.gateway_tries + payment.order_checks
        return payment.claims - answered > self._rules.max_claims

    async def ask(self, payment: Payment, refusal: Refusal | None) -> ClaimOutcome:
        """Return what the claim ends with. With a refusal nothing is charged or captured that is not already.

        Raises OutcomeUnknown.
        """
        match payment.due_for:
            case PaymentOperation.CHARGE | PaymentOperation.AUTHORIZE:
                return await self._begin(payment, refusal)
            case PaymentOperation.CAPTURE:
                return await self._capture(payment, refusal)
            case PaymentOperation.VOID:
                return await self._void(payment)
            case _:
                assert_never(payment.due_for)

    async def _begin(self, payment: Payment, refusal: Refusal | None) -> ClaimOutcome:
        """Charge or authorize the payment."""
        is_charge = payment.due_for is PaymentOperation.CHARGE
        if self.exceeded_max_claims(payment):
            return self._begun(payment, await self._gateway.void_or_fetch(payment), HistoryReason.CLAIMS_EXHAUSTED)
        if refusal is not None:
            return await self._refuse(payment, refusal)
        try:
            answer = await (self._gateway.charge(payment) if is_charge else self._gateway.authorize(payment))
        except NoAnswer as error:
            return await self._retry_or_give_up(payment, error)
        return self._answered(payment, answer)

    def _answered(self, payment: Payment, answer: ChargeAnswer) -> ClaimOutcome:
        match answer:
            case ActionRequired():
                return ActionNeeded(answer, self._rules.action_valid_s)
            case Pending():
                return Unsettled(answer, answer.settles_in_s + POLL_AFTER_S)
            case Approved():
                return self._begun(payment, answer, HistoryReason.GATEWAY_APPROVED)
            case Declined():
                return Settled(answer, HistoryReason.GATEWAY_DECLINED)
            case _:
                assert_never(answer)

    async def _retry_or_give_up(self, payment: Payment, error: NoAnswer) -> ClaimOutcome:
        if payment.gateway_tries + 1 < self._rules.gateway_tries_max:
            return self._retry(payment, error)
        voided = await self._gateway.void_or_fetch(payment, error.failure_code)
        if isinstance(voided, Approved):
            approved = replace(voided, remark=error.remark or voided.remark)
            return self._begun(payment, approved, HistoryReason.GATEWAY_APPROVED)
        failed = replace(voided, outcome_rule=error.outcome_rule, remark=error.remark)
        return Settled(failed, HistoryReason.GATEWAY_UNREACHABLE)

    def _begun(self, payment: Payment, answer: GatewayAnswer, reason: HistoryReason) -> ClaimOutcome:
        if payment.due_for is PaymentOperation.AUTHORIZE and isinstance(answer, Approved):
            is_paypal = payment.method["type"] == MethodType.PAYPAL
            return Authorized(answer, self._rules.paypal_valid_s if is_paypal else self._rules.card_valid_s)
        return Settled(answer, reason)

    async def _refuse(self, payment: Payment, refusal: Refusal) -> ClaimOutcome:
        """Fail the payment, unless the gateway has already decided it for an earlier claim: then that answer counts."""
        voided = await self._gateway.void_or_fetch(payment, refusal.failure_code)
        if isinstance(voided, Approved):
            return self._begun(payment, voided, HistoryReason.GATEWAY_APPROVED)
        if voided.failure_code != refusal.failure_code:
            return Settled(voided, HistoryReason.GATEWAY_DECLINED)
        return Settled(replace(voided, gateway=None, details=None, outcome_rule=OutcomeRule.ORDER), refusal.reason)

    async def _capture(self, payment: Payment, refusal: Refusal | None) -> ClaimOutcome:
        """Capture the authorization. Whatever fails, it stays held: nothing is voided."""
        if self.exceeded_max_claims(payment):
            return await self._close_capture(payment, CaptureFailureCode.NETWORK_ERROR)
        if refusal is not None:
            return await self._close_capture(payment, refusal.failure_code)
        try:
            answer = await self._gateway.capture(payment)
        except NoAnswer as error:
            if payment.gateway_tries + 1 < self._rules.gateway_tries_max:
                return self._retry(payment, error)
            return await self._close_capture(payment, CaptureFailureCode.NETWORK_ERROR, error)
        if isinstance(answer, Pending):
            return Unsettled(answer, answer.settles_in_s + POLL_AFTER_S)
        return _captured(answer)

    async def _close_capture(
        self, payment: Payment, failure_code: CaptureFailureCode | FailureCode, error: NoAnswer | None = None
    ) -> ClaimOutcome:
        answer = await self._gateway.close_capture_or_fetch(payment, failure_code)
        return _captured(replace(answer, remark=error.remark or answer.remark) if error else answer)

    async def _void(self, payment: Payment) -> ClaimOutcome:
        """Release what is held. This is tried for as long as the gateway does not answer."""
        try:
            answer = await self._gateway.void(payment)
        except NoAnswer as error:
            return self._retry(payment, error, VOID_BACKOFF_MAX_S)
        return Settled(answer, HistoryReason.VOIDED if isinstance(answer, Voided) else HistoryReason.CAPTURED)

    def _retry(self, payment: Payment, error: NoAnswer, wait_max_s: float = inf) -> Retry:
        wait_s = self._rules.gateway_backoff_s * 2 ** min(payment.gateway_tries, BACKOFF_DOUBLINGS_MAX)
        return Retry(min(wait_s, wait_max_s), isinstance(error, GatewayTimedOut), error.remark)


def _captured(answer: GatewayAnswer) -> Settled:
    is_declined = isinstance(answer, Declined)
    return Settled(answer, HistoryReason.CAPTURE_FAILED if is_declined else HistoryReason.CAPTURED)
