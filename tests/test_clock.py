"""The clock: the database's word, asked for rarely, and never further from it than an answer takes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.clock import ASK_EVERY_S, DatabaseClock
from shared.db import Database

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
AWAY = timedelta(hours=5)  # of the database's clock from the host's


@dataclass
class Host:
    """A database whose clock is far from the host's, and whose answers take as long as told."""

    offset: timedelta = AWAY
    answers: int = 0
    dialect: Any = field(default_factory=lambda: SimpleNamespace(name="postgresql"))

    def time(self) -> datetime:
        return EPOCH + self.offset + timedelta(seconds=monotonic())

    async def execute(self, _statement: object) -> Any:
        self.answers += 1
        return SimpleNamespace(scalar_one=self.time)

    @property
    def connection(self) -> AsyncConnection:
        return cast("AsyncConnection", self)


def away(clock_says: datetime, host: Host) -> float:
    return abs((clock_says - host.time()).total_seconds())


async def test_it_goes_by_the_databases_clock_and_asks_once() -> None:
    host, clock = Host(), DatabaseClock()
    for _ in range(50):
        assert away(await clock.now(host.connection), host) < 0.05
    assert host.answers == 1


async def test_a_clock_that_is_set_is_followed_at_the_next_question() -> None:
    host, clock = Host(), DatabaseClock()
    await clock.now(host.connection)
    for host.offset in (AWAY + timedelta(minutes=3), timedelta(0)):
        clock._asked_at -= ASK_EVERY_S + 1
        assert away(await clock.now(host.connection), host) < 0.05


async def test_a_slow_answer_spoils_nothing() -> None:
    class Slow(Host):
        async def execute(self, _statement: object) -> Any:
            said = self.time()
            until = monotonic() + 0.2
            while monotonic() < until:  # the loop is busy with others
                pass
            return SimpleNamespace(scalar_one=lambda: said)

    host, clock = Host(), DatabaseClock()
    await clock.now(host.connection)
    clock._asked_at -= ASK_EVERY_S + 1
    assert away(await clock.now(Slow().connection), host) < 0.05


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_it_is_the_clock_of_the_real_thing(database: Database) -> None:
    clock = DatabaseClock()
    async with database.transaction() as connection:
        for _ in range(20):
            before, after = await clock.now(connection), await connection.execute(text("SELECT clock_timestamp()"))
            assert abs((after.scalar_one() - before).total_seconds()) < 0.5
