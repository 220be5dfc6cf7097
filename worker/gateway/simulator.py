"""The simulated gateway: takes as long as a real one, decides like one and keeps a ledger, but moves no money.

The ledger wins over the random numbers: what an earlier call recorded is returned again, also after the settings have
changed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import Any, assert_never

from shared.errors import CommitUnknown, DatabaseUnavailable, Overloaded
from shared.lifecycle import FailureCode, MethodType, OutcomeRule
from shared.payments.outcomes import Approved, Declined, GatewayAnswer
from shared.payments.payment import Payment
from worker.gateway.ledger import Entry, EntryKind, Ledger
from worker.gateway.outcomes import FAILURE_REASONS, OutcomeSettings, SimulatedOutcome, decide_outcome
from worker.gateway.protocol import GatewayUnavailable, OutcomeUnknown
from worker.gateway.requests import SeedKeys, SimulatedRequest, UnseededKeys, simulated_request
from worker.gateway.seeded_random import base62, fraction, upper_alphanumeric


class GatewayName(StrEnum):
    """The gateways that are simulated; the names that clients see."""

    STRIPE = "stripe_mock"
    SQUARE = "square_mock"
    PAYPAL = "paypal_mock"


# The part of card payments that go to Stripe; the others go to Square.
STRIPE_SHARE = 7 / 8
# PayPal's list price: 3.49 % and 49 minor units.
PAYPAL_FEE_BASIS_POINTS, PAYPAL_FEE_FIXED = 349, 49

# Results of the address verification with the upper end of their shares: Y = street and ZIP match, Z = the ZIP,
# A = the street, U = the issuer does not know.
AVS_RESULTS = (("Y", 0.85), ("Z", 0.93), ("A", 0.97), ("U", 1.0))
# Results of the check of the security code.
CVC_MATCH, CVC_NO_MATCH = "M", "N"


class SimulatedGateway:
    """A `Gateway` with its own ledger. Each charge takes a random time between the two delays (milliseconds).

    `seed_keys` finds the key for which a payment's random numbers are drawn; without it, that is the payment's id.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        seed: str | None = None,
        seed_keys: SeedKeys | None = None,
        success_rate: float,
        failure_scenarios: bool = False,
        delay_min_ms: int,
        delay_max_ms: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._seed_keys = seed_keys or UnseededKeys()
        self._rules = OutcomeSettings(seed=seed or "", success_rate=success_rate, uses_test_amounts=failure_scenarios)
        self._delay_min_ms = delay_min_ms
        self._delay_max_ms = delay_max_ms
        self._sleep = sleep

    async def charge(self, payment: Payment) -> GatewayAnswer:
        """See `Gateway.charge`. If the process is killed, the ledger has what had happened until then."""
        request = await self._request(payment)
        outcome = decide_outcome(request, self._rules)
        to_first_s, to_second_s, to_answer_s = self._delays_s(request)
        await self._sleep(to_first_s)
        entry = await self._first_step(request, outcome)
        await self._sleep(to_second_s)
        if entry is not None and entry.kind is EntryKind.AUTHORIZE:
            entry = await self._record_entry(replace(entry, kind=EntryKind.CAPTURE))
        await self._sleep(to_answer_s)
        if entry is None:
            raise GatewayUnavailable(outcome.rule)
        return entry.answer

    async def void_or_fetch(
        self, payment: Payment, failure_code: FailureCode = FailureCode.PROCESSING_ERROR
    ) -> GatewayAnswer:
        """See `Gateway.void_or_fetch`. Answers without delay; funds that are only authorized are released."""
        request = await self._request(payment)
        decline = self._decline_entry(request, failure_code)
        entry = await self._record_entry(decline)
        if entry.kind is EntryKind.AUTHORIZE:
            entry = await self._record_entry(replace(decline, kind=EntryKind.VOID))
        return entry.answer

    async def _request(self, payment: Payment) -> SimulatedRequest:
        with _ledger_errors_as_unknown():
            return await simulated_request(payment, self._seed_keys)

    async def _first_step(self, request: SimulatedRequest, outcome: SimulatedOutcome) -> Entry | None:
        """Authorize, charge or decline unless an earlier call did. Return None if the network fails and none did."""
        if outcome.failure is FailureCode.NETWORK_ERROR:
            # With other settings an earlier call may have reached the network.
            with _ledger_errors_as_unknown():
                return await self._ledger.find(request.payment_id)
        return await self._record_entry(_first_entry(request, outcome, self._rules.seed))

    async def _record_entry(self, entry: Entry) -> Entry:
        with _ledger_errors_as_unknown():
            return await self._ledger.record_entry(entry)

    def _delays_s(self, request: SimulatedRequest) -> tuple[float, float, float]:
        """Return the seconds before the first step, the second step and the answer: together the delay of this try."""
        first, second, whole = (
            fraction(self._rules.seed, request.seed_key, purpose, request.gateway_try)
            for purpose in ("first step", "second step", "delay")
        )
        delay_s = (self._delay_min_ms + whole * (self._delay_max_ms - self._delay_min_ms)) / 1000
        to_first_s = first * delay_s
        to_second_s = second * (delay_s - to_first_s)
        return to_first_s, to_second_s, delay_s - to_first_s - to_second_s

    def _decline_entry(self, request: SimulatedRequest, failure_code: FailureCode) -> Entry:
        outcome = decide_outcome(request, self._rules)
        rule = outcome.rule if outcome.failure is failure_code else OutcomeRule.VOIDED
        declined = Declined(
            gateway=gateway_of(request, self._rules.seed),
            failure_code=failure_code,
            failure_reason=FAILURE_REASONS[failure_code],
            details={},
            outcome_rule=rule,
        )
        return Entry(request.payment_id, EntryKind.DECLINE, request.amount, request.currency, declined)


@contextmanager
def _ledger_errors_as_unknown() -> Iterator[None]:
    """Turn an error of the ledger into OutcomeUnknown: even if this call wrote nothing, an earlier one may have."""
    try:
        yield
    except (DatabaseUnavailable, CommitUnknown, Overloaded) as error:
        raise OutcomeUnknown(f"the gateway's ledger: {type(error).__name__}") from error


def _first_entry(request: SimulatedRequest, outcome: SimulatedOutcome, seed: str) -> Entry:
    """Return the entry of the first step: a decline, an authorization of a credit card, or a sale."""
    answer: GatewayAnswer
    if outcome.failure is not None:
        kind, answer = EntryKind.DECLINE, _declined(request, outcome.failure, outcome.rule, seed)
    else:
        kind = EntryKind.AUTHORIZE if request.method_type is MethodType.CREDIT_CARD else EntryKind.SALE
        answer = _approved(request, outcome.rule, seed)
    return Entry(request.payment_id, kind, request.amount, request.currency, answer)


def _approved(request: SimulatedRequest, rule: OutcomeRule, seed: str) -> Approved:
    """Return an approval. Its id and details are drawn for the payment's id, not for its seed key.

    Otherwise two payments with the same seed key would share a transaction id.
    """
    payment = str(request.payment_id)
    gateway = gateway_of(request, seed)
    details: dict[str, Any]
    match request.method_type:
        case MethodType.CREDIT_CARD:
            details = {"authorization_code": _authorization_code(seed, payment)} | _card_checks(seed, payment)
        case MethodType.DEBIT_CARD:
            details = {"authorization_code": _authorization_code(seed, payment)}
        case MethodType.PAYPAL:
            details = {
                "payer_id": upper_alphanumeric(seed, payment, "payer", length=13),
                "fee": {"amount": paypal_fee(request.amount), "currency": request.currency},
            }
        case _:
            assert_never(request.method_type)
    return Approved(gateway, _transaction_id(gateway, seed, payment), details, rule)


def _declined(request: SimulatedRequest, failure: FailureCode, rule: OutcomeRule, seed: str) -> Declined:
    details: dict[str, Any] = {}
    # The issuer reports the results of its checks also when it declines.
    if request.method_type is MethodType.CREDIT_CARD:
        details = _card_checks(seed, str(request.payment_id))
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


def _transaction_id(gateway: GatewayName, seed: str, payment: str) -> str:
    match gateway:
        case GatewayName.STRIPE:
            return "ch_" + base62(seed, payment, "transaction", length=24)
        case GatewayName.SQUARE:
            return "sq_" + base62(seed, payment, "transaction", length=20)
        case GatewayName.PAYPAL:
            return "PAY-" + upper_alphanumeric(seed, payment, "transaction", length=17)
        case _:
            assert_never(gateway)


def _authorization_code(seed: str, payment: str) -> str:
    return upper_alphanumeric(seed, payment, "authorization", length=6)


def _card_checks(seed: str, payment: str) -> dict[str, str]:
    drawn = fraction(seed, payment, "avs")
    avs_result = next(result for result, upper in AVS_RESULTS if drawn < upper)
    return {"avs_result": avs_result, "cvc_result": CVC_MATCH}
