"""Decides, once for all tries, how a payment ends and what decided it. Pure: the same request has the same outcome."""

from dataclasses import dataclass
from enum import StrEnum

from shared.lifecycle import FailureCode, MethodType
from worker.gateway.draws import fraction
from worker.gateway.protocol import ChargeRequest


class OutcomeRule(StrEnum):
    """What decided how a payment ended; a closed set."""

    CARD = "card"  # a test number
    ADDRESS = "address"  # a test PayPal address
    AMOUNT = "amount"  # a test amount
    RATE = "rate"  # the draw
    CLOSED = "closed"  # none of these: the payment was closed before the gateway had finished it


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that outcomes depend on."""

    seed: str
    success_rate: float  # of payments that no other rule touches; 0 to 1
    amounts_decide: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a payment ends: `failure` is None if the charge is approved; NETWORK_ERROR means that every try fails."""

    failure: FailureCode | None
    rule: OutcomeRule


AMOUNT_SCENARIOS = {  # amount in minor units, modulo 100
    1: FailureCode.INSUFFICIENT_FUNDS,
    2: FailureCode.CARD_DECLINED,
    3: FailureCode.NETWORK_ERROR,
    4: FailureCode.INVALID_PAYMENT_METHOD,
}

FAILURE_SHARES: dict[MethodType, dict[FailureCode, int]] = {  # percent of the failures that the rate decides
    MethodType.CREDIT_CARD: {
        FailureCode.CARD_DECLINED: 60,
        FailureCode.NETWORK_ERROR: 20,
        FailureCode.INSUFFICIENT_FUNDS: 10,
        FailureCode.INVALID_PAYMENT_METHOD: 10,
    },
    MethodType.DEBIT_CARD: {  # the money moves at once, so what is on the account matters most
        FailureCode.INSUFFICIENT_FUNDS: 60,
        FailureCode.CARD_DECLINED: 20,
        FailureCode.NETWORK_ERROR: 15,
        FailureCode.INVALID_PAYMENT_METHOD: 5,
    },
    MethodType.PAYPAL: {  # an account is checked instead of a card
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
    # With these the gateway is only told to close a payment: it never finds them by itself.
    FailureCode.ORDER_NOT_FOUND: "There is no such order.",
    FailureCode.ORDER_NOT_OWNED: "The order belongs to somebody else.",
    FailureCode.ORDER_NOT_PAYABLE: "The order does not wait for a payment.",
    FailureCode.ORDER_AMOUNT_MISMATCH: "The order's total is another amount or currency.",
    FailureCode.ORDER_SERVICE_UNAVAILABLE: "The order could not be checked in time; nothing was charged.",
}


def decide(request: ChargeRequest, rules: Rules) -> Outcome:
    """How the payment ends, whichever try it is: a test card or address wins over a test amount, that over the rate."""
    if request.scenario is not None:
        return Outcome(request.scenario, _rule_of_scenario(request.method_type))
    if rules.amounts_decide and (failure := AMOUNT_SCENARIOS.get(request.amount % 100)) is not None:
        return Outcome(failure, OutcomeRule.AMOUNT)
    if fraction(rules.seed, request.identity, "outcome") < rules.success_rate:
        return Outcome(None, OutcomeRule.RATE)
    drawn = fraction(rules.seed, request.identity, "failure")
    return Outcome(_failure_at(drawn, FAILURE_SHARES[request.method_type]), OutcomeRule.RATE)


def _rule_of_scenario(method_type: MethodType) -> OutcomeRule:
    return OutcomeRule.ADDRESS if method_type is MethodType.PAYPAL else OutcomeRule.CARD


def _failure_at(drawn: float, shares: dict[FailureCode, int]) -> FailureCode:
    """The failure whose share `drawn`, in [0, 1), falls into."""
    upper = 0
    for failure, percent in shares.items():
        upper += percent
        if drawn * 100 < upper:
            return failure
    raise AssertionError("shares add up to 100")
