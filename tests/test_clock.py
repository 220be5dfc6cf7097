"""The clock: the database's word, asked for rarely, and never further from it than an answer takes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.clock import ASK_EVERY_S, DatabaseClock
from shared.database.engine import Database
from tests.support.manual_clock import ManualClock

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
# Of the database's clock from the host's.
AWAY = timedelta(hours=5)
# The clock says whole milliseconds.
EXACT_S = 0.0011


@dataclass
class FakeDatabase:
    """A connection to a database whose clock is far from the host's; each answer takes `answer_s` to arrive."""

    host: ManualClock
    offset: timedelta = AWAY
    answer_s: float = 0.0
    answers: int = 0
    dialect: Any = field(default_factory=lambda: SimpleNamespace(name="postgresql"))

    def time(self) -> datetime:
        return EPOCH + self.offset + timedelta(seconds=self.host.now)

    async def execute(self, _statement: object) -> Any:
        self.answers += 1
        moment = self.time()
        self.host.now += self.answer_s
        row = SimpleNamespace(real_now=moment, anchored_at=None)
        return SimpleNamespace(one=lambda: row)

    @property
    def connection(self) -> AsyncConnection:
        return cast("AsyncConnection", self)


def away_s(moment: datetime, fake: FakeDatabase) -> float:
    return abs((moment - fake.time()).total_seconds())


async def test_it_goes_by_the_databases_clock_and_asks_once_a_second() -> None:
    host = ManualClock()
    fake, clock = FakeDatabase(host), DatabaseClock(monotonic_clock=host)
    for _ in range(50):
        assert away_s(await clock.now(fake.connection), fake) < EXACT_S
        host.now += ASK_EVERY_S / 50
    assert fake.answers == 1
    host.now += ASK_EVERY_S / 50
    assert away_s(await clock.now(fake.connection), fake) < EXACT_S
    assert fake.answers == 2


async def test_a_clock_that_is_set_is_followed_at_the_next_question() -> None:
    host = ManualClock()
    fake, clock = FakeDatabase(host), DatabaseClock(monotonic_clock=host)
    await clock.now(fake.connection)
    for fake.offset in (AWAY + timedelta(minutes=3), timedelta(0)):
        host.now += ASK_EVERY_S + 1
        assert away_s(await clock.now(fake.connection), fake) < EXACT_S


async def test_a_slow_answer_spoils_nothing() -> None:
    host = ManualClock()
    fake, clock = FakeDatabase(host), DatabaseClock(monotonic_clock=host)
    await clock.now(fake.connection)
    host.now += ASK_EVERY_S + 1
    fake.answer_s = 0.2
    assert away_s(await clock.now(fake.connection), fake) < EXACT_S


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_it_is_the_clock_of_the_real_thing(database: Database) -> None:
    clock = DatabaseClock()
    async with database.transaction() as connection:
        for _ in range(20):
            before, after = await clock.now(connection), await connection.execute(text("SELECT clock_timestamp()"))
            assert abs((after.scalar_one() - before).total_seconds()) < 0.5
