"""The plan of a load: which intents it has and when each one arrives. The same plan always gives the same load.

A plan must know nothing of the server, so that nothing that the server does can slow the arrivals down.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from random import Random
from typing import assert_never

from cli.options import Shape
from shared.lifecycle import MethodType

# Payments per second, also within a burst. One process cannot send many more.
RATE_MAX = 5_000
RATE_MIN = 0.1
DURATION_MIN_S, DURATION_MAX_S = 1, 600
# Intents of one run. Each accepted payment is kept in memory and read again at the end.
TOTAL_MAX = 500_000
BURST_EVERY_S = 5
# A burst is this many times as fast as the rate, so it lasts a fifth of its period.
BURST_SHARE = 5
WEIGHT_MAX = 1000
# Amounts of payments in minor units.
AMOUNT_MIN, AMOUNT_MAX = 500, 50_000
METHODS = {"credit": MethodType.CREDIT_CARD, "debit": MethodType.DEBIT_CARD, "paypal": MethodType.PAYPAL}


class RefundPlan(StrEnum):
    """How a payment of the load is refunded."""

    WHOLE = "whole"
    PART = "part"
    # Two refunds at once that are together more than what was captured.
    TOO_MUCH = "too much"


# A debit card moves the money at once, so there is nothing to capture later.
CAPTURED_LATER = (MethodType.CREDIT_CARD, MethodType.PAYPAL)


class Refused(Exception):
    """The options make no sense or would do harm. The text is for the person who gave them."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A payment that the load is going to request."""

    # The number of the intent, from 1.
    number: int
    # Seconds from the start of the run to the arrival.
    at_s: float
    method: MethodType
    # In minor units.
    amount: int
    # Authorized only, and captured by a request of its own.
    is_captured: bool = False
    # None if it is not refunded.
    refund: RefundPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The parameters of a load; `refuse_absurd` checks their bounds."""

    # Payments per second: the final rate of a ramp, the mean rate of the other shapes.
    rate: float
    duration_s: float
    shape: Shape
    # The weight of each type of payment method.
    mix: Mapping[MethodType, int]
    seed: str
    # The share of the payments by credit card and PayPal that are captured later, and of all that are refunded.
    captures: float = 0.0
    refunds: float = 0.0

    @property
    def expected(self) -> float:
        """The mean number of intents."""
        return self.rate * self.duration_s * (0.5 if self.shape is Shape.RAMP else 1)

    @property
    def peak_rate(self) -> float:
        """The highest planned rate, in payments per second."""
        return self.rate * (BURST_SHARE if self.shape is Shape.BURST else 1)

    def intents(self) -> Iterator[Intent]:
        """Iterate over the intents in the order of arrival. They are the same every time."""
        random = Random(f"{self.seed}:intents")  # noqa: S311 - no secret
        # Drawn apart, so that captures and refunds change no arrival, method or amount.
        later = Random(f"{self.seed}:later")  # noqa: S311 - no secret
        methods = _methods(self.mix, random)
        for number, at_s in enumerate(islice(self.arrivals_s(), TOTAL_MAX), start=1):
            method, amount = next(methods), random.randint(AMOUNT_MIN, AMOUNT_MAX)
            is_captured = later.random() < self.captures and method in CAPTURED_LATER
            is_refunded, refund = later.random() < self.refunds, later.choice(list(RefundPlan))
            yield Intent(number, at_s, method, amount, is_captured, refund if is_refunded else None)

    @property
    def has_later_steps(self) -> bool:
        """Some payments are captured or refunded."""
        return self.captures > 0 or self.refunds > 0

    def arrivals_s(self) -> Iterator[float]:
        """Iterate over the arrivals in seconds after the start: ascending, at least 0 and before the end."""
        match self.shape:
            case Shape.STEADY:
                return _steady(self.rate, self.duration_s)
            case Shape.RAMP:
                return _ramp(self.rate, self.duration_s)
            case Shape.BURST:
                return _burst(self.rate, self.duration_s)
            case Shape.POISSON:
                return _poisson(self.rate, self.duration_s, Random(f"{self.seed}:arrivals"))  # noqa: S311 - no secret
            case _:
                assert_never(self.shape)

    @property
    def description(self) -> str:
        """The plan in one line, for people."""
        names = {method: name for name, method in METHODS.items()}
        mix = ", ".join(f"{names[method]} {weight}" for method, weight in self.mix.items() if weight)
        shares = {"captures": self.captures, "refunds": self.refunds}
        later = "".join(f" · {name} {share:g}" for name, share in shares.items() if share)
        return f"{self.shape} {self.rate:g}/s for {self.duration_s:g} s · {mix}{later}"


def refuse_absurd(plan: Plan) -> Plan:
    """Return the plan if it is within bounds. Raises Refused, which names each bound that the plan exceeds."""
    wrong = []
    # The comparisons are written so that they also refuse "not a number".
    if not RATE_MIN <= plan.rate <= RATE_MAX:
        wrong.append(f"--rate {plan.rate:g}: the rate must be between {RATE_MIN:g} and {RATE_MAX:,} per second.")
    elif not plan.peak_rate <= RATE_MAX:
        wrong.append(
            f"--rate {plan.rate:g}: a burst is {BURST_SHARE} times as fast, and {plan.peak_rate:,.0f} per second are "
            f"more than {RATE_MAX:,}."
        )
    if not DURATION_MIN_S <= plan.duration_s <= DURATION_MAX_S:
        wrong.append(
            f"--duration {plan.duration_s:g}: the duration must be between {DURATION_MIN_S} and {DURATION_MAX_S} s."
        )
    for option, share in (("--captures", plan.captures), ("--refunds", plan.refunds)):
        if not 0 <= share <= 1:
            wrong.append(f"{option} {share:g}: the share must be between 0 and 1, such as 0.1 for a tenth.")
    if not wrong and plan.expected > TOTAL_MAX:
        wrong.append(f"--rate and --duration make {plan.expected:,.0f} payments. One run has at most {TOTAL_MAX:,}.")
    if wrong:
        raise Refused("\n".join(wrong))
    return plan


def parse_mix(text: str) -> dict[MethodType, int]:
    """Return the weight of each method from a text such as `credit=6,debit=3,paypal=1`. Raises Refused."""
    mix: dict[MethodType, int] = {}
    for part in text.split(","):
        name, _, weight = (word.strip().lower() for word in part.partition("="))
        if name not in METHODS or not (weight.isascii() and weight.isdigit()):
            raise Refused(f"--mix {text}: write weights of {', '.join(METHODS)}, such as credit=6,debit=3,paypal=1.")
        if METHODS[name] in mix:
            raise Refused(f"--mix {text}: {name} is given twice.")
        if int(weight) > WEIGHT_MAX:
            raise Refused(f"--mix {text}: a weight must be at most {WEIGHT_MAX}.")
        mix[METHODS[name]] = int(weight)
    if not sum(mix.values()):
        raise Refused(f"--mix {text}: one weight must be more than 0.")
    return mix


def _steady(rate: float, duration_s: float) -> Iterator[float]:
    for index in range(round(rate * duration_s)):
        yield index / rate


def _ramp(rate: float, duration_s: float) -> Iterator[float]:
    """Solve t from the number of arrivals until t, which is rate * t^2 / (2 * duration)."""
    for index in range(round(rate * duration_s / 2)):
        yield math.sqrt((2 * index + 1) * duration_s / rate)


def _burst(rate: float, duration_s: float) -> Iterator[float]:
    """Put the arrivals of each period into its first fifth."""
    for period in range(math.ceil(duration_s / BURST_EVERY_S)):
        begin = period * BURST_EVERY_S
        end = min(begin + BURST_EVERY_S, duration_s)
        count = round(rate * end) - round(rate * begin)
        for index in range(count):
            yield begin + index / (rate * BURST_SHARE)


def _poisson(rate: float, duration_s: float, random: Random) -> Iterator[float]:
    at_s = random.expovariate(rate)
    while at_s < duration_s:
        yield at_s
        at_s += random.expovariate(rate)


def _methods(mix: Mapping[MethodType, int], random: Random) -> Iterator[MethodType]:
    """Iterate over shuffled rounds. A round has each method in proportion to its weight, as few as possible."""
    divisor = math.gcd(*mix.values())
    while True:
        turn = [method for method, weight in mix.items() for _ in range(weight // divisor)]
        random.shuffle(turn)
        yield from turn
