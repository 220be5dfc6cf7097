"""What the demo learns: which expectations held, how payments ended and how long that took. It prints nothing."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Broken:
    """An expectation that did not hold."""

    expectation: str
    reason: str


class Checks:
    """Counts the expectations that held and keeps those that did not."""

    def __init__(self) -> None:
        self.held = 0
        self.broken: list[Broken] = []

    def holds(self, expectation: str, is_true: bool, reason: str) -> bool:
        """Note whether `expectation` is true; `reason` says what was found instead."""
        if is_true:
            self.held += 1
        else:
            self.broken.append(Broken(expectation, reason))
        return is_true

    def equal(self, expectation: str, *, expected: object, found: object) -> bool:
        """Note whether `found` is what was expected."""
        return self.holds(expectation, expected == found, f"expected {expected}, found {found}")

    def fail(self, expectation: str, reason: str) -> None:
        """Note that something went wrong."""
        self.holds(expectation, False, reason)

    @property
    def exit_code(self) -> int:
        """0 if something was expected and all of it held, else 1."""
        return 0 if self.held and not self.broken else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One payment from acceptance to webhook; None for what did not happen in time."""

    method_type: str
    status: str
    failure_code: str | None
    accept_ms: float  # from the request to its 202, at the client
    settle_ms: float | None  # from created_at to processed_at
    webhook_ms: float | None  # from processed_at to the verified webhook


@dataclass(frozen=True, slots=True)
class Spread:
    """How a duration is spread over many payments, ms."""

    p50: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How some payments ended."""

    status: str
    failure_code: str | None
    by_method: dict[str, int]

    @property
    def count(self) -> int:
        """With whatever method."""
        return sum(self.by_method.values())


@dataclass(frozen=True, slots=True)
class Summary:
    """Many payments on one page; a spread is None when nothing was measured."""

    outcomes: tuple[Outcome, ...]  # the most frequent first
    accept: Spread | None
    accept_inside: Spread | None  # the service's own part of that
    settle: Spread | None
    webhook: Spread | None
    payments: int
    webhooks: int


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that `percent` of them do not exceed (nearest rank). Raises ValueError if empty."""
    if not values:
        raise ValueError("no values")
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


def summarize(results: Sequence[Result], inside_ms: Sequence[float]) -> Summary:
    """The page for `results`; `inside_ms` is what the service says that it took for each 202."""
    webhook_ms = [result.webhook_ms for result in results if result.webhook_ms is not None]
    return Summary(
        outcomes=_outcomes(results),
        accept=_spread([result.accept_ms for result in results]),
        accept_inside=_spread(inside_ms),
        settle=_spread([result.settle_ms for result in results if result.settle_ms is not None]),
        webhook=_spread(webhook_ms),
        payments=len(results),
        webhooks=len(webhook_ms),
    )


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(percentile(values, 50), percentile(values, 99), max(values))


def _outcomes(results: Sequence[Result]) -> tuple[Outcome, ...]:
    counted = Counter((result.status, result.failure_code, result.method_type) for result in results)
    ends = {(status, code) for status, code, _ in counted}
    outcomes = [
        Outcome(end[0], end[1], {method: count for (*other, method), count in counted.items() if tuple(other) == end})
        for end in ends
    ]
    return tuple(sorted(outcomes, key=lambda outcome: (-outcome.count, outcome.status, outcome.failure_code or "")))
