"""What the simulated gateways answer: the forms of their ids, and what they report of a payment."""

from typing import Any, assert_never

from shared.lifecycle import FailureCode, MethodType, OutcomeRule
from shared.payments.outcomes import Approved, Declined, GatewayAnswer
from shared.simulation.gateways import GatewayName
from worker.gateway.ledger import Entry, EntryKind
from shared.simulation.decisions import FAILURE_REASONS, SimulatedOutcome
from shared.gateway_calls import SimulatedRequest
from shared.simulation.seeded_random import base62, fraction, upper_alphanumeric

# The part of card payments that go to Stripe; the others go to Square.
STRIPE_SHARE = 7 / 8
# PayPal's list price: 3.49 % and 49 minor units.
PAYPAL_FEE_BASIS_POINTS, PAYPAL_FEE_FIXED = 349, 49

# Results of the address verification with the upper end of their shares: Y = street and ZIP match, Z = the ZIP,
# A = the street, U = the issuer does not know.
AVS_RESULTS = (("Y", 0.85), ("Z", 0.93), ("A", 0.97), ("U", 1.0))
# Results of the check of the security code.
CVC_MATCH, CVC_NO_MATCH = "M", "N"


def first_entry(request: SimulatedRequest, outcome: SimulatedOutcome, seed: str, *, is_held: bool) -> Entry:
    """Return the entry of the first step: a decline, an authorization, or a sale.

    Credit cards are authorized first in any case; with `is_held` the other methods are, too.
    """
    answer: GatewayAnswer
    if outcome.failure is not None:
        kind, answer = EntryKind.DECLINE, declined(request, outcome.failure, outcome.rule, seed)
    else:
        is_held = is_held or request.method_type is MethodType.CREDIT_CARD
        kind, answer = EntryKind.AUTHORIZE if is_held else EntryKind.SALE, approved(request, outcome.rule, seed)
    return Entry(request.payment_id, kind, request.amount, request.currency, answer)


def approved(request: SimulatedRequest, rule: OutcomeRule, seed: str) -> Approved:
    """Return an approval. Its id and details are drawn for the payment's id, not for its seed key.

    Otherwise two payments with the same seed key would share a transaction id.
    """
    payment = str(request.payment_id)
    gateway = gateway_of(request, seed)
    details: dict[str, Any]
    match request.method_type:
        case MethodType.CREDIT_CARD:
            details = {"authorization_code": _authorization_code(seed, payment)} | _card_checks(request, seed)
        case MethodType.DEBIT_CARD:
            details = {"authorization_code": _authorization_code(seed, payment)}
        case MethodType.PAYPAL:
            details = {
                "payer_id": upper_alphanumeric(seed, payment, "payer", length=13),
                "fee": {"amount": paypal_fee(request.amount), "currency": request.currency},
            }
        case _:
            assert_never(request.method_type)
    return Approved(gateway, transaction_id(gateway, seed, payment), details, rule)


def declined(request: SimulatedRequest, failure: FailureCode, rule: OutcomeRule, seed: str) -> Declined:
    """Return a decline."""
    details: dict[str, Any] = {}
    # The issuer reports the results of its checks also when it declines.
    if request.method_type is MethodType.CREDIT_CARD:
        details = _card_checks(request, seed)
        if failure is FailureCode.INCORRECT_CVC:
            details["cvc_result"] = CVC_NO_MATCH
    return Declined(gateway_of(request, seed), failure, FAILURE_REASONS[failure], details, rule)


def paypal_fee(amount: int) -> int:
    """Return PayPal's fee in minor units, rounded half up, never above the amount; computed in integers only."""
    return min(amount, (amount * PAYPAL_FEE_BASIS_POINTS + 5_000) // 10_000 + PAYPAL_FEE_FIXED)


def gateway_of(request: SimulatedRequest, seed: str) -> GatewayName:
    """Return the gateway that processes the payment, always the same for one seed key."""
    if request.method_type is MethodType.PAYPAL:
        return GatewayName.PAYPAL
    return GatewayName.STRIPE if fraction(seed, request.seed_key, "gateway") < STRIPE_SHARE else GatewayName.SQUARE


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


def _card_checks(request: SimulatedRequest, seed: str) -> dict[str, str]:
    if request.scenario is not None and request.scenario.checks is not None:
        return request.scenario.checks.to_json()
    drawn = fraction(seed, str(request.payment_id), "avs")
    avs_result = next(result for result, upper in AVS_RESULTS if drawn < upper)
    return {"avs_result": avs_result, "cvc_result": CVC_MATCH}
