"""The results of the demo: which checks held, how payments ended and how long that took. It prints nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cli.percentiles import percentile


@dataclass(frozen=True, slots=True)
class BrokenExpectation:
    """An expectation that did not hold, with what was found instead."""

    expectation: str
    reason: str


class Checks:
    """The expectations that were checked: a count of those that held, and a list of those that did not."""

    def __init__(self) -> None:
        self.held = 0
        self.broken: list[BrokenExpectation] = []

    def holds(self, expectation: str, is_true: bool, reason: str) -> bool:
        """Note whether `expectation` is true. `reason` says what was found instead."""
        if is_true:
            self.held += 1
        else:
            self.broken.append(BrokenExpectation(expectation, reason))
        return is_true

    def equal(self, expectation: str, *, expected: object, found: object) -> bool:
        """Note whether `found` equals `expected`."""
        return self.holds(expectation, expected == found, f"expected {expected}, found {found}")

    def fail(self, expectation: str, reason: str) -> None:
        """Note that `expectation` does not hold."""
        self.holds(expectation, False, reason)

    @property
    def exit_code(self) -> int:
        """0 if at least one expectation was checked and all held, else 1."""
        return 0 if self.held and not self.broken else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One payment, from its request to its webhook. A duration is None if its end did not come in time."""

    method_type: str
    status: str
    failure_code: str | None
    # From the request to its 202, measured by the client.
    accept_ms: float
    # From `created_at` to `processed_at`.
    settle_ms: float | None
    # From `processed_at` to the verified webhook.
    webhook_ms: float | None


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of a duration over many payments, in ms."""

    p50: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many payments had the same end, by type of their payment method."""

    status: str
    failure_code: str | None
    by_method: dict[str, int]

    @property
    def count(self) -> int:
        """The number of payments, of all types."""
        return sum(self.by_method.values())


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary of many payments. A spread is None if nothing was measured."""

    # The most frequent outcome comes first.
    outcomes: tuple[Outcome, ...]
    accept: Spread | None
    # The part of `accept` that the service took.
    accept_inside: Spread | None
    settle: Spread | None
    webhook: Spread | None
    payments: int
    webhooks: int


def summarize(results: Sequence[Result], inside_ms: Sequence[float]) -> Summary:
    """Summarize `results`. `inside_ms` are the durations of the requests according to the service's log."""
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
