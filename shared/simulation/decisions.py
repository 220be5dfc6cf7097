"""Decides how a simulated payment ends, and what decided it. A pure function: every try has the same outcome."""

from dataclasses import dataclass

from shared.lifecycle import FailureCode, MethodType, OutcomeRule
from shared.simulation.calls import Call
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

def decide_outcome(call: Call, rules: OutcomeSettings) -> SimulatedOutcome:
    """Return how the payment ends, the same for every try.

    A test card or address wins over a test amount, and a test amount over the success rate.
    """
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
