"""Real processes, and what is done to them: killed, stopped, paused, and robbed of their database and their Redis.

Whatever happens, nothing that was accepted is lost and nothing is charged twice.
"""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
import redis.asyncio
from sqlalchemy import select, text

from api.main import listen
from shared.config import Settings
from shared.db import Database, open_database
from shared.errors import CommitUnknown, DatabaseUnavailable
from shared.models import gateway_ledger, payments
from shared.queue import Queue, open_carrier
from shared.schema import VERSION_TABLE, head, known_revisions, migrate
from tests.processes import PaymentsProcess, Shop, environment_of, processes
from tests.receivers import receiver
from tests.rows import accepted, are_settled, assert_sound, read_all, reasons, write
from tests.servers import PostgresServer, ValkeyServer, free_port
from tests.waiting import eventually

type MakeSettings = Callable[..., Settings]

PROMPT_S = 0.5  # what accepting may take, whatever state Redis is in
SHORT_LEASE_S = 11.5  # just above what the settings allow with the delays below
SETTLED_S = 90.0  # generous: half a minute is what the relay may take to publish again

on_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def slow_gateway(make_settings: MakeSettings) -> MakeSettings:
    """Settings with ten slots per worker and payments that stay in the gateway long enough to be met there."""

    def make(**changes: Any) -> Settings:
        values = {
            "worker_concurrency": 10,
            "payment_processing_delay_min": 300,
            "payment_processing_delay_max": 500,
            "payment_success_rate": 0.9,
            "lease_s": SHORT_LEASE_S,
            "relay_interval_s": 0.5,
            "poll_delay_ms": 20,
        }
        return make_settings(**{**values, **changes})

    return make


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "own-valkey") as server:
        yield server


@pytest.fixture(scope="module")
def _own_postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def own_postgres(_own_postgres: PostgresServer) -> PostgresServer:
    """A server that may be killed and paused, with an empty database `own`."""
    _own_postgres.start()
    _own_postgres.drop_database("own")
    _own_postgres.create_database("own")
    return _own_postgres


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    database = open_database(settings)
    try:
        yield database
    finally:
        await database.dispose()


async def publish(settings: Settings, database: Database, count: int) -> None:
    """Accept `count` payments as the API does, and publish them."""
    refs = await write(database, *(accepted(datetime.now(UTC)) for _ in range(count)))
    carrier = open_carrier(settings.redis_url or "")
    assert await carrier.publish(Queue.PROCESS, refs)
    await carrier.close()


async def statuses(database: Database) -> list[str]:
    return [payment.status.value for payment in await read_all(database)]


async def everything_settles(database: Database, count: int) -> None:
    await eventually(lambda: are_settled(database, count), SETTLED_S)
    await assert_sound(database)


async def booked_but_not_recorded(database: Database) -> int:
    """Payments that the gateway has charged without their worker having written that down."""
    async with database.read() as connection:
        found = await connection.execute(
            select(payments.c.id)
            .join(gateway_ledger, gateway_ledger.c.payment_id == payments.c.id)
            .where(payments.c.status == "PROCESSING", gateway_ledger.c.kind.in_(["capture", "sale", "decline"]))
        )
        return len(found.all())


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
    """The gateway cannot reach its books, so it gives no answer before the worker has to go."""
    settings = slow_gateway(payment_success_rate=1, database_timeout_s=1.5, lease_s=60)
    first = PaymentsProcess("worker", tmp_path / "first", settings)
    second = PaymentsProcess("worker", tmp_path / "second", settings)
    with processes(first):
        await first.ready()
        async with opened(settings) as other, other.transaction() as connection:
            await connection.execute(text("LOCK TABLE gateway_ledger IN ACCESS EXCLUSIVE MODE"))
            await publish(settings, database, 10)
            await eventually(lambda: len(first.lines("payment.outcome_unknown")) >= 10)
            first.terminate()
            assert await first.ended(settings.payment_processing_delay_max / 1000 + 2 + 15) == 0
        assert len(first.lines("payment.released")) == 10
        assert {payment.due_reason for payment in await read_all(database)} == {"released"}
        with processes(second):
            await everything_settles(database, 10)  # within 90 s; the leases last 60
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
        await eventually(lambda: booked_but_not_recorded(database))
        first.kill()
        assert first.exit_code == -signal.SIGKILL
        left = await booked_but_not_recorded(database)
        assert "PROCESSING" in await statuses(database)
        with processes(second):
            await everything_settles(database, 40)
    assert "lease_expired" in await all_reasons(database)
    assert left, "nothing was between the books and the record: this run has shown little"


@pytest.mark.slow
@on_sqlite
async def test_up_goes_on_where_it_was_when_it_is_killed_and_started_again(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    settings = slow_gateway(redis_url=None)
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            for _ in range(25):
                await shop.accepted()
            await eventually(lambda: booked_but_not_recorded(database))
            family = up.children()
            up.kill()
            await eventually(lambda: not any(process.is_running() for process in family))
            assert {"PENDING", "PROCESSING"} <= set(await statuses(database))
            up.start()
            await up.ready()
            await shop.accepted()
            await everything_settles(database, 26)
        assert "lease_expired" in await all_reasons(database)


@pytest.mark.slow
@on_postgresql
async def test_a_worker_that_slept_through_its_lease_changes_nothing_when_it_wakes_up(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    settings = slow_gateway()
    sleeper = PaymentsProcess("worker", tmp_path / "sleeper", settings)
    other = PaymentsProcess("worker", tmp_path / "other", settings)
    with processes(sleeper):
        await sleeper.ready()
        await publish(settings, database, 10)
        await eventually(lambda: len(sleeper.lines("payment.claimed")) == 10)
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
    done = ENDED | {"payment.claim_lost", "payment.record_failed", "payment.left_to_its_lease"}
    return len([line for line in worker.lines() if line["event"] in done])


async def all_reasons(database: Database) -> set[str]:
    return {reason for payment in await read_all(database) for reason in await reasons(database, payment.id)}


# -- Redis dies, forgets and hangs


@on_postgresql
async def test_without_redis_and_with_the_api_killed_right_after_its_answer_a_payment_is_processed(
    slow_gateway: MakeSettings, database: Database, own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    settings = slow_gateway(redis_url=own_valkey.url)
    api = PaymentsProcess("api", tmp_path / "api", settings)
    worker = PaymentsProcess("worker", tmp_path / "worker", settings)
    with processes(api, worker):
        await api.ready()
        await worker.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            await shop.accepted()
            own_valkey.kill()
            assert_prompt([await seconds_to_accept(shop) for _ in range(5)])
            api.kill()
        assert worker.is_running
        own_valkey.start()
        await everything_settles(database, 6)


@on_sqlite
async def test_up_restarts_its_killed_valkey_and_accepts_all_the_while(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    settings = slow_gateway(redis_url=None)
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            [valkey] = up.children()
            took_s = []
            for number in range(30):
                if number == 12:
                    valkey.kill()
                took_s.append(await seconds_to_accept(shop))
            assert_prompt(took_s)
            await eventually(lambda: up.lines("valkey.restarted"))
            await everything_settles(database, 30)
        [successor] = up.children()
        assert successor.pid != valkey.pid


@dataclass
class Service:
    """Processes that work together, and a client with a card."""

    api: PaymentsProcess
    workers: list[PaymentsProcess]
    shop: Shop

    def count(self, event: str) -> int:
        """How often the workers logged it."""
        return sum(len(worker.lines(event)) for worker in self.workers)


@asynccontextmanager
async def a_service(settings: Settings, folder: Path, *, workers: int = 2) -> AsyncIterator[Service]:
    """An API and workers, none of which may end before the block does."""
    api = PaymentsProcess("api", folder / "api", settings)
    hands = [PaymentsProcess("worker", folder / f"worker-{number}", settings) for number in range(workers)]
    with processes(api, *hands):
        for process in (api, *hands):
            await process.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            yield Service(api, hands, shop)
        for process in (api, *hands):
            assert process.is_running, f"{process.command} ended: {process.errors}"
            process.terminate()
        for process in (api, *hands):
            assert await process.ended() == 0
            assert process.errors == ""


async def accepting(shop: Shop, done: asyncio.Event) -> int:
    """Accept one payment after the other, each in time, until `done`; how many there were."""
    took_s = []
    while not done.is_set():
        took_s.append(await seconds_to_accept(shop))
    assert_prompt(took_s)
    return len(took_s)


async def seconds_to_accept(shop: Shop) -> float:
    started = monotonic()
    await shop.accepted()
    return monotonic() - started


def assert_prompt(took_s: Sequence[float]) -> None:
    """Accepted at once, whatever state Redis is in; one in twenty may have waited for this machine instead."""
    assert sorted(took_s)[len(took_s) * 19 // 20 - 1] < PROMPT_S, took_s
    assert max(took_s) < 4 * PROMPT_S, took_s


@pytest.mark.slow
@on_postgresql
@pytest.mark.parametrize("trouble", ["restart", "forget", "hang"])
async def test_whatever_redis_does_under_load_everything_that_was_accepted_ends(
    slow_gateway: MakeSettings, database: Database, own_valkey: ValkeyServer, tmp_path: Path, trouble: str
) -> None:
    settings = slow_gateway(redis_url=own_valkey.url)
    async with a_service(settings, tmp_path) as service:
        done = asyncio.Event()
        load = asyncio.create_task(accepting(service.shop, done))
        await eventually(lambda: are_accepted(database, 40), 30)
        async with redis.asyncio.Redis.from_url(own_valkey.url) as client:
            match trouble:
                case "restart":
                    own_valkey.kill()
                    await eventually(lambda: are_accepted(database, 80), 30)
                    own_valkey.start()
                case "forget":
                    for count in (60, 80, 100):
                        await client.flushall()
                        await eventually(lambda count=count: are_accepted(database, count), 30)  # type: ignore[misc]
                case _:
                    own_valkey.pause()
                    resumed_at = monotonic() + 5
                    await eventually(lambda: monotonic() > resumed_at)
                    own_valkey.resume()
        await eventually(lambda: are_accepted(database, 120), 60)
        done.set()
        await everything_settles(database, await load)


async def are_accepted(database: Database, count: int) -> bool:
    return len(await read_all(database)) >= count


# -- the database goes away


async def unavailable(shop: Shop) -> httpx.Response | None:
    """The answer of an API whose database is away; None as long as it answers otherwise."""
    answer = await shop.pay()
    assert answer.status_code in {202, 503}, answer.text
    return answer if answer.status_code == 503 else None


@on_postgresql
@pytest.mark.parametrize("away_s", [1, pytest.param(5, marks=pytest.mark.slow)])
async def test_without_postgresql_answers_are_503_and_when_it_is_back_all_goes_on(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str, away_s: float
) -> None:
    settings = slow_gateway(
        database_url=own_postgres.url_of("own"),
        payment_success_rate=1,
        payment_processing_delay_min=900,
        payment_processing_delay_max=1000,
    )
    await migrate(settings)
    async with a_service(settings, tmp_path, workers=1) as service:
        shop = service.shop
        accepted_ids = [await shop.accepted() for _ in range(5)]
        await eventually(lambda: service.count("payment.claimed") == 5)
        own_postgres.kill()
        unknown = 0
        back_at = monotonic() + away_s
        while monotonic() < back_at:
            answer = await shop.pay()
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] in {"unavailable", "outcome_unknown"}
            assert int(answer.headers["Retry-After"]) >= 1
            unknown += answer.json()["code"] == "outcome_unknown"
            assert (await shop.http.get(f"/payments/{accepted_ids[0]}")).status_code == 503
        own_postgres.start()
        await eventually(lambda: is_accepted(shop), 30)
        async with opened(settings) as database:
            await everything_ends(database)
            found = {str(payment.id): payment for payment in await read_all(database)}
        assert set(accepted_ids) <= set(found)
        assert len(found) <= len(accepted_ids) + 1 + unknown, "what was refused has left a row"
        assert {found[each].attempt for each in accepted_ids} == {1}, "what a worker had learned was lost"


async def everything_ends(database: Database) -> None:
    """All that was accepted ends, whose number only the database knows."""
    await eventually(lambda: are_all_settled(database), SETTLED_S)
    await assert_sound(database)


async def is_processing(database: Database) -> bool:
    return "PROCESSING" in await statuses(database)


async def is_accepted(shop: Shop) -> bool:
    answer = await shop.pay()
    assert answer.status_code in {202, 503}, answer.text
    return answer.status_code == 202


async def are_all_settled(database: Database) -> bool:
    return all(payment.status.is_terminal for payment in await read_all(database))


@on_postgresql
async def test_a_connection_that_is_cut_at_any_moment_means_an_unavailable_database(
    make_settings: MakeSettings, postgres: PostgresServer
) -> None:
    """Also in the moment between the server's goodbye and the end of the connection, which asyncpg calls a bug."""
    settings, done, answered = make_settings(), asyncio.Event(), 0

    async def ask_all_the_time() -> None:
        nonlocal answered
        while not done.is_set():
            async with opened(settings) as database:
                with contextlib.suppress(DatabaseUnavailable, CommitUnknown):
                    for _ in range(3):
                        async with database.transaction() as connection:
                            await connection.execute(text("SELECT 1"))
                        answered += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(12):
            tasks.create_task(ask_all_the_time())
        for _ in range(30):
            await asyncio.to_thread(postgres.execute, CUT_ALL, database="payments_test")
        done.set()
    assert answered


CUT_ALL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'
"""


@pytest.mark.slow
@on_postgresql
async def test_a_postgresql_that_hangs_is_left_and_found_again(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path, redis_url: str
) -> None:
    settings = slow_gateway(database_url=own_postgres.url_of("own"), database_timeout_s=1)
    await migrate(settings)
    async with a_service(settings, tmp_path, workers=1) as service:
        shop = service.shop
        for _ in range(5):
            await shop.accepted()
        await eventually(lambda: service.count("payment.claimed") == 5)
        own_postgres.pause()
        back_at = monotonic() + 8
        while monotonic() < back_at:
            answer = await shop.pay()
            assert answer.status_code == 503, answer.text
        own_postgres.resume()
        await eventually(lambda: is_accepted(shop), 30)
        async with opened(settings) as database:
            await everything_ends(database)


@pytest.mark.slow
@on_sqlite
async def test_while_another_process_writes_to_the_file_for_five_seconds_answers_are_503(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path
) -> None:
    settings = slow_gateway(redis_url=None, payment_success_rate=1)
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            first = [await shop.accepted() for _ in range(5)]
            await eventually(lambda: is_processing(database))
            with closing(sqlite3.connect(settings.sqlalchemy_url.database or "", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                back_at = monotonic() + 5
                answers = []
                while monotonic() < back_at:
                    started = monotonic()
                    answers.append(await shop.pay())
                    assert monotonic() - started < 2 + settings.database_timeout_s + 3
                other.execute("ROLLBACK")
            assert 503 in {answer.status_code for answer in answers}
            for answer in answers:
                assert answer.status_code == 202 or int(answer.headers["Retry-After"]) >= 1
            await eventually(lambda: is_accepted(shop), 30)
            await everything_ends(database)
        found = {str(payment.id): payment for payment in await read_all(database)}
        assert {found[each].attempt for each in first} == {1}
        up.terminate()
        assert await up.ended() == 0


# -- `payments up` is stopped


@on_sqlite
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
async def test_up_drains_and_leaves_no_process_behind(
    slow_gateway: MakeSettings, database: Database, tmp_path: Path, how: str
) -> None:
    settings = slow_gateway(redis_url=None, payment_success_rate=1)
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        async with Shop(settings) as shop:
            await shop.add_card()
            for _ in range(15):
                await shop.accepted()
        await eventually(lambda: is_processing(database))
        family = up.children()
        assert [process.name() for process in family] == ["valkey-server"]
        if how == "Ctrl-C":
            up.interrupt()
        else:
            up.terminate()
        assert await up.ended() == 0
        assert not any(process.is_running() for process in family)
        assert "Traceback" not in up.errors + up.output
        assert "PROCESSING" not in await statuses(database)
        up.start()
        await up.ready()
        await everything_settles(database, 15)
        assert "lease_expired" not in await all_reasons(database)


# -- starts that fail


async def words_of_a_failed_start(process: PaymentsProcess, *, code: int, timeout_s: float = 30) -> str:
    """What it says before it ends."""
    with processes(process):
        assert await process.ended(timeout_s) == code, process.errors + process.output
    assert "Traceback" not in process.errors + process.output
    return " ".join(process.errors.split())


@on_sqlite
@pytest.mark.parametrize("command", ["api", "up"])
async def test_a_port_that_is_taken_is_named(make_settings: MakeSettings, tmp_path: Path, command: str) -> None:
    with listen("127.0.0.1", 0) as taken:
        settings = make_settings(port=taken.getsockname()[1])
        words = await words_of_a_failed_start(PaymentsProcess(command, tmp_path / command, settings), code=2)
    assert f"PORT: cannot listen on 127.0.0.1:{settings.port}" in words


@on_sqlite
@pytest.mark.parametrize("command", ["worker", "up"])
async def test_a_metrics_port_that_is_taken_is_named(make_settings: MakeSettings, tmp_path: Path, command: str) -> None:
    with listen("127.0.0.1", 0) as taken:
        settings = make_settings(metrics_port=taken.getsockname()[1])
        words = await words_of_a_failed_start(PaymentsProcess(command, tmp_path / command, settings), code=2)
    assert f"METRICS_PORT: cannot listen on 127.0.0.1:{settings.metrics_port}" in words


@on_sqlite
@pytest.mark.parametrize("command", ["api", "worker"])
@pytest.mark.parametrize("state", ["missing", "old"])
async def test_a_schema_that_is_missing_or_old_is_named_with_the_command_that_helps(
    settings: Settings, tmp_path: Path, command: str, state: str
) -> None:
    older = None if state == "missing" else (known_revisions() - {head()}).pop()
    set_back(settings.sqlalchemy_url.database or "", to=older)
    words = await words_of_a_failed_start(PaymentsProcess(command, tmp_path / command, settings), code=1)
    assert "run `payments migrate`" in words


@on_sqlite
@pytest.mark.parametrize("command", ["api", "worker", "up", "migrate"])
@pytest.mark.parametrize("what", ["not a database", "no folder", "no such database", "no such user"])
async def test_a_database_that_says_no_is_named_and_the_password_is_not(
    make_settings: MakeSettings, postgres: PostgresServer, tmp_path: Path, command: str, what: str
) -> None:
    (tmp_path / "text").write_text("This is no database, not in the least. " * 50)
    urls = {
        "not a database": f"sqlite:///{tmp_path}/text",
        "no folder": f"sqlite:///{tmp_path}/text/folder/payments.db",
        "no such database": f"postgresql://postgres:hush@127.0.0.1:{postgres.port}/nowhere",
        "no such user": f"postgresql://nobody:hush@127.0.0.1:{postgres.port}/postgres",
    }
    settings = make_settings(database_url=urls[what])
    process = PaymentsProcess(command, tmp_path / command, settings)
    words = await words_of_a_failed_start(process, code=2)
    assert "DATABASE_URL" in words
    assert "hush" not in process.errors + process.output


@on_sqlite
@pytest.mark.parametrize("command", ["api", "worker", "up"])
async def test_a_start_that_waits_for_its_database_can_be_stopped(
    make_settings: MakeSettings, tmp_path: Path, command: str
) -> None:
    settings = make_settings(database_url=f"postgresql://payments:hush@127.0.0.1:{free_port()}/payments")
    process = PaymentsProcess(command, tmp_path / command, settings)
    with processes(process):
        await eventually(lambda: process.lines("start.waits_for_database"), 30)
        process.terminate()
        assert await process.ended(15) == 0
    assert "hush" not in process.errors + process.output


@on_postgresql
async def test_a_database_that_is_there_a_little_later_is_waited_for(
    make_settings: MakeSettings, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    settings = make_settings(database_url=own_postgres.url_of("own"))
    await migrate(settings)
    own_postgres.kill()
    worker = PaymentsProcess("worker", tmp_path / "worker", settings)
    with processes(worker):
        await eventually(lambda: worker.lines("start.waits_for_database"), 30)
        own_postgres.start()
        await worker.ready()


@pytest.mark.slow
@on_sqlite
async def test_a_database_that_never_comes_ends_the_start(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(database_url=f"postgresql://payments:hush@127.0.0.1:{free_port()}/payments")
    worker = PaymentsProcess("worker", tmp_path / "worker", settings)
    words = await words_of_a_failed_start(worker, code=1, timeout_s=100)
    assert "The database does not answer" in words


@on_sqlite
def test_wrong_settings_are_named_all_at_once(settings: Settings) -> None:
    environment = environment_of(settings) | {
        "LEASE_S": "3",
        "PAYMENT_SUCCESS_RATE": "nine",
        "DATABASE_URL": "mysql://x",
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("payments"), "worker"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for name in ("PAYMENT_SUCCESS_RATE", "DATABASE_URL"):
        assert name in done.stderr


def set_back(path: str, *, to: str | None) -> None:
    """Make the database one of an earlier version; None = empty."""
    if to is None:
        Path(path).unlink()
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", [to])  # noqa: S608 - our own name


# -- a part dies


@on_postgresql
async def test_a_worker_with_a_part_that_died_ends_for_another_to_take_over(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    """Its relay meets a table that is not as it should be, with payments in the gateway."""
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
            assert await worker.ended(15) == 1
            own_postgres.execute("ALTER TABLE payments.payments RENAME COLUMN was_due_at TO due_at", database="own")
        assert sorted(await statuses(database)) == ["PENDING"] * 5 + ["PROCESSING"] * 10


# -- one id from the request to the webhook


@on_sqlite
async def test_a_correlation_id_travels_from_the_request_through_the_logs_to_the_webhook(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(redis_url=None, payment_success_rate=1)
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        async with receiver() as shop_server, Shop(settings) as shop:
            await shop.add_card()
            answer = await shop.pay(callback_url=shop_server.url, headers={"X-Correlation-ID": "order-4711"})
            assert answer.headers["X-Correlation-ID"] == "order-4711"
            await eventually(lambda: shop_server.requests)
            [request] = shop_server.requests
            assert httpx.Headers(request.headers)["X-Correlation-ID"] == "order-4711"
            payment_id = answer.json()["id"]
            await eventually(lambda: up.lines("delivery.delivered"))
        for event in ("payment.claimed", "payment.completed", "delivery.delivered"):
            assert up.lines(event, payment_id=payment_id, correlation_id="order-4711"), event
        assert up.lines("http.answered", path="/api/v1/payments", correlation_id="order-4711")
