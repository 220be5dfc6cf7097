"""Decides what a call to the simulated gateway does, and says what decided it. Pure functions.

The request's own steering wins over the rules of admins, a rule over a test card or address, that over a test amount,
and a test amount over the success rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.lifecycle import CaptureFailureCode, FailureCode, MethodType, OutcomeRule
from shared.refund_lifecycle import RefundFailureCode
from shared.simulation.calls import (
    LOSES_ANSWER,
    SETTLES_LATE,
    Call,
    CallOperation,
    CallOutcome,
    Failure,
    failure_of,
)
from shared.simulation.rules import Fired, Pace
from shared.simulation.scenarios import RefundScenario
from shared.simulation.seeded_random import fraction


@dataclass(frozen=True, slots=True)
class OutcomeSettings:
    """The settings that outcomes depend on.

    `success_rate`, from 0 to 1, is the part of payments that are approved where no other rule applies. With
    `amounts_decide` the last two digits of the amount may name a failure.
    """

    seed: str
    success_rate: float
    uses_test_amounts: bool


@dataclass(frozen=True, slots=True)
class SimulatedOutcome:
    """How a payment ends. `failure` is None if the charge is approved; NETWORK_ERROR means that every try fails."""

    failure: FailureCode | None
    rule: OutcomeRule


# By the last two digits of an amount in minor units.
AMOUNT_SCENARIOS = {
    1: FailureCode.INSUFFICIENT_FUNDS,
    2: FailureCode.CARD_DECLINED,
    3: FailureCode.NETWORK_ERROR,
    4: FailureCode.INVALID_PAYMENT_METHOD,
}

# Of the failures that the success rate decides: how many percent have which code.
FAILURE_SHARES: dict[MethodType, dict[FailureCode, int]] = {
    MethodType.CREDIT_CARD: {
        FailureCode.CARD_DECLINED: 60,
        FailureCode.NETWORK_ERROR: 20,
        FailureCode.INSUFFICIENT_FUNDS: 10,
        FailureCode.INVALID_PAYMENT_METHOD: 10,
    },
    # The money moves at once, so the balance of the account is the most frequent reason.
    MethodType.DEBIT_CARD: {
        FailureCode.INSUFFICIENT_FUNDS: 60,
        FailureCode.CARD_DECLINED: 20,
        FailureCode.NETWORK_ERROR: 15,
        FailureCode.INVALID_PAYMENT_METHOD: 5,
    },
    # The PayPal account is checked instead of a card.
    MethodType.PAYPAL: {
        FailureCode.INSTRUMENT_DECLINED: 50,
        FailureCode.PAYER_ACCOUNT_RESTRICTED: 25,
        FailureCode.NETWORK_ERROR: 20,
        FailureCode.INSUFFICIENT_FUNDS: 5,
    },
}
# The part of the tries of refunds that do not reach the gateway, where payments may fail at all.
REFUND_NETWORK_ERRORS = 0.01

# What a call of each operation fails with if nothing happens.
UNREACHABLE: dict[CallOperation, Failure] = {
    CallOperation.CHARGE: FailureCode.NETWORK_ERROR,
    CallOperation.AUTHORIZE: FailureCode.NETWORK_ERROR,
    CallOperation.CAPTURE: CaptureFailureCode.NETWORK_ERROR,
    CallOperation.REFUND: RefundFailureCode.NETWORK_ERROR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a call does. `failure` is None if the gateway approves; `network_error` means that nothing happens.

    `rule` says what decided that. With `requires_action` nothing happens but that the customer is asked. What
    `settles_late` is pending first, and a notification comes if it `notifies`. With `loses_answer` the caller never
    hears of what happened. `delay_ms` is how long the call takes; None = as `pace` says. `remark` says what
    was steered, and by whom; None = nothing was.
    """

    failure: Failure | None
    rule: str
    requires_action: bool = False
    settles_late: bool = False
    notifies: bool = True
    loses_answer: bool = False
    delay_ms: int | None = None
    pace: Pace = Pace.DRAWN
    remark: dict[str, Any] | None = None

    @property
    def is_unreachable(self) -> bool:
        """Nothing happens."""
        return self.failure in UNREACHABLE.values()


def decide(call: Call, settings: OutcomeSettings, fired: Fired | None = None) -> Decision:
    """Return what the call does. `fired` is the rule that fires for it; it must be None if the request decides."""
    own = call.steering
    outcomes, by = own.outcomes, str(OutcomeRule.REQUEST)
    if fired and not outcomes:
        outcomes, by = fired.outcomes, fired.outcome_rule
    outcome = outcome_at(outcomes, call) if outcomes else None
    decision = _unsteered(call, settings) if outcome is None else _steered(call, outcomes, outcome, by)
    if own.delay_ms is not None:
        decision = replace(decision, delay_ms=own.delay_ms)
    elif fired:
        decision = replace(decision, delay_ms=fired.delay_ms, pace=fired.pace)
    return replace(decision, remark=_remark(call, decision, outcome, by, fired))


def outcome_at(outcomes: Sequence[str], call: Call) -> str:
    """Return which of the outcomes is that of the call; the last one repeats."""
    left = _not_done(outcomes, call)
    return left[min(call.number, len(left)) - 1]


def _not_done(outcomes: Sequence[str], call: Call) -> Sequence[str]:
    """Return the outcomes without those that asked the customer, once the customer has approved."""
    if not call.is_approved:
        return outcomes
    return [each for each in outcomes if each != FailureCode.AUTHENTICATION_REQUIRED] or (CallOutcome.APPROVE,)


def _steered(call: Call, outcomes: Sequence[str], outcome: str, by: str) -> Decision:
    if outcome in (CallOutcome.NETWORK_ERROR, CallOutcome.TIMEOUT_NOT_CHARGED):
        return Decision(failure=UNREACHABLE[call.operation], rule=by, loses_answer=outcome in LOSES_ANSWER)
    settles_late = outcome in SETTLES_LATE
    failure = failure_of(call.operation, _settled_as(outcomes, call) if settles_late else outcome)
    asks = call.method_type is MethodType.PAYPAL or failure is FailureCode.AUTHENTICATION_REQUIRED
    is_begun = call.operation in (CallOperation.CHARGE, CallOperation.AUTHORIZE)
    return Decision(
        failure=failure,
        rule=by,
        requires_action=asks and is_begun and call.can_redirect and not call.is_approved,
        settles_late=settles_late,
        notifies=outcome != CallOutcome.PENDING_LOST,
        loses_answer=outcome in LOSES_ANSWER,
    )


def _settled_as(outcomes: Sequence[str], call: Call) -> str:
    """Return what a pending call is settled as: the failure that comes next, else an approval."""
    left = _not_done(outcomes, call)
    following = left[call.number : call.number + 1]
    return following[0] if following and failure_of(call.operation, following[0]) else CallOutcome.APPROVE


def _unsteered(call: Call, settings: OutcomeSettings) -> Decision:
    match call.operation:
        case CallOperation.CHARGE | CallOperation.AUTHORIZE:
            decided = decide_outcome(call, settings)
            return Decision(
                failure=decided.failure,
                rule=decided.rule,
                requires_action=call.asks_customer,
                settles_late=call.scenario is not None and call.scenario.is_pending,
            )
        case CallOperation.CAPTURE:
            # A live authorization is always captured.
            return Decision(failure=None, rule=OutcomeRule.RATE)
        case CallOperation.REFUND:
            return _unsteered_refund(call, settings)


def _unsteered_refund(call: Call, settings: OutcomeSettings) -> Decision:
    if settings.success_rate < 1:
        drawn = fraction(settings.seed, call.seed_key, "refund network", call.gateway_try)
        if drawn < REFUND_NETWORK_ERRORS:
            return Decision(failure=RefundFailureCode.NETWORK_ERROR, rule=OutcomeRule.RATE)
    named = call.scenario.refund if call.scenario else None
    if named is RefundScenario.DECLINED:
        return Decision(failure=RefundFailureCode.REFUND_DECLINED, rule=OutcomeRule.CARD)
    return Decision(failure=None, rule=OutcomeRule.RATE, settles_late=named is RefundScenario.SLOW)


def _remark(call: Call, decision: Decision, outcome: str | None, by: str, fired: Fired | None) -> dict[str, Any] | None:
    """Return what was steered about the call, for the payment to keep; None if nothing was."""
    if outcome is None and fired is None and decision.delay_ms is None:
        return None
    is_by_rule = fired is not None and by == fired.outcome_rule
    return {
        "operation": call.operation.value,
        "call": call.number,
        "by": by,
        "name": fired.name if fired is not None and is_by_rule else None,
        "outcome": None if outcome is None else str(outcome),
        "delay_ms": decision.delay_ms,
        "pace": None if decision.pace is Pace.DRAWN else decision.pace.value,
    }


def decide_outcome(call: Call, rules: OutcomeSettings) -> SimulatedOutcome:
    """Return how a charge or an authorization ends that nobody steers, the same for every try."""
    scenario = call.scenario
    if scenario is not None and scenario.is_challenged and not call.can_redirect:
        return SimulatedOutcome(FailureCode.AUTHENTICATION_REQUIRED, OutcomeRule.CARD)
    if scenario is not None and not scenario.follows_rate:
        return SimulatedOutcome(scenario.failure, _rule_of_scenario(call.method_type))
    if rules.uses_test_amounts and (failure := AMOUNT_SCENARIOS.get(call.amount % 100)) is not None:
        return SimulatedOutcome(failure, OutcomeRule.AMOUNT)
    if fraction(rules.seed, call.seed_key, "outcome") < rules.success_rate:
        return SimulatedOutcome(None, OutcomeRule.RATE)
    drawn = fraction(rules.seed, call.seed_key, "failure")
    return SimulatedOutcome(_failure_at(drawn, FAILURE_SHARES[call.method_type]), OutcomeRule.RATE)


def _rule_of_scenario(method_type: MethodType) -> OutcomeRule:
    return OutcomeRule.ADDRESS if method_type is MethodType.PAYPAL else OutcomeRule.CARD


def _failure_at(drawn: float, shares: dict[FailureCode, int]) -> FailureCode:
    """Return the failure into whose share the random number `drawn`, in [0, 1), falls."""
    upper = 0
    for failure, percent in shares.items():
        upper += percent
        if drawn * 100 < upper:
            return failure
    raise AssertionError("shares add up to 100")
