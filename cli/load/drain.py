"""The end of a load: waits until each payment has ended, within bounds."""

import asyncio
import contextlib
from time import monotonic

from cli.load.client import NoAnswer, Unusable
from cli.load.follower import Follower
from cli.load.progress import Progress

# Open payments at which the service counts as nearly idle. Their ends are then read without a pause.
NEARLY_IDLE = 50
POLL_INTERVAL_S = 0.5
# While the service is busy, a pause between two reads is this many times as long as the read.
PAUSE_FACTOR = 10


class Drain:
    """Waits for the ends of the payments of a run: `drain_max_s` seconds at most, `stalled_max_s` without an end."""

    def __init__(self, progress: Progress, follower: Follower, *, drain_max_s: float, stalled_max_s: float) -> None:
        self._progress = progress
        self._follower = follower
        self._drain_max_s = drain_max_s
        self._stalled_max_s = stalled_max_s

    async def run(self) -> str:
        """Wait until each payment has ended. Return an empty text, or the reason for giving up at a bound."""
        payment_tally, began = self._progress.payment_tally, monotonic()
        fewest, progressed_at, read_again_at = (len(payment_tally.open), self._unsettled), began, began
        while True:
            if not self._is_busy or monotonic() >= read_again_at:
                read_again_at = monotonic() + PAUSE_FACTOR * await self._read_ends()
                if not payment_tally.open and await self._has_read_all():
                    return ""
            remaining = (len(payment_tally.open), self._unsettled)
            if remaining[0] < fewest[0] or remaining[1] < fewest[1]:
                fewest, progressed_at = (min(remaining[0], fewest[0]), min(remaining[1], fewest[1])), monotonic()
            if failure := self._progress.target.failure():
                return failure
            if monotonic() - progressed_at > self._stalled_max_s:
                return f"no payment ended for {monotonic() - progressed_at:.0f} s"
            if monotonic() - began > self._drain_max_s:
                return f"within {self._drain_max_s:g} s of the last arrival"
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _read_ends(self) -> float:
        """Read the payments that may have ended, and return how many seconds it took. An error only ends this read."""
        began = monotonic()
        with contextlib.suppress(NoAnswer, Unusable):
            await self._follower.catch_up(self._progress.figures)
            await self._follower.read_open()
        return monotonic() - began

    async def _has_read_all(self) -> bool:
        """Read the lists up to now: they may have payments whose answers were lost. Return whether all have ended."""
        try:
            await self._follower.read_all()
        except (NoAnswer, Unusable):
            return False
        return not self._progress.payment_tally.open

    @property
    def _is_busy(self) -> bool:
        return self._progress.figures is None or self._unsettled > NEARLY_IDLE

    @property
    def _unsettled(self) -> int:
        return self._progress.figures.unsettled if self._progress.figures is not None else 0
