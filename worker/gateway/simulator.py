"""The simulated gateway: takes as long as a real one, decides like one and keeps books, but moves no money.

It asks its books before its dice: what is on record is answered again, whatever the settings say by now.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import Any, assert_never

from shared.errors import CommitUnknown, DatabaseUnavailable, Overloaded
from shared.lifecycle import FailureCode, MethodType
from worker.gateway.draws import base62, fraction, upper_alphanumeric
from worker.gateway.ledger import Entry, EntryKind, Ledger
from worker.gateway.outcomes import FAILURE_REASONS, Outcome, OutcomeRule, Rules, decide
from worker.gateway.protocol import Answer, Approved, ChargeRequest, Declined, GatewayUnavailable, OutcomeUnknown


class Name(StrEnum):
    """The gateways that are simulated; the words clients see."""

    STRIPE = "stripe_mock"
    SQUARE = "square_mock"
    PAYPAL = "paypal_mock"


STRIPE_SHARE = 7 / 8  # of the card payments
PAYPAL_FEE_BASIS_POINTS, PAYPAL_FEE_FIXED = 349, 49  # PayPal's list price: 3.49 % and 49 minor units

# What of the address matches and the upper end of its share: all, the ZIP, the street; U = the issuer cannot say
AVS_RESULTS = (("Y", 0.85), ("Z", 0.93), ("A", 0.97), ("U", 1.0))
CVC_MATCH, CVC_NO_MATCH = "M", "N"


class SimulatedGateway:
    """A `Gateway` over its own ledger; each try takes a drawn time between the two delays (ms)."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        seed: str | None = None,
        success_rate: float,
        failure_scenarios: bool = False,
        delay_min_ms: int,
        delay_max_ms: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._rules = Rules(seed=seed or "", success_rate=success_rate, amounts_decide=failure_scenarios)
        self._delay_min_ms = delay_min_ms
        self._delay_max_ms = delay_max_ms
        self._sleep = sleep

    async def charge(self, request: ChargeRequest) -> Answer:
        """See `Gateway.charge`. A kill at any moment leaves on record what had happened until then."""
        outcome = decide(request, self._rules)
        to_first_s, to_second_s, to_answer_s = self._waits(request)
        await self._sleep(to_first_s)
        entry = await self._first_step(request, outcome)
        await self._sleep(to_second_s)
        if entry is not None and entry.kind is EntryKind.AUTHORIZE:
            entry = await self._book(replace(entry, kind=EntryKind.CAPTURE))
        await self._sleep(to_answer_s)
        if entry is None:
            raise GatewayUnavailable(outcome.rule)
        return entry.answer

    async def close(self, request: ChargeRequest, failure_code: FailureCode = FailureCode.PROCESSING_ERROR) -> Answer:
        """See `Gateway.close`; answers without delay. Funds that are only authorized are let go."""
        decline = self._closing_entry(request, failure_code)
        entry = await self._book(decline)
        if entry.kind is EntryKind.AUTHORIZE:
            entry = await self._book(replace(decline, kind=EntryKind.VOID))
        return entry.answer

    async def _first_step(self, request: ChargeRequest, outcome: Outcome) -> Entry | None:
        """Authorize, sell or decline, unless that was done before; None if the network fails and nothing was."""
        if outcome.failure is FailureCode.NETWORK_ERROR:
            with _unknown_if_the_books_fail():  # other settings may have let an earlier call through
                return await self._ledger.find(request.payment_id)
        return await self._book(_first_entry(request, outcome, self._rules.seed))

    async def _book(self, entry: Entry) -> Entry:
        with _unknown_if_the_books_fail():
            return await self._ledger.book(entry)

    def _waits(self, request: ChargeRequest) -> tuple[float, float, float]:
        """Seconds until the first step, from there to the second, and to the answer: together the delay of this try."""
        first, second, whole = (
            fraction(self._rules.seed, request.identity, purpose, request.gateway_try)
            for purpose in ("first step", "second step", "delay")
        )
        delay_s = (self._delay_min_ms + whole * (self._delay_max_ms - self._delay_min_ms)) / 1000
        to_first_s = first * delay_s
        to_second_s = second * (delay_s - to_first_s)
        return to_first_s, to_second_s, delay_s - to_first_s - to_second_s

    def _closing_entry(self, request: ChargeRequest, failure_code: FailureCode) -> Entry:
        outcome = decide(request, self._rules)
        rule = outcome.rule if outcome.failure is failure_code else OutcomeRule.CLOSED
        declined = Declined(
            gateway=gateway_of(request, self._rules.seed),
            failure_code=failure_code,
            failure_reason=FAILURE_REASONS[failure_code],
            details={},
            outcome_rule=rule,
        )
        return Entry(request.payment_id, EntryKind.DECLINE, request.amount, request.currency, declined)


@contextmanager
def _unknown_if_the_books_fail() -> Iterator[None]:
    """Also a call that wrote nothing does not know what an earlier one did: the only honest answer is to ask again."""
    try:
        yield
    except (DatabaseUnavailable, CommitUnknown, Overloaded) as error:
        raise OutcomeUnknown(f"the gateway's books: {type(error).__name__}") from error


def _first_entry(request: ChargeRequest, outcome: Outcome, seed: str) -> Entry:
    """What the first message to the network does with the payment."""
    answer: Answer
    if outcome.failure is not None:
        kind, answer = EntryKind.DECLINE, _declined(request, outcome.failure, outcome.rule, seed)
    else:
        kind = EntryKind.AUTHORIZE if request.method_type is MethodType.CREDIT_CARD else EntryKind.SALE
        answer = _approved(request, outcome.rule, seed)
    return Entry(request.payment_id, kind, request.amount, request.currency, answer)


def _approved(request: ChargeRequest, rule: OutcomeRule, seed: str) -> Approved:
    """The id and the details are drawn for the payment, not for its identity: no two payments share an id."""
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


def _declined(request: ChargeRequest, failure: FailureCode, rule: OutcomeRule, seed: str) -> Declined:
    details: dict[str, Any] = {}
    if request.method_type is MethodType.CREDIT_CARD:  # the issuer reports its checks also when it declines
        details = _card_checks(seed, str(request.payment_id))
        if failure is FailureCode.INCORRECT_CVC:
            details["cvc_result"] = CVC_NO_MATCH
    return Declined(gateway_of(request, seed), failure, FAILURE_REASONS[failure], details, rule)


def paypal_fee(amount: int) -> int:
    """PayPal's fee in minor units, rounded half up and never above the amount; integers only."""
    return min(amount, (amount * PAYPAL_FEE_BASIS_POINTS + 5_000) // 10_000 + PAYPAL_FEE_FIXED)


def gateway_of(request: ChargeRequest, seed: str) -> Name:
    """Who processes the payment: always the same for one identity."""
    if request.method_type is MethodType.PAYPAL:
        return Name.PAYPAL
    return Name.STRIPE if fraction(seed, request.identity, "gateway") < STRIPE_SHARE else Name.SQUARE


def _transaction_id(gateway: Name, seed: str, payment: str) -> str:
    match gateway:
        case Name.STRIPE:
            return "ch_" + base62(seed, payment, "transaction", length=24)
        case Name.SQUARE:
            return "sq_" + base62(seed, payment, "transaction", length=20)
        case Name.PAYPAL:
            return "PAY-" + upper_alphanumeric(seed, payment, "transaction", length=17)
        case _:
            assert_never(gateway)


def _authorization_code(seed: str, payment: str) -> str:
    return upper_alphanumeric(seed, payment, "authorization", length=6)


def _card_checks(seed: str, payment: str) -> dict[str, str]:
    drawn = fraction(seed, payment, "avs")
    avs_result = next(result for result, upper in AVS_RESULTS if drawn < upper)
    return {"avs_result": avs_result, "cvc_result": CVC_MATCH}
