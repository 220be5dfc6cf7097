"""A circuit breaker: after some failures in a row it lets no call through for a while, and then calls that probe.

It learns of failures only from the calls that it lets through, and it never waits.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import structlog

from shared.errors import RemoteUnavailable, UpstreamUnavailable

log = structlog.get_logger(__name__)


class Breaker:
    """Opens after `failures_max` failures in a row, for `open_s` seconds; then calls are probes.

    With `single_probe` one call at a time is let through as a probe, without it every call. A probe that succeeds
    closes the breaker, and one that fails opens it again. `error` is the type that counts as a failure, and the type
    that is raised while the breaker is open.
    """

    def __init__(
        self,
        name: str,
        *,
        failures_max: int,
        open_s: float,
        single_probe: bool = True,
        error: type[RemoteUnavailable] = UpstreamUnavailable,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._name = name
        self._failures_max = failures_max
        self._open_s = open_s
        self._single_probe = single_probe
        self._error = error
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._is_probing = False

    def check(self) -> None:
        """Raise the breaker's error, with the seconds to wait, if no call is let through now."""
        if self._open_until is None:
            return
        left_s = self._open_until - self._clock()
        if left_s > 0 or (self._single_probe and self._is_probing):
            raise self._error(f"{self._name} has failed lately", retry_after_s=max(left_s, 0.0))

    @contextmanager
    def guard(self, *, is_forced: bool = False) -> Iterator[None]:
        """Let the block through, or raise as `check` does. A block that raises the breaker's error is a failure.

        With `is_forced` the block is let through even if the breaker is open, and is then a probe.
        Any other error of the block, its cancellation too, counts neither as a failure nor as a success.
        """
        if not is_forced:
            self.check()
        is_probe = self._open_until is not None
        self._is_probing |= is_probe
        try:
            yield
        except self._error:
            self._failed(is_probe=is_probe)
            raise
        else:
            self._close()
        finally:
            if is_probe:
                self._is_probing = False

    def _close(self) -> None:
        if self._open_until is not None:
            log.info("breaker.closed", upstream=self._name)
        self._failures = 0
        self._open_until = None

    def _failed(self, *, is_probe: bool) -> None:
        self._failures += 1
        if is_probe or (self._open_until is None and self._failures >= self._failures_max):
            # A probe that fails is no news: the breaker has said that it is open.
            level = logging.DEBUG if is_probe else logging.WARNING
            log.log(level, "breaker.opened", upstream=self._name, failures=self._failures, open_s=self._open_s)
            self._open_until = self._clock() + self._open_s
