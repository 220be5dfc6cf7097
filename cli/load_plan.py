"""What a load is made of: which intents, and when each arrives. Pure: the same plan is the same load every time.

A plan knows nothing of the server, so nothing that the server does can slow it down.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from random import Random
from typing import assert_never

from shared.lifecycle import MethodType

RATE_MAX = 5_000  # per second, also at the peak of a burst: one process cannot send much more
RATE_MIN = 0.1
DURATION_MIN_S, DURATION_MAX_S = 1, 600
TOTAL_MAX = 500_000  # intents: every accepted payment is kept in memory and looked at again in the end
BURST_EVERY_S = 5
BURST_SHARE = 5  # a burst is this many times as fast as the rate, and lasts a fifth of the time
WEIGHT_MAX = 1000
AMOUNT_MIN, AMOUNT_MAX = 500, 50_000  # minor units
METHODS = {"credit": MethodType.CREDIT_CARD, "debit": MethodType.DEBIT_CARD, "paypal": MethodType.PAYPAL}


class Refused(Exception):
    """What was asked for makes no sense or would do harm; the text is for the person who asked."""


class Shape(StrEnum):
    """How arrivals are spread over the time."""

    STEADY = "steady"  # always the same distance
    RAMP = "ramp"  # from nothing up to the rate
    BURST = "burst"  # all that five seconds bring in the first of them
    POISSON = "poisson"  # independent customers


@dataclass(frozen=True, slots=True)
class Intent:
    """One payment to come."""

    number: int  # from 1
    at_s: float  # after the start
    method: MethodType
    amount: int  # minor units


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One load, within bounds. `refuse_absurd` has looked at it."""

    rate: float  # per second; of a ramp its end, of the others the mean
    duration_s: float
    shape: Shape
    mix: Mapping[MethodType, int]  # weights
    seed: str

    @property
    def expected(self) -> float:
        """How many intents, on average."""
        return self.rate * self.duration_s * (0.5 if self.shape is Shape.RAMP else 1)

    @property
    def peak_rate(self) -> float:
        """The highest rate that is meant, per second."""
        return self.rate * (BURST_SHARE if self.shape is Shape.BURST else 1)

    def intents(self) -> Iterator[Intent]:
        """All of it in the order of arrival; the same every time."""
        random = Random(f"{self.seed}:intents")  # noqa: S311 - a load, no secret
        methods = _methods(self.mix, random)
        for number, at_s in enumerate(islice(self.arrivals_s(), TOTAL_MAX), start=1):
            yield Intent(number, at_s, next(methods), random.randint(AMOUNT_MIN, AMOUNT_MAX))

    def arrivals_s(self) -> Iterator[float]:
        """When they come, in s after the start: ascending, from 0 and before the end."""
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
    def words(self) -> str:
        """The plan in a line."""
        names = {method: name for name, method in METHODS.items()}
        mix = ", ".join(f"{names[method]} {weight}" for method, weight in self.mix.items() if weight)
        return f"{self.shape} {self.rate:g}/s for {self.duration_s:g} s · {mix}"


def refuse_absurd(plan: Plan) -> Plan:
    """The plan, if it is within bounds. Raises Refused, which names every bound that it breaks."""
    wrong = []
    if not RATE_MIN <= plan.rate <= RATE_MAX:  # written so that "not a number" is refused too
        wrong.append(f"--rate {plan.rate:g}: must be between {RATE_MIN:g} and {RATE_MAX:,} per second")
    elif not plan.peak_rate <= RATE_MAX:
        wrong.append(
            f"--rate {plan.rate:g}: a burst is {BURST_SHARE} times as fast, and {plan.peak_rate:,.0f} is above "
            f"{RATE_MAX:,} per second"
        )
    if not DURATION_MIN_S <= plan.duration_s <= DURATION_MAX_S:
        wrong.append(f"--duration {plan.duration_s:g}: must be between {DURATION_MIN_S} and {DURATION_MAX_S} s")
    if not wrong and plan.expected > TOTAL_MAX:
        wrong.append(f"--rate and --duration make {plan.expected:,.0f} payments: at most {TOTAL_MAX:,} in one run")
    if wrong:
        raise Refused("\n".join(wrong))
    return plan


def parse_shape(text: str) -> Shape:
    """The shape of this name. Raises Refused."""
    try:
        return Shape(text.strip().lower())
    except ValueError:
        raise Refused(f"--shape {text}: is one of {', '.join(Shape)}") from None


def parse_mix(text: str) -> dict[MethodType, int]:
    """Weights by method, from `credit=6,debit=3,paypal=1`. Raises Refused."""
    mix: dict[MethodType, int] = {}
    for part in text.split(","):
        name, _, weight = (word.strip().lower() for word in part.partition("="))
        if name not in METHODS or not (weight.isascii() and weight.isdigit()):
            raise Refused(f"--mix {text}: write weights of {', '.join(METHODS)}, such as credit=6,debit=3,paypal=1")
        if METHODS[name] in mix:
            raise Refused(f"--mix {text}: {name} is there twice")
        if int(weight) > WEIGHT_MAX:
            raise Refused(f"--mix {text}: a weight is at most {WEIGHT_MAX}")
        mix[METHODS[name]] = int(weight)
    if not sum(mix.values()):
        raise Refused(f"--mix {text}: nothing is left to pay with")
    return mix


def _steady(rate: float, duration_s: float) -> Iterator[float]:
    for index in range(round(rate * duration_s)):
        yield index / rate


def _ramp(rate: float, duration_s: float) -> Iterator[float]:
    """By t, rate * t^2 / (2 * duration) have come."""
    for index in range(round(rate * duration_s / 2)):
        yield math.sqrt((2 * index + 1) * duration_s / rate)


def _burst(rate: float, duration_s: float) -> Iterator[float]:
    """Each period brings what the rate brings in it, in its first fifth."""
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
    """Every round has each method as often as its weight says, shuffled."""
    divisor = math.gcd(*mix.values())
    while True:
        turn = [method for method, weight in mix.items() for _ in range(weight // divisor)]
        random.shuffle(turn)
        yield from turn
