"""Limits how often one line is logged: an outage is a few lines a second, however many payments meet it.

Requests that are refused before they are read are limited, too: they cost their senders nothing.

Nothing is left out in silence: what is left out is counted, and the counts are logged.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Never

import structlog
from structlog.typing import EventDict, WrappedLogger

from shared import metrics

# Lines of one event, and the seconds in which no more of them are logged.
LINES_MAX = 3
WINDOW_S = 5.0
# Lines of one event about requests that are refused before they are read, in as many seconds.
REFUSALS_MAX = 100
LIMITED_LEVELS = frozenset({"warning", "error", "critical"})

log = structlog.get_logger(__name__)


class RepeatLimit:
    """Admits `lines_max` lines of each event in WINDOW_S seconds, and counts the others."""

    def __init__(self, clock: Callable[[], float] = monotonic, *, lines_max: int = LINES_MAX) -> None:
        self._clock = clock
        self._lines_max = lines_max
        # Event -> the end of its window, and the lines that were admitted in it.
        self._windows: dict[str, tuple[float, int]] = {}
        self._left_out: Counter[str] = Counter()

    def admits(self, event: str) -> bool:
        """Return whether this line may be logged."""
        now = self._clock()
        ends_at, admitted = self._windows.get(event, (0.0, 0))
        if now >= ends_at:
            ends_at, admitted = now + WINDOW_S, 0
        if admitted >= self._lines_max:
            self._left_out[event] += 1
            metrics.log_lines_left_out.labels(event).inc()
            return False
        self._windows[event] = ends_at, admitted + 1
        return True

    def take_left_out(self) -> dict[str, int]:
        """Return how many lines of each event were left out since the last call."""
        left_out, self._left_out = dict(self._left_out), Counter()
        return left_out


# The limits of this process: of warnings and errors, and of requests that are refused before they are read.
REPEATS = RepeatLimit()
REFUSALS = RepeatLimit(lines_max=REFUSALS_MAX)


def limit_repeats(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Drop a warning or an error whose event was logged often enough; a processor of structlog."""
    if line["level"] in LIMITED_LEVELS and not REPEATS.admits(str(line.get("event"))):
        raise structlog.DropEvent
    return line


def admits_record(record: logging.LogRecord) -> bool:
    """Return whether a library's line may be logged; a filter of `logging`. The library counts as one event."""
    return record.levelno < logging.WARNING or REPEATS.admits(record.name)


def log_left_out() -> None:
    """Log how many lines were left out, if there are any."""
    if left_out := REPEATS.take_left_out() | REFUSALS.take_left_out():
        log.warning("logs.left_out", counts=left_out)


async def report_left_out() -> Never:
    """Log every WINDOW_S seconds how many lines were left out, until cancelled."""
    try:
        while True:
            await asyncio.sleep(WINDOW_S)
            log_left_out()
    finally:
        log_left_out()
