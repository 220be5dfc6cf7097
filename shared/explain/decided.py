"""What decided the outcome of a payment, in words and as values."""

from dataclasses import dataclass
from typing import Any

from shared.explain.draws import Draw
from shared.explain.facts import RULE_PREFIX, Facts
from shared.explain.operations import Operation
from shared.explain.words import explained, steered_to
from shared.lifecycle import FailureCode, OutcomeRule, PaymentStatus
from shared.money import format_amount
from shared.simulation.decisions import AMOUNT_SCENARIOS

UNDECIDED = "Nothing is decided yet."


@dataclass(frozen=True, slots=True)
class Decided:
    """What decided: `by` is the payment's `outcome_rule`, None if nothing did."""

    by: str | None
    rule: dict[str, Any] | None
    failure_code: str | None
    sentences: list[str]
    draws: list[Draw]

    def to_json(self) -> dict[str, Any]:
        """Return what decided as clients see it."""
        return {
            "by": self.by,
            "rule": self.rule,
            "failure_code": self.failure_code,
            "draws": [draw.to_json() for draw in self.draws],
        }


def decided(facts: Facts, first: Operation, draws: list[Draw]) -> Decided:
    """Return what decided the charge or the authorization of a payment, which is its operation `first`."""
    payment = facts.payment
    by = payment.outcome_rule
    return Decided(by, _rule_of(first, by), payment.failure_code, _reasons(facts, first, by, draws), draws)


def _rule_of(operation: Operation, by: str | None) -> dict[str, Any] | None:
    """Return the rule of an admin that decided, as what was written down when it fired; None if none did."""
    if by is None or not by.startswith(RULE_PREFIX):
        return None
    fired = [remark for remark in operation.remarks if remark["by"] == by]
    return {
        "id": by.removeprefix(RULE_PREFIX),
        "name": fired[-1]["name"] if fired else None,
        "effect": [
            {
                "call": remark["call"],
                "outcome": remark["outcome"],
                "delay_ms": remark["delay_ms"],
                "pace": remark["pace"],
            }
            for remark in fired
        ],
    }


def steered(operation: Operation) -> list[str]:
    """Return a sentence for each call of an operation that was steered."""
    return [f"{_who(remark)} made call {remark['call']} {steered_to(remark)}." for remark in operation.remarks]


def decided_refund(operation: Operation) -> list[str]:
    """Return what decided a refund, if its payment method did."""
    by = operation.ledger[-1].answer.get("outcome_rule") if operation.ledger else None
    if by != OutcomeRule.CARD or operation.remarks:
        return []
    return ["The payment method decided: it is one for tests, whose refunds all end like this."]


def _who(remark: Any) -> str:
    if remark["by"] == OutcomeRule.REQUEST:
        return "The request"
    return f'The rule "{remark["name"]}" ({remark["by"].removeprefix(RULE_PREFIX)})'


_ALWAYS = {
    OutcomeRule.REQUEST: "The request itself decided: its member `simulation` said what each call to the gateway does.",
    OutcomeRule.VOIDED: (
        "The service itself decided: the workers that had the payment died too often before the gateway had decided, "
        "so the payment was closed at the gateway."
    ),
    OutcomeRule.ORDER: "The order service decided, or its silence. The gateway charged nothing.",
}


def _reasons(facts: Facts, first: Operation, by: str | None, draws: list[Draw]) -> list[str]:
    payment = facts.payment
    match by:
        case None:
            is_cancelled = payment.status is PaymentStatus.CANCELLED
            said = "It was cancelled before anything was decided." if is_cancelled else UNDECIDED
        case OutcomeRule.CARD:
            said = _of_card(facts)
        case OutcomeRule.ADDRESS:
            address = payment.method["details"].get("email", "")
            said = f"The PayPal address decided: {address} is a test address, which always ends like this."
        case OutcomeRule.AMOUNT:
            said = _of_amount(payment.amount, payment.currency)
        case OutcomeRule.RATE:
            said = "The success rate and a random number decided, because nothing else did."
        case OutcomeRule.CUSTOMER:
            said = _of_customer(payment.failure_code)
        case OutcomeRule.REQUEST | OutcomeRule.VOIDED | OutcomeRule.ORDER:
            said = _ALWAYS[OutcomeRule(by)]
        case _:
            said = _of_rule(first, by)
    return [said, *(draw.words for draw in draws)]


def _of_card(facts: Facts) -> str:
    payment = facts.payment
    if payment.failure_code == FailureCode.AUTHENTICATION_REQUIRED:
        return "The card decided: it wants the approval of its customer, and the payment has no page for that."
    if name := payment.method.get("name"):
        return f"The payment method decided: {name} is ready-made, and always ends like this."
    last4 = payment.method["details"].get("last4", "")
    return f"The card decided: the number that ends in {last4} is a test number, which always ends like this."


def _of_amount(amount: int, currency: str) -> str:
    digits = amount % 100
    named = AMOUNT_SCENARIOS.get(digits)
    meaning = f" names {explained(named)}" if named else " decides"
    return (
        f"The amount decided: with the setting PAYMENT_FAILURE_SCENARIOS, one like {format_amount(amount, currency)}, "
        f"whose last two digits are {digits:02},{meaning}."
    )


def _of_customer(failure_code: str | None) -> str:
    if failure_code == FailureCode.ACTION_EXPIRED:
        return "The customer decided: there was no answer at the page of the bank or of PayPal in time."
    return "The customer decided: at the page of the bank or of PayPal the payment was declined."


def _of_rule(first: Operation, by: str) -> str:
    rule = _rule_of(first, by) or {}
    name = f'"{rule["name"]}"' if rule.get("name") else "whose name is not on record"
    return f"A rule of an admin decided: {name} ({by.removeprefix(RULE_PREFIX)})."
