"""The clock of the database. Every process goes by it, so that hosts whose own clocks are wrong agree on the time.

It tells two times. Service time is what is stored, shown and waited for; it may run faster than real time, and ahead.
Real time is for what has to do with the world outside: leases, keys, tokens and rates.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from time import monotonic
from typing import Any, Protocol

from sqlalchemy import Select, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock_tables import CLOCK_ID, simulation_clock
from shared.service_time import REAL, ServiceTime


class Clock(Protocol):
    """The clock that transactions go by. Tests pass one of their own."""

    @property
    def time(self) -> ServiceTime:
        """What service time is made of, as it was read last."""
        ...

    async def now(self, connection: AsyncConnection) -> datetime:
        """Return the service time in UTC in whole milliseconds: the same moment is stored, signed and shown."""
        ...

    def real_now(self) -> datetime:
        """Return the real time in UTC in whole milliseconds, by the answer of the database to the last `now`."""
        ...


class DatabaseClock:
    """The clock of PostgreSQL; on SQLite, where database and process share a host, the clock of that host.

    The database is asked at most once a second, and in between the monotonic clock of the host counts on: a question in
    every transaction would be a round trip in every transaction. Only while service time is advanced, every transaction
    asks.

    The answer was true at some moment between question and answer, so it gives an earliest and a latest time. The
    estimate from earlier answers is kept as far as it lies between the two. A slow answer thus makes the clock no
    worse, and a database clock that was set is followed at once.
    """

    def __init__(self, *, monotonic_clock: Callable[[], float] = monotonic) -> None:
        self._monotonic = monotonic_clock
        self._asked_at = -inf
        # The time of the database when the monotonic clock stood at 0; None = it is that of the host.
        self._monotonic_epoch: datetime | None = None
        self._time = REAL
        self._latest: datetime | None = None

    @property
    def time(self) -> ServiceTime:
        """See `Clock.time`."""
        return self._time

    async def now(self, connection: AsyncConnection) -> datetime:
        """See `Clock.now`."""
        if self._time.is_advancing or self._monotonic() - self._asked_at > ASK_EVERY_S:
            await self._ask(connection)
        return self._not_back(self._time.at(self._real_now()))

    def real_now(self) -> datetime:
        """See `Clock.real_now`. Before the first question, this is the time of the host."""
        return whole_milliseconds(self._real_now())

    def _real_now(self) -> datetime:
        if self._monotonic_epoch is None:
            return datetime.now(UTC)
        return self._monotonic_epoch + timedelta(seconds=self._monotonic())

    def _not_back(self, moment: datetime) -> datetime:
        """Return the service time, which stands still for as long as the estimate of real time is corrected."""
        latest = self._latest
        if latest is not None and timedelta(0) < latest - moment < CORRECTED_MAX * self._time.speed:
            return latest
        self._latest = whole_milliseconds(moment)
        return self._latest

    async def _ask(self, connection: AsyncConnection) -> None:
        before = self._monotonic()
        if connection.dialect.name == "sqlite":
            row = (await connection.execute(READ_ROW)).one()
        else:
            row = (await connection.execute(READ_CLOCK_AND_ROW)).one()
            after = self._monotonic()
            earliest, latest = row.real_now - timedelta(seconds=after), row.real_now - timedelta(seconds=before)
            self._monotonic_epoch = min(max(self._monotonic_epoch or earliest, earliest), latest)
            before = after
        self._asked_at = before
        if (read := service_time_of(row)) != self._time:
            self._time = read


# Seconds between two questions to the database: meanwhile the clock of a host drifts by less than a millisecond.
ASK_EVERY_S = 1.0
# By how much an answer may correct the estimate of real time without service time going back: more is a clock that was
# set.
CORRECTED_MAX = timedelta(seconds=0.5)

_OF_TIME = [column for column in simulation_clock.c if column.name in ServiceTime.__dataclass_fields__]


def _question(*columns: Any) -> Select[Any]:
    """Return the question for the row and these columns; it is answered also if there is no row."""
    one = select(literal(1).label("one")).subquery()
    joined = one.outerjoin(simulation_clock, simulation_clock.c.id == CLOCK_ID)
    return select(*columns, *_OF_TIME).select_from(joined)


READ_ROW = _question()
READ_CLOCK_AND_ROW = _question(func.clock_timestamp().label("real_now"))


def service_time_of(row: Any) -> ServiceTime:
    """Return the service time of a row of `simulation_clock`; without a row it is real time."""
    if row.anchored_at is None:
        return REAL
    return ServiceTime(**{column.name: getattr(row, column.name) for column in _OF_TIME})


def whole_milliseconds(moment: datetime) -> datetime:
    """Return `moment` in UTC, cut to whole milliseconds."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


def in_utc(moment: datetime) -> datetime:
    """Return the moment in UTC. Raises ValueError if no date there can name it, or if it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError("needs a time zone, such as Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is too far away") from None


def rfc3339(moment: datetime) -> str:
    """Return `moment` as RFC 3339 with milliseconds and `Z`, the only form of a time that clients see."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
