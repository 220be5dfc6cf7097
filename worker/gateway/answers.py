"""What the simulated gateways answer: the forms of their ids, and what they report of a payment."""

from typing import Any, assert_never

from shared.failure_reasons import FAILURE_REASONS
from shared.lifecycle import FailureCode, MethodType
from shared.payments.outcomes import Approved, Declined, GatewayAnswer
from shared.simulation.calls import Call
from shared.simulation.decisions import Decision
from shared.simulation.gateways import GatewayName, gateway_of
from shared.simulation.ledger_entries import EntryKind
from shared.simulation.seeded_random import base62, fraction, upper_alphanumeric
from worker.gateway.ledger import Entry

# PayPal's list price: 3.49 % and 49 minor units.
PAYPAL_FEE_BASIS_POINTS, PAYPAL_FEE_FIXED = 349, 49

# Results of the address verification with the upper end of their shares: Y = street and ZIP match, Z = the ZIP,
# A = the street, U = the issuer does not know.
AVS_RESULTS = (("Y", 0.85), ("Z", 0.93), ("A", 0.97), ("U", 1.0))
# Results of the check of the security code.
CVC_MATCH, CVC_NO_MATCH = "M", "N"


def first_entry(call: Call, answer: GatewayAnswer, *, is_held: bool) -> Entry:
    """Return the entry of the first step: a decline, an authorization, or a sale.

    Credit cards are authorized first in any case; with `is_held` the other methods are, too.
    """
    kind = EntryKind.DECLINE
    if isinstance(answer, Approved):
        is_held = is_held or call.method_type is MethodType.CREDIT_CARD
        kind = EntryKind.AUTHORIZE if is_held else EntryKind.SALE
    return Entry(call.payment_id, kind, call.amount, call.currency, answer)


def first_answer(call: Call, decision: Decision, seed: str) -> GatewayAnswer | None:
    """Return what a charge or an authorization is answered; None if nothing happens."""
    if decision.is_unreachable:
        return None
    if decision.failure is None:
        return approved(call, decision, seed)
    return declined(call, FailureCode(decision.failure), decision, seed)


def approved(call: Call, decision: Decision, seed: str) -> Approved:
    """Return an approval. Its id and details are drawn for the payment's id, not for its seed key.

    Otherwise two payments with the same seed key would share a transaction id.
    """
    payment = str(call.payment_id)
    gateway = gateway_of(call, seed)
    details: dict[str, Any]
    match call.method_type:
        case MethodType.CREDIT_CARD:
            details = {"authorization_code": _authorization_code(seed, payment)} | _card_checks(call, seed)
        case MethodType.DEBIT_CARD:
            details = {"authorization_code": _authorization_code(seed, payment)}
        case MethodType.PAYPAL:
            details = {
                "payer_id": upper_alphanumeric(seed, payment, "payer", length=13),
                "fee": {"amount": paypal_fee(call.amount), "currency": call.currency},
            }
        case _:
            assert_never(call.method_type)
    return Approved(gateway, transaction_id(gateway, seed, payment), details, decision.rule, decision.remark)


def declined(call: Call, failure: FailureCode, decision: Decision, seed: str) -> Declined:
    """Return a decline."""
    details: dict[str, Any] = {}
    # The issuer reports the results of its checks also when it declines.
    if call.method_type is MethodType.CREDIT_CARD:
        details = _card_checks(call, seed)
        if failure is FailureCode.INCORRECT_CVC:
            details["cvc_result"] = CVC_NO_MATCH
    return Declined(gateway_of(call, seed), failure, FAILURE_REASONS[failure], details, decision.rule, decision.remark)


def paypal_fee(amount: int) -> int:
    """Return PayPal's fee in minor units, rounded half up, never above the amount; computed in integers only."""
    return min(amount, (amount * PAYPAL_FEE_BASIS_POINTS + 5_000) // 10_000 + PAYPAL_FEE_FIXED)


def transaction_id(gateway: GatewayName, seed: str, payment: str) -> str:
    """Return the gateway's id of a charge or an authorization, drawn for our id of the payment."""
    match gateway:
        case GatewayName.STRIPE:
            return "ch_" + base62(seed, payment, "transaction", length=24)
        case GatewayName.SQUARE:
            return "sq_" + base62(seed, payment, "transaction", length=20)
        case GatewayName.PAYPAL:
            return "PAY-" + upper_alphanumeric(seed, payment, "transaction", length=17)
        case _:
            assert_never(gateway)


def refund_id(gateway: str, seed: str, refund: str) -> str:
    """Return the gateway's id of a refund, drawn for our id of it."""
    match GatewayName(gateway):
        case GatewayName.STRIPE:
            return "re_" + base62(seed, refund, "refund", length=24)
        case GatewayName.SQUARE:
            return "sqr_" + base62(seed, refund, "refund", length=20)
        case GatewayName.PAYPAL:
            return "REF-" + upper_alphanumeric(seed, refund, "refund", length=17)


def _authorization_code(seed: str, payment: str) -> str:
    return upper_alphanumeric(seed, payment, "authorization", length=6)


def _card_checks(call: Call, seed: str) -> dict[str, str]:
    if call.scenario is not None and call.scenario.checks is not None:
        return call.scenario.checks.to_json()
    drawn = fraction(seed, str(call.payment_id), "avs")
    avs_result = next(result for result, upper in AVS_RESULTS if drawn < upper)
    return {"avs_result": avs_result, "cvc_result": CVC_MATCH}
