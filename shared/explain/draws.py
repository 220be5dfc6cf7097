"""The random numbers that decided something, with their thresholds. Only those of what has happened: no later ones."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import floor
from typing import Any

from shared.explain.facts import Facts, GatewaySettings
from shared.explain.operations import REFUND, MadeCall, Operation
from shared.explain.words import failed_with
from shared.gateway_calls import facts_of, repeatable_key, repeatable_refund_key
from shared.lifecycle import CaptureMethod, MethodType, OutcomeRule, PaymentOperation
from shared.simulation.calls import Call, CallOperation
from shared.simulation.decisions import FAILURE_SHARES, REFUND_NETWORK_ERRORS, Decision
from shared.simulation.delays import CHARGE_SETTLES_MAX_S, CHARGE_SETTLES_MIN_S
from shared.simulation.gateways import STRIPE_SHARE, GatewayName
from shared.simulation.matching import drawn_percent
from shared.simulation.rules import Pace
from shared.simulation.seeded_random import fraction

# Decimals of a number that is shown, and of one that is very near to its threshold.
DECIMALS, DECIMALS_MAX = 4, 12


class Purpose(StrEnum):
    """What a random number was drawn for."""

    OUTCOME = "outcome"
    FAILURE = "failure"
    GATEWAY = "gateway"
    DELAY = "delay"
    RULE = "rule"
    REFUND_NETWORK = "refund_network"
    SETTLES = "settles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A random number from 0 to 1. `threshold` is what it was compared with; None = it was compared with nothing."""

    purpose: Purpose
    value: float
    words: str
    threshold: float | None = None
    call: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the draw as clients see it."""
        return {
            "purpose": self.purpose.value,
            "value": _shown(self.value, self.threshold),
            "threshold": self.threshold,
            "call": self.call,
        }


def _shown(value: float, threshold: float | None) -> float:
    """Return the number with few decimals, cut so that it stays on its side of the threshold."""
    for decimals in range(DECIMALS, DECIMALS_MAX):
        cut: float = floor(value * 10**decimals) / 10**decimals
        if threshold is None or (cut < threshold) == (value < threshold):
            return cut
    return value


def _text(value: float, threshold: float | None = None) -> str:
    """Return the number as it stands in a sentence."""
    return f"{_shown(value, threshold):.{DECIMALS_MAX}f}".rstrip("0").ljust(DECIMALS + 2, "0")


@dataclass(frozen=True, slots=True)
class Draws:
    """Draws again what was drawn for one payment."""

    facts: Facts
    settings: GatewaySettings
    key: str = field(init=False)

    def __post_init__(self) -> None:
        payment, key = self.facts.payment, str(self.facts.payment.id)
        if self.settings.is_seeded:
            key = repeatable_key(payment.user_id, payment.order_id, payment.idempotency_key, earlier=self.facts.earlier)
        object.__setattr__(self, "key", key)

    def refund_key(self, earlier: int, refund_id: str) -> str:
        """Return the key of a refund of the payment."""
        return repeatable_refund_key(self.key, earlier) if self.settings.is_seeded else refund_id

    def of_outcome(self) -> list[Draw]:
        """Return what decided a charge or an authorization; nothing if that was no random number."""
        payment = self.facts.payment
        if payment.outcome_rule != OutcomeRule.RATE:
            return []
        rate, drawn = self.settings.outcomes.success_rate, self._fraction(self.key, "outcome")
        is_below, is_approved = drawn < rate, payment.failure_code is None
        words = (
            f"{_text(drawn, rate)} was drawn, and below {rate:g} is approved: so it was "
            f"{'' if is_below else 'not '}approved."
        )
        if is_below != is_approved:
            words += (
                " But the payment ended in the other way. PAYMENT_SUCCESS_RATE or "
                "SIMULATOR_SEED was another one then, or differs between the processes."
            )
        draws = [Draw(purpose=Purpose.OUTCOME, value=drawn, threshold=rate, words=words)]
        return draws if is_below or is_approved else [*draws, self._failure(str(payment.failure_code))]

    def of_rule(self) -> list[Draw]:
        """Return what made the rule fire that decided, if it is for a part of the operations only."""
        payment, rule = self.facts.payment, self.facts.rule
        if rule is None or rule.match.percent is None:
            return []
        is_manual = payment.capture_method == CaptureMethod.MANUAL
        operation = CallOperation.AUTHORIZE if is_manual else CallOperation.CHARGE
        drawn = drawn_percent(rule, self._call(operation, self.key), seed=self.settings.outcomes.seed) / 100
        threshold = rule.match.percent / 100
        words = f"{_text(drawn, threshold)} was drawn for the rule, and below {threshold:g} it fires."
        return [Draw(purpose=Purpose.RULE, value=drawn, threshold=threshold, words=words)]

    def of_gateway(self) -> list[Draw]:
        """Return what chose the gateway; nothing if none was asked yet, or the method leaves no choice."""
        payment = self.facts.payment
        if payment.gateway is None or payment.method["type"] == MethodType.PAYPAL:
            return []
        drawn = self._fraction(self.key, "gateway")
        words = (
            f"{_text(drawn, STRIPE_SHARE)} was drawn for the gateway: below {STRIPE_SHARE:g} it is "
            f"the simulated gateway {GatewayName.STRIPE}, else {GatewayName.SQUARE}."
        )
        return [Draw(purpose=Purpose.GATEWAY, value=drawn, threshold=STRIPE_SHARE, words=words)]

    def of_call(self, operation: Operation, call: MadeCall, key: str, *, is_pending: bool) -> list[Draw]:
        """Return what decided about one call of an operation, and its delay. `key` is that of the operation.

        `is_pending` says that the gateway answered that it would settle later.
        """
        draws = []
        settings = self.settings
        if operation.name == REFUND and settings.outcomes.success_rate < 1 and not _names_outcome(call):
            drawn = self._fraction(key, "refund network", call.gateway_try)
            is_below = drawn < REFUND_NETWORK_ERRORS
            words = (
                f"{_text(drawn, REFUND_NETWORK_ERRORS)} was drawn, and below {REFUND_NETWORK_ERRORS:g} a call for a "
                f"refund does not reach the gateway: so this one {'did not' if is_below else 'reached it'}."
            )
            threshold = REFUND_NETWORK_ERRORS
            draws.append(
                Draw(purpose=Purpose.REFUND_NETWORK, value=drawn, threshold=threshold, words=words, call=call.number)
            )
        if is_pending and operation.name != REFUND:
            drawn = self._fraction(key, "settles")
            words = (
                f"{_text(drawn)} was drawn for the time until it is settled, between {CHARGE_SETTLES_MIN_S:g} and "
                f"{CHARGE_SETTLES_MAX_S:g} s."
            )
            draws.append(Draw(purpose=Purpose.SETTLES, value=drawn, words=words, call=call.number))
        if _has_drawn_delay(call):
            parts = ("delay",) if operation.is_first else (operation.name, "delay")
            drawn = self._fraction(key, *parts, call.gateway_try)
            words = (
                f"{_text(drawn)} was drawn for its delay, between {settings.delay_min_ms:,} and "
                f"{settings.delay_max_ms:,} ms."
            )
            draws.append(Draw(purpose=Purpose.DELAY, value=drawn, words=words, call=call.number))
        return draws

    def delay_ms(self, operation: Operation, call: MadeCall, key: str) -> int:
        """Return how long the gateway took for a call: as it was steered, else as it is drawn."""
        remark = call.remark or {}
        drawn = replace(self._call(CallOperation.CHARGE, key), gateway_try=call.gateway_try)
        pace = Pace(remark["pace"]) if remark.get("pace") else Pace.DRAWN
        decision = Decision(failure=None, rule="", delay_ms=remark.get("delay_ms"), pace=pace)
        delays = self.settings.delays
        if operation.is_first:
            return round(sum(delays.of_charge(drawn, decision)) * 1000)
        steered = None if operation.name == PaymentOperation.VOID else decision
        return round(sum(delays.of_operation(operation.name, drawn, steered)) * 1000)

    def _call(self, operation: CallOperation, key: str) -> Call:
        payment = self.facts.payment
        return Call(seed_key=key, amount=payment.amount, operation=operation, **facts_of(payment))

    def _failure(self, code: str) -> Draw:
        payment, drawn = self.facts.payment, self._fraction(self.key, "failure")
        low = high = 0
        named = None
        for failure, percent in FAILURE_SHARES[MethodType(payment.method["type"])].items():
            low, high = high, high + percent
            if drawn * 100 < high:
                named = failure
                break
        words = (
            f"{_text(drawn, high / 100)} was drawn for the failure code: from {low / 100:g} to {high / 100:g} is "
            f"{failed_with(str(named))}."
        )
        if named != code:
            words += f" The payment failed with {failed_with(code)}: SIMULATOR_SEED was another one then."
        return Draw(purpose=Purpose.FAILURE, value=drawn, threshold=high / 100, words=words)

    def _fraction(self, key: str, *parts: str | int) -> float:
        return fraction(self.settings.outcomes.seed, key, *parts)


def _names_outcome(call: MadeCall) -> bool:
    return call.remark is not None and call.remark["outcome"] is not None


def _has_drawn_delay(call: MadeCall) -> bool:
    remark = call.remark or {}
    return remark.get("delay_ms") is None and remark.get("pace") in {None, Pace.SLOW.value}
