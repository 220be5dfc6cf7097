"""The relay, on both databases and with a real Valkey: what is due comes to the queue, whatever was lost before."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from shared.config import Settings
from shared.db import Database
from shared.errors import DatabaseUnavailable
from shared.ids import new_id
from shared.leases import REPUBLISHED_AFTER_S, Ref
from shared.lifecycle import PaymentStatus
from shared.models import idempotency_keys, payments
from shared.payments.process import claim
from shared.queue import JOB_REFS_MAX, Carrier, Queue, open_carrier
from tests.messages import jobs_in, refs_in
from tests.receivers import complete_payments
from tests.rows import accepted, claimed, read, read_all, reasons, write
from tests.servers import ValkeyServer
from tests.waiting import eventually
from worker.relay import PASSES_MAX, Relay

NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(hours=1)


def relay_for(database: Database, carrier: Carrier, **changes: Any) -> Relay:
    values: dict[str, Any] = {"interval_s": 0.01, "batch_max": 500, "retention_h": 24, **changes}
    return Relay(database, carrier, **values)


async def due_now(database: Database) -> int:
    async with database.read() as connection:
        found = await connection.execute(
            select(func.count()).select_from(payments).where(payments.c.due_at <= await database.clock.now(connection))
        )
        return int(found.scalar_one())


async def test_a_round_brings_every_due_row_of_both_tables_to_its_queue(database: Database, carrier: Carrier) -> None:
    lost, crashed = accepted(LONG_AGO), claimed(LONG_AGO, claims=2)
    busy, ended = claimed(NOW, due_at=NOW + timedelta(hours=1)), accepted(LONG_AGO, due_at=None, due_reason=None)
    refs = await write(database, lost, crashed, busy, ended)
    async with database.transaction() as connection:
        to_deliver = await complete_payments(connection, 2, now=LONG_AGO, callback_url="https://shop.example/")
    relay = relay_for(database, carrier)
    assert await relay.run_once() == 4
    assert sorted(await refs_in(carrier, Queue.PROCESS)) == sorted(refs[:2])
    assert sorted(await refs_in(carrier, Queue.DELIVER)) == sorted(to_deliver)
    for row in (lost, crashed):
        due_at = (await read(database, row.id)).due_at
        assert due_at is not None
        assert 0 < REPUBLISHED_AFTER_S - (due_at - datetime.now(UTC)).total_seconds() < 30  # the round was just now
    assert (await read(database, busy.id)).due_at == busy.due_at
    assert await relay.run_once() == 0


async def test_its_tickets_are_good_for_the_next_claim(database: Database, carrier: Carrier) -> None:
    row = claimed(LONG_AGO)
    await write(database, row)
    await relay_for(database, carrier).run_once()
    async with database.transaction() as connection:
        [payment] = await claim(connection, NOW, await refs_in(carrier, Queue.PROCESS), lease_s=30)
    assert payment is not None
    assert await reasons(database, row.id) == ["accepted", "claimed", "lease_expired"]


async def test_a_backlog_goes_out_in_bounded_batches_within_one_round(database: Database, carrier: Carrier) -> None:
    refs = await write(database, *(accepted(LONG_AGO) for _ in range(2 * JOB_REFS_MAX + 35)))
    assert await relay_for(database, carrier, batch_max=JOB_REFS_MAX + 10).run_once() == len(refs)
    jobs = await jobs_in(carrier, Queue.PROCESS)
    assert sorted(map(len, jobs)) == sorted([JOB_REFS_MAX, 10, JOB_REFS_MAX, 10, 15])
    assert sorted(ref for job in jobs for ref in job) == sorted(refs)


async def test_one_tables_backlog_does_not_keep_the_other_waiting(database: Database, carrier: Carrier) -> None:
    await write(database, *(accepted(LONG_AGO) for _ in range(PASSES_MAX + 5)))
    async with database.transaction() as connection:
        [to_deliver] = await complete_payments(connection, 1, now=LONG_AGO, callback_url="https://shop.example/")
    assert await relay_for(database, carrier, batch_max=1).run_once() == PASSES_MAX + 1
    assert await refs_in(carrier, Queue.DELIVER) == [to_deliver]
    assert await due_now(database) == 5


async def test_relays_beside_each_other_publish_every_ticket_once(database: Database, carrier: Carrier) -> None:
    refs = await write(database, *(accepted(LONG_AGO) for _ in range(120)))
    relays = [relay_for(database, carrier, batch_max=7) for _ in range(4)]
    while await due_now(database):
        await asyncio.gather(*(relay.run_once() for relay in relays))
    assert sorted(await refs_in(carrier, Queue.PROCESS)) == sorted(refs)


async def test_without_redis_nothing_is_taken(database: Database, settings: Settings, tmp_path: Path) -> None:
    row = accepted(LONG_AGO)
    await write(database, row)
    with ValkeyServer(tmp_path / "valkey") as own:
        carrier = open_carrier(own.url)
        own.kill()
        relay = relay_for(database, carrier)
        assert await relay.run_once() == 0
        assert await read(database, row.id) == row
        own.start()
        assert await relay.run_once() == 1  # at once: the round asks anew whether Redis answers
        await carrier.close()


class Torn(Carrier):
    """A carrier that breaks after some messages."""

    def __init__(self, whole: Carrier, *, after: int) -> None:
        super().__init__(whole.redis)
        self.left = after

    async def publish(self, queue: Queue, refs: Sequence[Ref], *, score_ms: int | None = None) -> bool:
        self.left -= 1
        return self.left >= 0 and await super().publish(queue, refs, score_ms=score_ms)


async def test_what_does_not_get_through_is_due_again_at_once(database: Database, carrier: Carrier) -> None:
    refs = await write(database, *(accepted(LONG_AGO) for _ in range(3 * JOB_REFS_MAX)))
    assert await relay_for(database, Torn(carrier, after=1)).run_once() == JOB_REFS_MAX
    assert await due_now(database) == 2 * JOB_REFS_MAX
    assert await relay_for(database, carrier).run_once() == 2 * JOB_REFS_MAX
    assert sorted(await refs_in(carrier, Queue.PROCESS)) == sorted(refs)


class Away(Database):
    """The test's database, which comes and goes."""

    is_away = False

    def __init__(self, sound: Database) -> None:
        super().__init__(sound._engine, clock=sound.clock)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        if self.is_away:
            raise DatabaseUnavailable("away")
        async with super().transaction() as connection:
            yield connection


async def test_a_database_that_is_away_is_waited_for(database: Database, carrier: Carrier) -> None:
    row = accepted(LONG_AGO)
    away = Away(database)
    away.is_away = True
    relay = relay_for(away, carrier)
    await write(database, row)
    with capture_logs() as logs:
        run = asyncio.create_task(relay.run())
        await eventually(lambda: [line["event"] for line in logs].count("relay.database_failed") > 2)
        ran_at = relay.ran_at
        assert not run.done()
        away.is_away = False
        await eventually(lambda: refs_in(carrier, Queue.PROCESS))
        await eventually(lambda: relay.ran_at > ran_at)
    run.cancel()
    await asyncio.wait([run])


async def test_a_relay_that_meets_a_bug_ends_instead_of_doing_nothing(database: Database, carrier: Carrier) -> None:
    """Whoever runs it ends with it: see test_pipeline."""
    run = asyncio.create_task(relay_for(database, carrier, batch_max="many").run())
    await asyncio.wait([run], timeout=10)
    assert run.done()
    assert run.exception() is not None


async def test_idempotency_keys_are_kept_as_long_as_promised_and_then_purged(
    database: Database, carrier: Carrier
) -> None:
    def key(name: str, *, hours_ago: float) -> dict[str, Any]:
        created_at = NOW - timedelta(hours=hours_ago)
        return {"scope": "s", "key": name, "fingerprint": "f", "object_id": new_id(), "created_at": created_at}

    async with database.transaction() as connection:
        await connection.execute(insert(idempotency_keys), [key("old", hours_ago=25), key("young", hours_ago=23)])
    relay = relay_for(database, carrier)
    await relay.run_once()
    assert sorted(await keys_in(database)) == ["old", "young"]  # not at every round
    relay._purged_at -= 3600
    await relay.run_once()
    assert await keys_in(database) == ["young"]


async def keys_in(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(select(idempotency_keys.c.key))).scalars())


async def test_a_message_that_is_lost_is_published_again(database: Database, carrier: Carrier) -> None:
    row = accepted(LONG_AGO)
    await write(database, row)
    relay = relay_for(database, carrier)
    await relay.run_once()
    await carrier.redis.flushall()
    assert await relay.run_once() == 0
    async with database.transaction() as connection:  # the half minute passes
        await connection.execute(update(payments).values(due_at=LONG_AGO))
    assert await relay.run_once() == 1
    assert await refs_in(carrier, Queue.PROCESS) == [row.ref]
    assert [payment.status for payment in await read_all(database)] == [PaymentStatus.PENDING]
