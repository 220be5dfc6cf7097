"""The relay, on both databases and with a real Valkey: what is due comes to the queue, whatever was lost before."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from shared.broker.client import JOB_ITEMS_MAX, Broker, Queue, open_broker
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.leases import REPUBLISHED_AFTER_S, WorkItem
from shared.database.tables import payments
from shared.errors import DatabaseUnavailable
from shared.lifecycle import PaymentStatus
from shared.payments.payment import Payment
from tests.support.messages import items_in, jobs_in
from tests.support.receivers import complete_payments
from tests.support.rows import accepted, claim, claimed, read, read_all, reasons, write
from tests.support.servers import ValkeyServer
from tests.support.waiting import eventually
from worker.relay import PASSES_MAX, Relay

NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(hours=1)


def relay_for(database: Database, broker: Broker, **changes: Any) -> Relay:
    values: dict[str, Any] = {"interval_s": 0.01, "batch_max": 500, **changes}
    return Relay(database, broker, **values)


async def due_now(database: Database) -> int:
    async with database.read() as connection:
        found = await connection.execute(
            select(func.count()).select_from(payments).where(payments.c.due_at <= await database.clock.now(connection))
        )
        return int(found.scalar_one())


async def test_a_round_brings_every_due_row_of_both_tables_to_its_queue(database: Database, broker: Broker) -> None:
    lost, crashed = accepted(LONG_AGO), claimed(LONG_AGO, claims=2)
    busy, ended = claimed(NOW, due_at=NOW + timedelta(hours=1)), accepted(LONG_AGO, due_at=None, due_reason=None)
    items = await write(database, lost, crashed, busy, ended)
    async with database.transaction() as connection:
        to_deliver = await complete_payments(connection, 2, now=LONG_AGO, callback_url="https://shop.example/")
    relay = relay_for(database, broker)
    assert await relay.run_once() == 4
    assert sorted(await items_in(broker, Queue.PROCESS)) == sorted(items[:2])
    assert sorted(await items_in(broker, Queue.DELIVER)) == sorted(to_deliver)
    for row in (lost, crashed):
        due_at = (await read(database, row.id)).due_at
        assert due_at is not None
        assert 0 < REPUBLISHED_AFTER_S - (due_at - datetime.now(UTC)).total_seconds() < 30  # the round was just now
    assert (await read(database, busy.id)).due_at == busy.due_at
    assert await relay.run_once() == 0


async def test_its_work_items_are_good_for_the_next_claim(database: Database, broker: Broker) -> None:
    row = claimed(LONG_AGO)
    await write(database, row)
    await relay_for(database, broker).run_once()
    async with database.transaction() as connection:
        [payment] = await claim(connection, NOW, await items_in(broker, Queue.PROCESS), lease_s=30)
    assert payment is not None
    assert await reasons(database, row.id) == ["accepted", "claimed", "lease_expired"]


async def test_a_backlog_goes_out_in_bounded_batches_within_one_round(database: Database, broker: Broker) -> None:
    items = await write(database, *(accepted(LONG_AGO) for _ in range(2 * JOB_ITEMS_MAX + 35)))
    assert await relay_for(database, broker, batch_max=JOB_ITEMS_MAX + 10).run_once() == len(items)
    jobs = await jobs_in(broker, Queue.PROCESS)
    assert sorted(map(len, jobs)) == sorted([JOB_ITEMS_MAX, 10, JOB_ITEMS_MAX, 10, 15])
    assert sorted(item for job in jobs for item in job) == sorted(items)


async def test_one_tables_backlog_does_not_keep_the_other_waiting(database: Database, broker: Broker) -> None:
    await write(database, *(accepted(LONG_AGO) for _ in range(PASSES_MAX + 5)))
    async with database.transaction() as connection:
        [to_deliver] = await complete_payments(connection, 1, now=LONG_AGO, callback_url="https://shop.example/")
    assert await relay_for(database, broker, batch_max=1).run_once() == PASSES_MAX + 1
    assert await items_in(broker, Queue.DELIVER) == [to_deliver]
    assert await due_now(database) == 5


async def test_relays_beside_each_other_publish_every_row_once(database: Database, broker: Broker) -> None:
    items = await write(database, *(accepted(LONG_AGO) for _ in range(120)))
    relays = [relay_for(database, broker, batch_max=7) for _ in range(4)]
    while await due_now(database):
        await asyncio.gather(*(relay.run_once() for relay in relays))
    assert sorted(await items_in(broker, Queue.PROCESS)) == sorted(items)


async def test_without_redis_nothing_is_taken(database: Database, settings: Settings, tmp_path: Path) -> None:
    row = accepted(LONG_AGO)
    await write(database, row)
    with ValkeyServer(tmp_path / "valkey") as own:
        broker = open_broker(own.url)
        own.kill()
        relay = relay_for(database, broker)
        assert await relay.run_once() == 0
        assert await read(database, row.id) == row
        own.start()
        # At once, for a round asks anew whether Redis answers.
        assert await relay.run_once() == 1
        await broker.close()


class Torn(Broker):
    """A broker that breaks after some messages."""

    def __init__(self, whole: Broker, *, after: int) -> None:
        super().__init__(whole.arq_connection)
        self.left = after

    async def publish(self, queue: Queue, items: Sequence[WorkItem], *, score_ms: int | None = None) -> bool:
        self.left -= 1
        return self.left >= 0 and await super().publish(queue, items, score_ms=score_ms)


async def test_what_does_not_get_through_is_due_as_long_as_before(database: Database, broker: Broker) -> None:
    items = await write(database, *(accepted(LONG_AGO) for _ in range(3 * JOB_ITEMS_MAX)))
    assert await relay_for(database, Torn(broker, after=1)).run_once() == JOB_ITEMS_MAX
    assert await due_now(database) == 2 * JOB_ITEMS_MAX
    async with database.read() as connection:
        waiting = select(func.max(payments.c.due_at)).where(payments.c.due_at < NOW)
        assert (await connection.execute(waiting)).scalar_one() == accepted(LONG_AGO).due_at
    assert await relay_for(database, broker).run_once() == 2 * JOB_ITEMS_MAX
    assert sorted(await items_in(broker, Queue.PROCESS)) == sorted(items)


class Counted(Database):
    """The test's database, whose transactions are counted."""

    def __init__(self, inner: Database) -> None:
        self.clock = inner.clock
        self.is_sqlite = inner.is_sqlite
        self.transactions = 0
        self._inner = inner

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        self.transactions += 1
        async with self._inner.transaction() as connection:
            yield connection


@pytest.mark.parametrize(
    "trouble",
    ["CONFIG SET maxmemory 1", "REPLICAOF 127.0.0.1 1", "SET payments:process x", "SET payments:deliver x"],
)
async def test_a_redis_that_refuses_jobs_costs_a_round_trip_and_no_row(
    database: Database, tmp_path: Path, trouble: str
) -> None:
    rows = [accepted(LONG_AGO) for _ in range(20)]
    await write(database, *rows)
    counted = Counted(database)
    with ValkeyServer(tmp_path / "valkey") as own, redis.Redis.from_url(own.url) as operator:
        broker = open_broker(own.url)
        operator.execute_command(*trouble.split())
        relay = relay_for(counted, broker)
        for _ in range(3):
            assert await relay.run_once() == 0
        assert counted.transactions == 0
        assert await read(database, rows[0].id) == rows[0]
        for remedy in ("REPLICAOF NO ONE", "CONFIG SET maxmemory 0", "DEL payments:process payments:deliver"):
            operator.execute_command(*remedy.split())
        assert await relay.run_once() == len(rows)
        await broker.close()


async def test_a_relay_that_cannot_publish_tries_again_with_one_row(database: Database, broker: Broker) -> None:
    """The probe succeeds and the publication does not: only this row is rewritten, and its age stays."""
    rows = [accepted(LONG_AGO) for _ in range(20)]
    await write(database, *rows)
    torn = Torn(broker, after=0)
    relay = relay_for(database, torn)
    assert await relay.run_once() == 0
    await assert_due(database, rows)
    async with database.transaction() as connection:
        later = payments.c.id != rows[0].id
        await connection.execute(update(payments).where(later).values(due_at=LONG_AGO + timedelta(minutes=1)))
    assert await relay.run_once() == 0
    torn.left = 1
    # One row as a trial, then the batches of before.
    assert await relay.run_once() == 1
    torn.left = 100
    assert await relay.run_once() == len(rows) - 1


async def assert_due(database: Database, rows: Sequence[Payment]) -> None:
    for row in rows:
        assert (await read(database, row.id)).due_at == row.due_at


class Away(Database):
    """The test's database, which comes and goes."""

    def __init__(self, inner: Database) -> None:
        self.clock = inner.clock
        self.is_sqlite = inner.is_sqlite
        self.is_away = True
        self._inner = inner

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        if self.is_away:
            raise DatabaseUnavailable("away")
        async with self._inner.transaction() as connection:
            yield connection


async def test_a_database_that_is_away_is_waited_for(database: Database, broker: Broker) -> None:
    row = accepted(LONG_AGO)
    away = Away(database)
    relay = relay_for(away, broker)
    await write(database, row)
    with capture_logs() as logs:
        run = asyncio.create_task(relay.run())
        await eventually(lambda: [line["event"] for line in logs].count("relay.database_failed") > 2)
        ran_at = relay.ran_at
        assert not run.done()
        away.is_away = False
        await eventually(lambda: items_in(broker, Queue.PROCESS))
        await eventually(lambda: relay.ran_at > ran_at)
    run.cancel()
    await asyncio.wait([run])


async def test_a_relay_that_meets_a_bug_ends_instead_of_doing_nothing(database: Database, broker: Broker) -> None:
    """Its worker ends with it: see test_worker_ends."""
    run = asyncio.create_task(relay_for(database, broker, batch_max="many").run())
    await asyncio.wait([run], timeout=10)
    assert run.done()
    assert run.exception() is not None


async def test_a_message_that_is_lost_is_published_again(database: Database, broker: Broker) -> None:
    row = accepted(LONG_AGO)
    await write(database, row)
    relay = relay_for(database, broker)
    await relay.run_once()
    await broker.arq_connection.flushall()
    assert await relay.run_once() == 0
    async with database.transaction() as connection:  # the half minute passes
        await connection.execute(update(payments).values(due_at=LONG_AGO))
    assert await relay.run_once() == 1
    assert await items_in(broker, Queue.PROCESS) == [row.work_item]
    assert [payment.status for payment in await read_all(database)] == [PaymentStatus.PENDING]
