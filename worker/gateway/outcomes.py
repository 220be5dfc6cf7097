"""Decides how a simulated payment ends, and what decided it. A pure function: every try has the same outcome."""

from dataclasses import dataclass

from shared.lifecycle import CaptureFailureCode, FailureCode, MethodType, OutcomeRule
from shared.payments.requests import ACTION_FAILURE_REASONS
from shared.refund_lifecycle import RefundFailureCode
from worker.gateway.requests import SimulatedRequest
from worker.gateway.seeded_random import fraction


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

FAILURE_REASONS = {
    FailureCode.CARD_DECLINED: "The issuer declined the card without giving a reason.",
    FailureCode.INSUFFICIENT_FUNDS: "The account does not have enough funds, or its daily limit is reached.",
    FailureCode.NETWORK_ERROR: "The gateway could not be reached; nothing was charged.",
    FailureCode.INVALID_PAYMENT_METHOD: "The issuer does not know this payment method or does not accept it.",
    FailureCode.LOST_CARD: "The card was reported lost.",
    FailureCode.STOLEN_CARD: "The card was reported stolen.",
    FailureCode.EXPIRED_CARD: "The card has expired.",
    FailureCode.INCORRECT_CVC: "The security code does not belong to the card.",
    FailureCode.PROCESSING_ERROR: "The payment could not be processed; nothing was charged.",
    FailureCode.CARD_VELOCITY_EXCEEDED: "The card was used too often in a short time.",
    FailureCode.FRAUD_SUSPECTED: "The payment was blocked because it looks fraudulent.",
    FailureCode.PAYER_ACCOUNT_RESTRICTED: "The payer's PayPal account is restricted.",
    FailureCode.INSTRUMENT_DECLINED: "The card or bank account behind the PayPal account was declined.",
    FailureCode.AUTHENTICATION_REQUIRED: "The issuer wants 3-D Secure, and the payment has no return_url for it.",
    **ACTION_FAILURE_REASONS,
    # The gateway never fails a payment for these by itself: the processor voids the payment with them.
    FailureCode.ORDER_NOT_FOUND: "There is no such order.",
    FailureCode.ORDER_NOT_OWNED: "The order belongs to somebody else.",
    FailureCode.ORDER_NOT_PAYABLE: "The order does not wait for a payment.",
    FailureCode.ORDER_AMOUNT_MISMATCH: "The order's total is another amount or currency.",
    FailureCode.ORDER_SERVICE_UNAVAILABLE: "The order could not be checked in time; nothing was charged.",
}

CAPTURE_FAILURE_REASONS = {
    CaptureFailureCode.CAPTURE_DECLINED: "The issuer refused the capture; the funds are still held.",
    CaptureFailureCode.NETWORK_ERROR: "The gateway could not be reached; nothing was captured.",
}
REFUND_FAILURE_REASONS = {
    RefundFailureCode.REFUND_DECLINED: "The issuer refused the refund; nothing was paid back.",
    RefundFailureCode.NETWORK_ERROR: "The gateway could not be reached; nothing was paid back.",
}


def decide_outcome(request: SimulatedRequest, rules: OutcomeSettings) -> SimulatedOutcome:
    """Return how the payment ends, the same for every try.

    A test card or address wins over a test amount, and a test amount over the success rate.
    """
    scenario = request.scenario
    if scenario is not None and scenario.is_challenged and not request.can_redirect:
        return SimulatedOutcome(FailureCode.AUTHENTICATION_REQUIRED, OutcomeRule.CARD)
    if scenario is not None and not scenario.follows_rate:
        return SimulatedOutcome(scenario.failure, _rule_of_scenario(request.method_type))
    if rules.uses_test_amounts and (failure := AMOUNT_SCENARIOS.get(request.amount % 100)) is not None:
        return SimulatedOutcome(failure, OutcomeRule.AMOUNT)
    if fraction(rules.seed, request.seed_key, "outcome") < rules.success_rate:
        return SimulatedOutcome(None, OutcomeRule.RATE)
    drawn = fraction(rules.seed, request.seed_key, "failure")
    return SimulatedOutcome(_failure_at(drawn, FAILURE_SHARES[request.method_type]), OutcomeRule.RATE)


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
