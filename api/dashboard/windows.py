"""Figures over the last seconds, from counts that only grow."""

from collections import deque
from collections.abc import Mapping, Sequence
from math import inf


class Window:
    """The growth of counts over the last `seconds`. Each source counts for itself, and may begin again at 0."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: dict[str, dict[str, int]] = {}
        self._grown: deque[tuple[float, dict[str, int]]] = deque()

    def add(self, now: float, sources: Mapping[str, Mapping[str, int]]) -> None:
        """Add what all sources have counted by `now` (monotonic). What a new source counted before is left out."""
        grown: dict[str, int] = {}
        for name, counts in sources.items():
            before = self._known.get(name)
            for key, count in counts.items():
                growth = count - before.get(key, 0) if before is not None else 0
                if growth > 0:
                    grown[key] = grown.get(key, 0) + growth
        self._known = {name: dict(counts) for name, counts in sources.items()}
        self._grown.append((now, grown))
        while self._grown and self._grown[0][0] < now - self._seconds:
            self._grown.popleft()

    def sums(self) -> dict[str, int]:
        """Return how much each count has grown within the window."""
        sums: dict[str, int] = {}
        for _, grown in self._grown:
            for key, growth in grown.items():
                sums[key] = sums.get(key, 0) + growth
        return sums


def quantiles(counts: Sequence[int], bounds: Sequence[float], wanted: Sequence[float]) -> list[float | None]:
    """Return quantiles of a histogram, each within its bucket as Prometheus does it; None without any value.

    `counts` has one bucket more than `bounds` has upper bounds. A quantile beyond the last bound is that bound.
    """
    total = sum(counts)
    if not total:
        return [None for _ in wanted]
    found: list[float | None] = []
    for quantile in wanted:
        rank, below = quantile * total, 0
        value = bounds[-1]
        for index, (upper, count) in enumerate(zip([*bounds, inf], counts, strict=True)):
            if below + count >= rank and count:
                if upper != inf:
                    lower = bounds[index - 1] if index else 0.0
                    value = lower + (upper - lower) * (rank - below) / count
                break
            below += count
        found.append(round(value, 4))
    return found
