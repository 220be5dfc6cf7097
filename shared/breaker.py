"""A circuit breaker: after some failures in a row nobody is let through for a while, then one who finds out for all.

It knows what failed only from whoever it lets through, and it never waits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import structlog

from shared.errors import NeighbourUnreachable

log = structlog.get_logger(__name__)


class Breaker:
    """Opens after `failures_max` failures in a row, for `open_s` seconds; then the next one is a probe."""

    def __init__(self, name: str, *, failures_max: int, open_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._name = name
        self._failures_max = failures_max
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._is_probing = False

    def check(self) -> None:
        """Raise NeighbourUnreachable, with the time to wait, if nobody is let through now."""
        if self._open_until is None:
            return
        left_s = self._open_until - self._clock()
        if left_s > 0 or self._is_probing:
            raise NeighbourUnreachable(f"{self._name} has failed lately", retry_after_s=max(left_s, 0.0))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Let the block through or raise as `check` does; a block that raises NeighbourUnreachable has failed.

        What else it raises, its cancellation too, says nothing about the neighbour.
        """
        self.check()
        is_probe = self._open_until is not None
        self._is_probing |= is_probe
        try:
            yield
        except NeighbourUnreachable:
            self._failed(is_probe=is_probe)
            raise
        else:
            self._succeeded()
        finally:
            if is_probe:
                self._is_probing = False

    def _failed(self, *, is_probe: bool) -> None:
        self._failures += 1
        if is_probe or (self._open_until is None and self._failures >= self._failures_max):
            log.warning("breaker.opened", neighbour=self._name, failures=self._failures, open_s=self._open_s)
            self._open_until = self._clock() + self._open_s

    def _succeeded(self) -> None:
        if self._open_until is not None:
            log.info("breaker.closed", neighbour=self._name)
        self._failures = 0
        self._open_until = None
