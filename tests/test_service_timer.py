"""Waits in service time: as long as the speed says, ended by an advance, and no longer for a clock that is set."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from time import monotonic

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.broker.client import Broker
from shared.broker.sleepers import read_sleepers
from shared.database.clock import DatabaseClock
from shared.database.engine import Database, open_database
from shared.simulation.clock import lock_clock, moved_to, write_clock
from tests.support.waiting import eventually
from worker.service_timer import ServiceTimer

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def timer(database: Database, broker: Broker) -> AsyncIterator[ServiceTimer]:
    timer = ServiceTimer(database, broker)
    running = asyncio.create_task(timer.run())
    yield timer
    running.cancel()
    await asyncio.wait([running])


async def change(database: Database, *, speed: float | None = None, ahead: timedelta = timedelta(0)) -> None:
    async with database.transaction() as connection:
        time, real_now = await lock_clock(connection)
        moved = moved_to(time, time.at(real_now) + ahead, real_now)
        await write_clock(connection, moved if speed is None else replace(moved, speed=speed))


async def test_at_speed_60_two_seconds_take_33_ms(database: Database, timer: ServiceTimer) -> None:
    await change(database, speed=60)
    # Until it has noticed, its time is that of the speed before.
    await eventually(lambda: timer.real_s(60) == 1)
    began = monotonic()
    await timer.sleep(2)
    assert 2 / 60 <= monotonic() - began < 1


async def test_a_sleeper_is_woken_by_a_jump_and_by_a_new_speed(database: Database, timer: ServiceTimer) -> None:
    for changes in ({"ahead": timedelta(days=1)}, {"speed": 10_000}):
        sleeping = asyncio.create_task(timer.sleep(3600))
        await asyncio.sleep(0.05)
        assert not sleeping.done()
        await change(database, **changes)
        await asyncio.wait_for(sleeping, 30)


async def test_while_the_clock_is_advanced_it_says_what_sleeps(
    database: Database, broker: Broker, timer: ServiceTimer
) -> None:
    sleeping = [asyncio.create_task(timer.sleep(seconds)) for seconds in (30, 30.05, 90)]
    await asyncio.sleep(0.05)
    async with database.transaction() as connection:
        time, real_now = await lock_clock(connection)
        await write_clock(connection, replace(time, advances_to=time.at(real_now) + timedelta(days=1)))
    [said] = await eventually(lambda: read_sleepers(broker))
    assert said.count == 3
    assert said.wakes_at_s is not None
    assert said.wakes_until_s is not None
    assert 20 < said.wakes_at_s - timer.now_s() < 30.1
    assert 0.04 < said.wakes_until_s - said.wakes_at_s < 0.1
    for task in sleeping:
        task.cancel()
    await asyncio.wait(sleeping)


class ClockThatIsSet(DatabaseClock):
    """A clock of a database that somebody sets."""

    by = timedelta(0)

    async def now(self, connection: AsyncConnection) -> object:  # type: ignore[override]
        return await super().now(connection) + self.by

    def _real_now(self) -> object:  # type: ignore[override]
        return super()._real_now() + self.by


@ON_SQLITE
@pytest.mark.parametrize("hours", [-5, 5])
async def test_a_clock_that_is_set_makes_no_wait_longer_or_shorter(
    settings: object, broker: Broker, hours: int
) -> None:
    clock = ClockThatIsSet()
    database = open_database(settings, clock=clock)  # type: ignore[arg-type]
    timer = ServiceTimer(database, broker)
    try:
        began = monotonic()
        sleeping = asyncio.create_task(timer.sleep(0.3))
        await asyncio.sleep(0.05)
        clock.by = timedelta(hours=hours)
        await timer.look()
        await asyncio.wait_for(sleeping, 30)
        assert 0.25 < monotonic() - began < 5
    finally:
        await database.dispose()
