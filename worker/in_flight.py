"""How much of a worker's work is in one step, such as in the gateway."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge


class InFlight:
    """The number of payments or refunds in one step. Several of them may share a gauge, which shows their sum."""

    def __init__(self, gauge: Gauge) -> None:
        self.count = 0
        self._gauge = gauge

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one more for the length of the block."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def _add(self, change: int) -> None:
        self.count += change
        self._gauge.inc(change)
