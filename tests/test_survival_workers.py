"""Workers that are stopped, killed and paused: what was accepted is not lost, and nothing is charged twice."""

import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.broker.client import Queue, open_broker
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.migrations import migrate
from tests.support.processes import PaymentsProcess, processes
from tests.support.rows import accepted, assert_sound, read_all, reasons, write
from tests.support.servers import PostgresServer
from tests.support.survival import (
    MakeSettings,
    all_reasons,
    charged_but_not_recorded,
    everything_settles,
    on_postgresql,
    opened,
    statuses,
)
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]


async def publish(settings: Settings, database: Database, count: int) -> None:
    """Accept `count` payments as the API does, and publish them."""
    items = await write(database, *(accepted(datetime.now(UTC)) for _ in range(count)))
    broker = open_broker(settings.redis_url or "")
    assert await broker.publish(Queue.PROCESS, items)
    await broker.close()


# -- a worker is stopped


@on_postgresql
async def test_a_worker_that_is_asked_to_stop_finishes_what_it_has_and_loses_nothing(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    settings = slow_gateway()
    first = PaymentsProcess("worker", tmp_path / "first", settings)
    second = PaymentsProcess("worker", tmp_path / "second", settings)
    with processes(first, second):
        await first.ready()
        await second.ready()
        await publish(settings, database, 40)
        await eventually(lambda: len(first.lines("payment.claimed")) >= 5)
        first.terminate()
        assert await first.ended(settings.payment_processing_delay_max / 1000 + 2 + 10) == 0
        assert first.errors == ""
        began = {line["payment_id"] for line in first.lines("payment.claimed")}
        ended = {line["payment_id"] for line in first.lines() if line["event"] in ENDED}
        assert began == ended
        await everything_settles(database, 40)
        assert "lease_expired" not in await all_reasons(database)


ENDED = {"payment.completed", "payment.failed", "payment.postponed", "payment.released"}


@pytest.mark.slow
@on_postgresql
async def test_what_the_gateway_holds_up_at_a_stop_is_released_and_taken_over_at_once(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    """The gateway cannot reach its ledger, so it gives no answer before the worker has to go."""
    settings = slow_gateway(payment_success_rate=1, database_timeout_s=1.5, lease_s=60)
    first = PaymentsProcess("worker", tmp_path / "first", settings)
    second = PaymentsProcess("worker", tmp_path / "second", settings)
    with processes(first):
        await first.ready()
        # PostgreSQL would end an idle transaction that has the time limit of the worker.
        patient = settings.model_copy(update={"database_timeout_s": 60.0})
        async with opened(patient) as other, other.transaction() as connection:
            await connection.execute(text("LOCK TABLE gateway_ledger IN ACCESS EXCLUSIVE MODE"))
            await publish(settings, database, 10)
            await eventually(lambda: counted(first, {"payment.outcome_unknown"}) >= 10)
            first.terminate()
            assert await first.ended(settings.payment_processing_delay_max / 1000 + 2 + 15) == 0
        assert len(first.lines("payment.released")) == 10
        assert {payment.due_reason for payment in await read_all(database)} == {"released"}
        with processes(second):
            await everything_settles(database, 10)
        for payment in await read_all(database):
            assert await reasons(database, payment.id) == ["accepted", "claimed", "released", "gateway_approved"]


# -- a worker is killed, or sleeps


@pytest.mark.slow
@on_postgresql
async def test_killed_workers_payments_are_finished_by_another_and_charged_once(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    settings = slow_gateway(worker_concurrency=40)
    first = PaymentsProcess("worker", tmp_path / "first", settings)
    second = PaymentsProcess("worker", tmp_path / "second", settings)
    with processes(first):
        await first.ready()
        await publish(settings, database, 40)
        await eventually(lambda: charged_but_not_recorded(database))
        first.kill()
        assert first.exit_code == -signal.SIGKILL
        left = await charged_but_not_recorded(database)
        assert "PROCESSING" in await statuses(database)
        with processes(second):
            await everything_settles(database, 40)
    assert "lease_expired" in await all_reasons(database)
    assert left, "nothing was between the ledger and the record: this run has shown little"


@pytest.mark.slow
@on_postgresql
async def test_a_worker_that_slept_through_its_lease_changes_nothing_when_it_resumes(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    settings = slow_gateway()
    sleeper = PaymentsProcess("worker", tmp_path / "sleeper", settings)
    other = PaymentsProcess("worker", tmp_path / "other", settings)
    with processes(sleeper):
        await sleeper.ready()
        await publish(settings, database, 10)
        await eventually(lambda: len(sleeper.lines("payment.claimed")) == 10)
        # It falls asleep while the gateway works, and in no statement of its own, which the database would end.
        await eventually(lambda: charged_but_not_recorded(database))
        sleeper.pause()
        with processes(other):
            await everything_settles(database, 10)
            before = await read_all(database)
            sleeper.resume()
            late = len(sleeper.lines("payment.claimed"))
            await eventually(lambda: gave_up(sleeper) == late, 30)
            assert sleeper.lines("payment.claim_lost")
            assert await read_all(database) == before
            await assert_sound(database)
            sleeper.terminate()
            assert await sleeper.ended() == 0


def gave_up(worker: PaymentsProcess) -> int:
    """How many of its payments a worker has done with, one way or another."""
    return counted(worker, ENDED | {"payment.claim_lost", "payment.record_failed", "payment.lease_abandoned"})


def counted(worker: PaymentsProcess, events: set[str]) -> int:
    """How many lines a worker has logged, or left out because they repeat."""
    left_out: list[dict[str, int]] = [line["counts"] for line in worker.lines("logs.left_out")]
    logged = len([line for line in worker.lines() if line["event"] in events])
    return logged + sum(counts.get(event, 0) for counts in left_out for event in events)


# -- a part dies


@pytest.mark.slow
@on_postgresql
async def test_a_worker_outlives_a_table_that_is_not_as_it_should_be(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """Its relay meets it with payments in the gateway, and goes on when the table is well again."""
    settings = slow_gateway(
        database_url=own_postgres.url_of("own"),
        payment_processing_delay_min=20_000,
        payment_processing_delay_max=20_000,
        lease_s=31,
    )
    await migrate(settings)
    worker = PaymentsProcess("worker", tmp_path / "worker", settings)
    async with opened(settings) as database:
        with processes(worker):
            await worker.ready()
            await publish(settings, database, 15)
            await eventually(lambda: len(worker.lines("payment.claimed")) == 10)
            own_postgres.execute("ALTER TABLE payments.payments RENAME COLUMN due_at TO was_due_at", database="own")
            await eventually(lambda: worker.lines("relay.database_failed"))
            own_postgres.execute("ALTER TABLE payments.payments RENAME COLUMN was_due_at TO due_at", database="own")
            assert worker.is_running
            assert sorted(await statuses(database)) == ["PENDING"] * 5 + ["PROCESSING"] * 10
            # The first ten are recorded, and then the others have their turn.
            await eventually(lambda: len(worker.lines("payment.claimed")) == 15, timeout_s=40)
