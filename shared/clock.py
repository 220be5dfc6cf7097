"""What time it is: the database's word, so that hosts with wrong clocks agree."""

from datetime import UTC, datetime, timedelta
from math import inf
from time import monotonic
from typing import Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


class Clock(Protocol):
    """The moment that a transaction goes by. Tests pass their own."""

    async def now(self, connection: AsyncConnection) -> datetime:
        """The time in UTC, whole milliseconds: what is stored, signed and shown is then the same moment."""
        ...


class DatabaseClock:
    """PostgreSQL's clock; on SQLite, where host and database are one, the host's.

    Asked once a second, and counted on from there by our own steady clock: asking in every transaction is a round trip
    in every transaction. An answer was true at some moment between question and answer; what earlier ones said is kept
    as far as it fits between the two, so a slow answer spoils nothing, and a clock that was set is followed at once.
    """

    def __init__(self) -> None:
        self._asked_at = -inf  # monotonic, s
        self._steady_zero: datetime | None = None  # the database's time when our steady clock stood at 0

    async def now(self, connection: AsyncConnection) -> datetime:
        """See `Clock.now`."""
        if connection.dialect.name == "sqlite":
            return whole_milliseconds(datetime.now(UTC))
        steady = monotonic()
        if self._steady_zero is None or steady - self._asked_at > ASK_EVERY_S:
            moment: datetime = (await connection.execute(CLOCK_TIMESTAMP)).scalar_one()
            earliest, latest = moment - timedelta(seconds=monotonic()), moment - timedelta(seconds=steady)
            self._steady_zero = min(max(self._steady_zero or earliest, earliest), latest)
            self._asked_at = steady = monotonic()
        return whole_milliseconds(self._steady_zero + timedelta(seconds=steady))


ASK_EVERY_S = 1.0
CLOCK_TIMESTAMP = text("SELECT clock_timestamp()")


def whole_milliseconds(moment: datetime) -> datetime:
    """`moment` in UTC without its microseconds."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 with milliseconds and `Z`, the one form that clients see."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
