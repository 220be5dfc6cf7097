"""Counts what happens to a load's requests, second by second, and how long each waited for its 202; sends nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from cli.demo_results import percentile

LATELY_S = 5  # what the live view calls now


@dataclass(frozen=True, slots=True)
class Spread:
    """How a duration is spread over many requests, ms."""

    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(slots=True)
class Second:
    """What happened within one second."""

    offered: int = 0
    accepted: int = 0
    refused: int = 0  # unanswered ones too
    not_sent: int = 0
    latencies_ms: list[float] = field(default_factory=list)


class Tally:
    """All counts of a run; moments are s since its start."""

    def __init__(self) -> None:
        self.seconds: list[Second] = []
        self.offered = 0
        self.accepted = 0
        self.repeated = 0
        self.unanswered = 0
        self.refused: Counter[str] = Counter()  # by the answer: "503 overloaded"
        self.not_sent: Counter[str] = Counter()  # by the reason

    def offer(self, at_s: float) -> None:
        """An intent has arrived."""
        self.offered += 1
        self._second(at_s).offered += 1

    def leave(self, at_s: float, reason: str) -> None:
        """An intent that arrived is never sent."""
        self.not_sent[reason] += 1
        self._second(at_s).not_sent += 1

    def accept(self, at_s: float, latency_ms: float) -> None:
        """An intent was accepted, so long after its arrival."""
        self.accepted += 1
        second = self._second(at_s)
        second.accepted += 1
        second.latencies_ms.append(latency_ms)

    def refuse(self, at_s: float, words: str) -> None:
        """An intent was refused: nothing was done."""
        self.refused[words] += 1
        self._second(at_s).refused += 1

    def miss(self, at_s: float) -> None:
        """Nobody knows what became of an intent, asked twice."""
        self.unanswered += 1
        self._second(at_s).refused += 1

    @property
    def sent(self) -> int:
        """Intents that were sent; those still open count."""
        return self.offered - self.not_sent.total()

    @property
    def latency(self) -> Spread | None:
        """Of all that were accepted."""
        return spread([value for second in self.seconds for value in second.latencies_ms])

    def latency_at(self, at_s: float) -> Spread | None:
        """Of those that were accepted in the last seconds before this moment."""
        lately = self.seconds[max(0, int(at_s) - LATELY_S) : int(at_s)]
        return spread([value for second in lately for value in second.latencies_ms])

    def whole(self, at_s: float) -> Second:
        """The last second that is over at this moment; what is counted late is still added to it."""
        return self._second(int(at_s) - 1)

    def _second(self, at_s: float) -> Second:
        index = max(0, int(at_s))
        while len(self.seconds) <= index:
            self.seconds.append(Second())
        return self.seconds[index]


def spread(values: Sequence[float]) -> Spread | None:
    """How the values are spread; None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return Spread(percentile(ordered, 50), percentile(ordered, 95), percentile(ordered, 99), ordered[-1])
