"""Service time: continuous whatever is written, the same in every process, and no concern of leases."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from shared.config.settings import Settings
from shared.database.clock import DatabaseClock
from shared.database.clock_tables import simulation_clock
from shared.database.engine import Database, open_database
from shared.database.leases import is_due, is_held, take_due
from shared.database.tables import payments
from shared.errors import ConfigurationError
from shared.payments.claim import claim
from shared.service_time import REAL, ServiceTime
from shared.simulation.clock import SETTLES_S, lock_clock, real_time, require_speed, set_speed, write_clock
from tests.support.rows import accepted, write

START = datetime(2026, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
SPEEDS = st.floats(min_value=1, max_value=10_000)


def changed(time: ServiceTime, at: datetime, *, speed: float, jump: timedelta = timedelta(0)) -> ServiceTime:
    before = time.at(at)
    return ServiceTime(
        anchored_at=at, service_at=before + jump, speed=speed, before_at=before, speed_before=time.speed_at(at)
    )


@given(
    st.lists(st.tuples(st.floats(0.001, 1000), SPEEDS, st.floats(0, 1e6)), max_size=8),
    st.lists(st.floats(0, 5), min_size=1, max_size=8),
)
def test_it_never_goes_back_and_is_never_behind_real_time(
    changes: list[tuple[float, float, float]], looks: list[float]
) -> None:
    time, real, latest = REAL, START, REAL.at(START)
    for after_s, speed, jump_s in changes:
        # Looks between two changes, and at the anchor itself.
        for look_s in sorted(looks):
            moment = time.at(real + timedelta(seconds=after_s * look_s / 5))
            assert moment >= latest
            assert moment >= real
            latest = moment
        real += timedelta(seconds=after_s)
        known_before = time.at(real)
        time = changed(time, real, speed=speed, jump=timedelta(seconds=jump_s))
        # Who knows the change before it counts says the same as who does not know it yet.
        early = real - timedelta(microseconds=1)
        assert time.at(early) <= known_before <= time.at(real)
        assert abs((time.at(early) - known_before).total_seconds()) < 0.1


@given(SPEEDS, SPEEDS, st.floats(0, 1e6), st.floats(-3, 3), st.floats(0, 1e6))
def test_how_long_a_wait_takes_in_real_time(
    speed: float, speed_before: float, jump_s: float, real_s: float, wait_s: float
) -> None:
    """Over an anchor and a jump too: at the moment itself it is over, and just before it is not."""
    time = ServiceTime(
        anchored_at=START,
        service_at=START + timedelta(seconds=jump_s),
        speed=speed,
        before_at=START,
        speed_before=speed_before,
    )
    real = START + timedelta(seconds=real_s)
    until = time.at(real) + timedelta(seconds=wait_s)
    left = timedelta(seconds=time.real_s_until(until, real))
    # A microsecond of real time is 10 ms of service time at most.
    assert time.at(real + left + timedelta(microseconds=2)) >= until
    if left > timedelta(milliseconds=1):
        assert time.at(real + left - timedelta(milliseconds=1)) < until


async def read(database: Database, clock: DatabaseClock) -> datetime:
    async with database.read() as connection:
        return await clock.now(connection)


async def jump(database: Database, by: timedelta, *, speed: float = 1) -> None:
    """Let service time be ahead by so much more, and pass at this speed, from now on."""
    async with database.transaction() as connection:
        time, real = await lock_clock(connection)
        await write_clock(connection, changed(time, real, speed=speed, jump=by))


async def test_without_a_row_it_is_real_time(database: Database) -> None:
    clock = DatabaseClock()
    moment = await read(database, clock)
    assert clock.time == REAL
    assert timedelta(0) <= clock.real_now() - moment < timedelta(milliseconds=50)


async def test_a_new_speed_counts_from_a_moment_that_everybody_knows_before(database: Database) -> None:
    """So two processes never disagree, and no process goes back, whenever each of them has read the row."""
    early = DatabaseClock()
    await read(database, early)
    await set_speed(database, 60)
    late = DatabaseClock()
    assert abs(await read(database, early) - await read(database, late)) < timedelta(milliseconds=50)
    async with database.read() as connection:
        row = (await connection.execute(select(simulation_clock))).one()
        real = await real_time(connection)
    assert row.service_at == row.before_at
    assert timedelta(seconds=SETTLES_S - 1) < row.anchored_at - real <= timedelta(seconds=SETTLES_S)
    assert late.time.speed_at(real) == 1
    assert late.time.at(row.anchored_at + timedelta(seconds=2)) == row.anchored_at + timedelta(seconds=120)


async def test_another_speed_waits_for_the_change_before_and_the_same_speed_writes_nothing(database: Database) -> None:
    await set_speed(database, 2)
    await jump(database, timedelta(0), speed=2)
    async with database.read() as connection:
        before = (await connection.execute(select(simulation_clock))).one()
    await set_speed(database, 2)
    await set_speed(database, 1)
    async with database.read() as connection:
        after = (await connection.execute(select(simulation_clock))).one()
    assert after.anchored_at > before.anchored_at
    assert (after.speed, after.speed_before) == (1, 2)
    assert after.service_at >= before.service_at


async def test_service_time_goes_on_over_a_restart(settings: Settings, database: Database) -> None:
    await jump(database, 4 * DAY)
    before = await read(database, DatabaseClock())
    again = open_database(settings)
    try:
        moment = await read(again, DatabaseClock())
        assert timedelta(0) <= moment - before < timedelta(seconds=1)
        assert moment - datetime.now(UTC) > 4 * DAY - timedelta(seconds=1)
    finally:
        await again.dispose()


async def test_while_it_is_advanced_every_question_is_asked(database: Database) -> None:
    """So a process knows of a jump in its next transaction, and not a second later."""
    clock = DatabaseClock()
    async with database.transaction() as connection:
        time, _ = await lock_clock(connection)
        await write_clock(connection, replace(time, advances_to=START + 9 * DAY))
    first = await read(database, clock)
    async with database.transaction() as connection:
        time, real = await lock_clock(connection)
        ahead = changed(time, real, speed=1, jump=DAY)
        await write_clock(connection, replace(ahead, advances_to=time.advances_to))
    assert await read(database, clock) - first >= DAY


async def test_a_process_with_another_speed_is_refused_and_told_which_variable(database: Database) -> None:
    await require_speed(database, 1)
    with pytest.raises(ConfigurationError, match=r"SIMULATION_SPEED: is 60 here and 1 in the database.*migrate"):
        await require_speed(database, 60)
    await set_speed(database, 60)
    await require_speed(database, 60)
    with pytest.raises(ConfigurationError, match=r"SIMULATION_SPEED: is 1 here and 60 in the database"):
        await require_speed(database, 1)


async def test_neither_speed_nor_a_jump_ends_a_lease(database: Database) -> None:
    """Nor the 30 s of the relay; real time does."""
    real, service = START, START + 30 * DAY
    [leased, waiting] = await write(database, accepted(START), accepted(START))
    async with database.transaction() as connection:
        claimed = await claim(connection, service, [leased], lease_s=30, real_now=real)
        assert claimed != [None]
        taken = await take_due(connection, payments, now=service, real_now=real, limit=10)
        assert set(taken) == {waiting}

    async def due(service: datetime, real: datetime) -> int:
        async with database.read() as connection:
            found = await connection.execute(
                select(payments.c.id).where(is_due(payments, now=service, real_now=real), is_held(payments))
            )
            return len(found.all())

    assert await due(service + 100 * DAY, real + timedelta(seconds=29)) == 0
    assert await due(service + timedelta(seconds=30), real + timedelta(seconds=30)) == 2


async def test_a_wait_that_an_older_version_or_a_person_writes_is_in_service_time(database: Database) -> None:
    """They change `due_at` and leave `held_until` as it is."""
    [item] = await write(database, accepted(START))
    async with database.transaction() as connection:
        await claim(connection, START, [item], lease_s=30)
        await connection.execute(update(payments).values(due_at=START + 2 * DAY))
    async with database.transaction() as connection:
        now = START + 2 * DAY
        assert not await take_due(connection, payments, now=now - DAY, real_now=START + DAY, limit=1)
        assert await take_due(connection, payments, now=now, real_now=START, limit=1)
        await connection.execute(delete(simulation_clock))
