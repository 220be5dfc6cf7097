"""Counts of a load's requests, second by second, and the latencies of their 202s. Nothing is sent here."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cli.percentiles import percentile

# The live view shows the latencies of so many last seconds.
LATELY_S = 5


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of a duration over many requests, in ms."""

    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(slots=True)
class Second:
    """The counts of one second."""

    offered: int = 0
    accepted: int = 0
    # With the requests that were not answered.
    refused: int = 0
    not_sent: int = 0
    latencies_ms: list[float] = field(default_factory=list)


class RequestCounts:
    """The counts of a run. All times `at_s` are seconds since its start."""

    def __init__(self) -> None:
        self.seconds: list[Second] = []
        self.offered = 0
        self.accepted = 0
        self.repeated = 0
        self.unanswered = 0
        # By the answer, such as "503 overloaded".
        self.refused: Counter[str] = Counter()
        # By the reason.
        self.not_sent: Counter[str] = Counter()

    def offer(self, at_s: float) -> None:
        """Count an intent that arrived."""
        self.offered += 1
        self._second(at_s).offered += 1

    def leave(self, at_s: float, reason: str) -> None:
        """Count an intent that arrived and is never sent."""
        self.not_sent[reason] += 1
        self._second(at_s).not_sent += 1

    def accept(self, at_s: float, latency_ms: float) -> None:
        """Count an intent that was accepted `latency_ms` after its arrival."""
        self.accepted += 1
        second = self._second(at_s)
        second.accepted += 1
        second.latencies_ms.append(latency_ms)

    def refuse(self, at_s: float, reason: str) -> None:
        """Count an intent that was refused. `reason` is the answer: a status and a code."""
        self.refused[reason] += 1
        self._second(at_s).refused += 1

    def miss(self, at_s: float) -> None:
        """Count an intent that was sent twice and not answered, so that its result is unknown."""
        self.unanswered += 1
        self._second(at_s).refused += 1

    @property
    def sent(self) -> int:
        """The number of intents that were sent, with those whose answer is still awaited."""
        return self.offered - self.not_sent.total()

    @property
    def latency(self) -> Spread | None:
        """The latencies of all accepted intents."""
        return spread([value for second in self.seconds for value in second.latencies_ms])

    def latency_at(self, at_s: float) -> Spread | None:
        """Return the latencies of the intents accepted in the last LATELY_S seconds before `at_s`."""
        lately = self.seconds[max(0, int(at_s) - LATELY_S) : int(at_s)]
        return spread([value for second in lately for value in second.latencies_ms])

    def whole(self, at_s: float) -> Second:
        """Return the counts of the last second that is over at `at_s`. Late counts are still added to them."""
        return self._second(int(at_s) - 1)

    def _second(self, at_s: float) -> Second:
        index = max(0, int(at_s))
        while len(self.seconds) <= index:
            self.seconds.append(Second())
        return self.seconds[index]


def spread(values: Sequence[float]) -> Spread | None:
    """Return the distribution of the values; None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return Spread(percentile(ordered, 50), percentile(ordered, 95), percentile(ordered, 99), ordered[-1])
