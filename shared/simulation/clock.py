"""The row of the clock: its speed is written here, and every process checks that it has the same one.

Whatever is written, service time is continuous: a new speed counts from a moment on that every process knows before.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import service_time_of
from shared.database.clock_tables import CLOCK_ID, simulation_clock
from shared.database.engine import Database
from shared.errors import ConfigurationError
from shared.service_time import REAL, ServiceTime

# Seconds from which on a new speed counts: every process reads the row once a second.
SETTLES_S = 2.0


async def set_speed(database: Database, speed: float) -> None:
    """Let service time pass at `speed`, without a jump. Several processes may do this at once.

    A change that does not count yet is waited for. Raises DatabaseUnavailable or CommitUnknown.
    """
    pending_s = await _set_speed(database, speed)
    while pending_s > 0:
        await asyncio.sleep(pending_s)
        pending_s = await _set_speed(database, speed)


async def require_speed(database: Database, speed: float) -> None:
    """Raise ConfigurationError, which names SIMULATION_SPEED, unless the database has this speed."""
    async with database.read() as connection:
        found = await connection.execute(select(simulation_clock.c.speed).where(simulation_clock.c.id == CLOCK_ID))
        stored = found.scalar_one_or_none()
    stored = REAL.speed if stored is None else stored
    if stored != speed:
        raise ConfigurationError(
            f"SIMULATION_SPEED: is {speed:g} here and {stored:g} in the database. Set the same value for every "
            "process, or write this one with `payments migrate`"
        )


async def lock_clock(connection: AsyncConnection) -> tuple[ServiceTime, datetime]:
    """Lock the row until the transaction ends. Return what it says, and the real time after that.

    The row is made if there is none: it then says that service time is real time.
    """
    row = (await connection.execute(_LOCKED)).one_or_none()
    if row is None:
        await connection.execute(_INSERT, _columns_of(REAL) | {"id": CLOCK_ID, "became_due": 0, "ended": 0})
        row = (await connection.execute(_LOCKED)).one()
    return service_time_of(row), await real_time(connection)


async def real_time(connection: AsyncConnection) -> datetime:
    """Return the real time by the clock of the database itself; on SQLite, by that of the host."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    moment: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    return moment


def moved_to(time: ServiceTime, moment: datetime, real_now: datetime) -> ServiceTime:
    """Return the time of a clock that is moved forward to a moment of service time now."""
    before = time.at(real_now)
    return replace(
        time,
        anchored_at=real_now,
        service_at=max(before, moment),
        before_at=before,
        speed_before=time.speed_at(real_now),
    )


async def write_clock(connection: AsyncConnection, time: ServiceTime, **others: object) -> None:
    """Write what the locked row says about service time, and other columns of it."""
    columns = _columns_of(time) | others
    await connection.execute(update(simulation_clock).where(simulation_clock.c.id == CLOCK_ID).values(columns))


_LOCKED = select(simulation_clock).where(simulation_clock.c.id == CLOCK_ID).with_for_update()
_INSERT = insert(simulation_clock).on_conflict_do_nothing()


def _columns_of(time: ServiceTime) -> dict[str, object]:
    return {name: getattr(time, name) for name in ServiceTime.__dataclass_fields__}


async def _set_speed(database: Database, speed: float) -> float:
    """Write the speed, and return 0; or return the seconds until an earlier change counts, and write nothing."""
    async with database.transaction() as connection:
        time, real_now = await lock_clock(connection)
        if time.speed == speed:
            return 0.0
        if real_now < time.anchored_at:
            return (time.anchored_at - real_now).total_seconds()
        counts_from = real_now + timedelta(seconds=SETTLES_S)
        there = time.at(counts_from)
        changed = replace(
            time, anchored_at=counts_from, service_at=there, speed=speed, before_at=there, speed_before=time.speed
        )
        await write_clock(connection, changed)
        return 0.0
