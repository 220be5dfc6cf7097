"""The clock of the database. Every process goes by it, so that hosts whose own clocks are wrong agree on the time."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from time import monotonic
from typing import Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


class Clock(Protocol):
    """The clock that transactions go by. Tests pass one of their own."""

    async def now(self, connection: AsyncConnection) -> datetime:
        """Return the time in UTC in whole milliseconds, so that the same moment is stored, signed and shown."""
        ...


class DatabaseClock:
    """The clock of PostgreSQL; on SQLite, where database and process share a host, the clock of that host.

    PostgreSQL is asked at most once a second, and in between the monotonic clock of the host counts on: a question in
    every transaction would be a round trip in every transaction.

    The answer was true at some moment between question and answer, so it gives an earliest and a latest time. The
    estimate from earlier answers is kept as far as it lies between the two. A slow answer thus makes the clock no
    worse, and a database clock that was set is followed at once.
    """

    def __init__(self, *, monotonic_clock: Callable[[], float] = monotonic) -> None:
        self._monotonic = monotonic_clock
        self._asked_at = -inf
        # The time of the database when the monotonic clock stood at 0.
        self._monotonic_epoch: datetime | None = None

    async def now(self, connection: AsyncConnection) -> datetime:
        """See `Clock.now`."""
        if connection.dialect.name == "sqlite":
            return whole_milliseconds(datetime.now(UTC))
        now_s = self._monotonic()
        if self._monotonic_epoch is None or now_s - self._asked_at > ASK_EVERY_S:
            moment: datetime = (await connection.execute(CLOCK_TIMESTAMP)).scalar_one()
            after = self._monotonic()
            earliest, latest = moment - timedelta(seconds=after), moment - timedelta(seconds=now_s)
            self._monotonic_epoch = min(max(self._monotonic_epoch or earliest, earliest), latest)
            self._asked_at = now_s = after
        return whole_milliseconds(self._monotonic_epoch + timedelta(seconds=now_s))


# Seconds between two questions to PostgreSQL: meanwhile the clock of a host drifts by less than a millisecond.
ASK_EVERY_S = 1.0
CLOCK_TIMESTAMP = text("SELECT clock_timestamp()")


def whole_milliseconds(moment: datetime) -> datetime:
    """Return `moment` in UTC, cut to whole milliseconds."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


def rfc3339(moment: datetime) -> str:
    """Return `moment` as RFC 3339 with milliseconds and `Z`, the only form of a time that clients see."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
