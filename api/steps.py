"""The bound on transactions that single requests ask for: captures, refunds, cancels, registrations and resends.

Intents share their commits and have an admission of their own. Each of these takes a transaction alone, so that a flood
of them would only make every one wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from shared import metrics
from shared.errors import Overloaded


class Steps:
    """Counts the transactions in progress, at most `limit` at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_progress = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one more for the length of the block. Raises Overloaded if there are as many as may be."""
        if self._in_progress >= self._limit:
            metrics.shed.inc()
            raise Overloaded("too many requests wait for a transaction of their own")
        self._in_progress += 1
        try:
            yield
        finally:
            self._in_progress -= 1
