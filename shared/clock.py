"""What time it is: the database's word, read once per transaction, so that hosts with wrong clocks agree."""

from datetime import UTC, datetime
from typing import Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


class Clock(Protocol):
    """The moment that a transaction goes by. Tests pass their own."""

    async def now(self, connection: AsyncConnection) -> datetime:
        """The time in UTC, whole milliseconds: what is stored, signed and shown is then the same moment."""
        ...


class DatabaseClock:
    """PostgreSQL's clock; on SQLite, where host and database are one, the host's."""

    async def now(self, connection: AsyncConnection) -> datetime:
        """See `Clock.now`."""
        if connection.dialect.name == "sqlite":
            return whole_milliseconds(datetime.now(UTC))
        moment: datetime = (await connection.execute(CLOCK_TIMESTAMP)).scalar_one()
        return whole_milliseconds(moment)


CLOCK_TIMESTAMP = text("SELECT clock_timestamp()")


def whole_milliseconds(moment: datetime) -> datetime:
    """`moment` in UTC without its microseconds."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 with milliseconds and `Z`, the one form that clients see."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
