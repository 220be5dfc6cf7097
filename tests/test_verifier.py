"""A worker that verifies when it is asked: what it says and keeps, and what ends it early."""

import asyncio
import socket
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import delete, text
from structlog.testing import capture_logs

from shared.broker.client import Broker, open_broker
from shared.broker.verify_runs import (
    ASKED_KEY,
    CURRENT_KEY,
    KEPT_S,
    VerifyRun,
    VerifyStatus,
    ask_for_verify,
    find_verify,
    say_verify,
)
from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.tables import deliveries
from shared.errors import BrokerUnavailable, CommitUnknown
from shared.verify.reports import last_report
from shared.verify.scan import Scan
from shared.verify.verifier import STATEMENT_S, Verification
from tests.support.api_client import RunningApi, problem
from tests.support.verified import build
from tests.support.verify_runs import asked, ended, known
from worker.verifier import DEFECT, RUN_MAX_S, TOO_LONG, UNAVAILABLE, Verifier

pytest_plugins = ["tests.support.api_fixtures"]
ONE = VerifyStatus


async def replace_by(broker: Broker, run: VerifyRun) -> None:
    """Redis forgets what is under way, and another run is asked for: in one step, so that no worker speaks between."""
    stored = orjson.dumps(run.to_json())
    await broker.round_trip(lambda pipe: [pipe.set(key, stored) for key in (CURRENT_KEY, ASKED_KEY)], timeout_s=1)


async def test_a_worker_verifies_and_keeps_the_report(database: Database, settings: Settings, broker: Broker) -> None:
    await build(database, settings)
    one, two = [Verifier(settings, broker, worker=name) for name in ("one", "two")]
    assert not await one.run_once()
    await ask_for_verify(broker, asked())
    assert await one.run_once()
    assert not await two.run_once()
    run = await known(broker)
    assert (run.status, run.worker, run.failure) == (ONE.DONE, "one", None)
    async with database.read() as connection:
        report = await last_report(connection)
    assert report is not None
    assert report["is_sound"]
    assert run.checked == run.total == report["payments_checked"] + report["idempotency_keys_checked"]


async def test_its_report_has_the_breaches(database: Database, settings: Settings, broker: Broker) -> None:
    await build(database, settings)
    async with database.transaction() as connection:
        await connection.execute(delete(deliveries))
    await ask_for_verify(broker, asked())
    await Verifier(settings, broker, worker="one").run_once()
    async with database.read() as connection:
        report = await last_report(connection)
    assert report is not None
    assert "missing_callback_delivery" in {breach["kind"] for breach in report["breaches"]}


@pytest.mark.parametrize(("counts", "how_far"), [((4,), (4, 10)), ((4, 8), (12, 12))])
async def test_how_far_it_is_is_known_before_its_end(
    database: Database, settings: Settings, broker: Broker, counts: tuple[int, ...], how_far: tuple[int, int]
) -> None:
    """Payments that arrive meanwhile are checked, too: it is never further than the end."""

    async def stuck(scan: Scan, _settings: Settings) -> Verification:
        for count in counts:
            scan.on_progress(count)
        raise RuntimeError

    await build(database, settings)
    await ask_for_verify(broker, asked())
    await Verifier(settings, broker, worker="one", verify=stuck).run_once()
    run = await known(broker)
    assert (run.checked, run.total) == how_far


async def test_its_statements_may_take_long(
    database: Database, settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def opening(given: Settings, *, statement_s: float) -> Database:
        limits.append(statement_s)
        return open_database(given, statement_s=statement_s)

    monkeypatch.setattr("worker.verifier.open_database", opening)
    await ask_for_verify(broker, asked())
    await Verifier(settings, broker, worker="one").run_once()
    assert (await known(broker)).status is ONE.DONE
    assert limits == [STATEMENT_S]


async def test_without_a_database_it_says_so(make_settings: Any, broker: Broker) -> None:
    settings = make_settings(database_url="postgresql://127.0.0.1:1/x")
    await ask_for_verify(broker, asked())
    assert await Verifier(settings, broker, worker="one").run_once()
    assert (await known(broker)).failure == UNAVAILABLE


async def test_a_database_that_is_silent_is_reported_as_soon_as_anywhere_else(
    make_settings: Any, broker: Broker
) -> None:
    # Connections get into the backlog of this socket, and nobody answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x"
        verifier = Verifier(make_settings(database_url=url, database_timeout_s=0.3), broker, worker="one")
        await ask_for_verify(broker, asked())
        async with asyncio.timeout(20):
            assert await verifier.run_once()
    assert (await known(broker)).failure == UNAVAILABLE


async def test_a_report_that_may_not_be_kept_is_none(database: Database, settings: Settings, broker: Broker) -> None:
    class Unkept(Verification):
        async def keep(self, database: Database) -> None:  # noqa: ARG002 - as in the class
            raise CommitUnknown("the answer was lost")

    async def verify(scan: Scan, _settings: Settings) -> Verification:
        return Unkept(scan.found, {}, datetime.now(UTC), datetime.now(UTC))

    await ask_for_verify(broker, asked())
    assert await Verifier(settings, broker, worker="one", verify=verify).run_once()
    run = await known(broker)
    assert (run.status, run.failure) == (ONE.FAILED, UNAVAILABLE)


async def test_without_redis_a_worker_goes_on(settings: Settings) -> None:
    broker = open_broker("redis://127.0.0.1:1")
    assert not await Verifier(settings, broker, worker="one").run_once()
    await broker.close()


async def test_what_takes_too_long_ends(
    database: Database, settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(_scan: Scan, _settings: Settings) -> Verification:
        await asyncio.sleep(60)
        raise AssertionError

    # Else another worker could take it again.
    assert RUN_MAX_S < KEPT_S
    monkeypatch.setattr("worker.verifier.RUN_MAX_S", 0.2)
    await ask_for_verify(broker, asked())
    async with asyncio.timeout(20):
        assert await Verifier(settings, broker, worker="one", verify=endless).run_once()
    run = await known(broker)
    assert (run.status, run.failure) == (ONE.FAILED, TOO_LONG)


async def test_the_last_word_of_a_run_is_repeated_until_redis_hears_it(
    database: Database, settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    unheard = iter(range(3))

    async def say(broker: Broker, run: VerifyRun) -> bool:
        if run.status is not ONE.RUNNING and next(unheard, None) is not None:
            raise BrokerUnavailable("no answer")
        return await say_verify(broker, run)

    monkeypatch.setattr("worker.verifier.say_verify", say)
    monkeypatch.setattr("worker.verifier.HEARTBEAT_INTERVAL_S", 0.01)
    await ask_for_verify(broker, asked())
    assert await Verifier(settings, broker, worker="one").run_once()
    assert (await known(broker)).status is ONE.DONE


async def test_a_defect_of_a_check_stops_no_worker(database: Database, settings: Settings, broker: Broker) -> None:
    async def broken(_scan: Scan, _settings: Settings) -> Verification:
        raise RuntimeError

    await ask_for_verify(broker, asked())
    assert await Verifier(settings, broker, worker="one", verify=broken).run_once()
    assert (await known(broker)).failure == DEFECT


async def test_a_run_ends_when_another_was_asked_for(database: Database, settings: Settings, broker: Broker) -> None:
    other = asked()

    async def slow(_scan: Scan, _settings: Settings) -> Verification:
        await replace_by(broker, other)
        async with database.read() as connection:
            while True:
                await connection.execute(text("SELECT 1"))

    await ask_for_verify(broker, asked())
    assert await Verifier(settings, broker, worker="one", verify=slow).run_once()
    assert await known(broker) == other


async def test_a_run_that_was_replaced_says_nothing_of_its_end(
    database: Database, settings: Settings, broker: Broker
) -> None:
    others: list[VerifyRun] = []

    async def slow(_scan: Scan, _settings: Settings) -> Verification:
        await replace_by(broker, asked())
        try:
            await asyncio.sleep(60)
        finally:
            # The other one is over when this one ends, so nothing stands in the way of its last word.
            others.append(await ended(broker))
        raise AssertionError

    await ask_for_verify(broker, asked())
    assert await Verifier(settings, broker, worker="two", verify=slow).run_once()
    assert await known(broker) == others[0]


async def test_a_run_that_was_replaced_does_not_come_back_when_redis_forgets_the_other(
    database: Database, settings: Settings, broker: Broker
) -> None:
    async def slow(_scan: Scan, _settings: Settings) -> Verification:
        await replace_by(broker, asked())
        try:
            await asyncio.sleep(60)
        finally:
            await broker.round_trip(lambda pipe: pipe.flushdb(), timeout_s=1)
        raise AssertionError

    await ask_for_verify(broker, asked())
    assert await Verifier(settings, broker, worker="one", verify=slow).run_once()
    assert await find_verify(broker) is None


async def test_over_the_api(running_api: RunningApi, admin: httpx.AsyncClient, settings: Settings) -> None:
    problem(await admin.get("/verify/run"), 404, "not_found")
    with capture_logs() as logs:
        waiting = await admin.post("/verify/run")
    assert waiting.status_code == 202
    assert waiting.json()["status"] == "waiting"
    [line] = [line for line in logs if line["event"] == "verify.asked"]
    assert (line["run_id"], line["by"]) == (waiting.json()["id"], "admin:root")
    with capture_logs() as logs:
        assert (await admin.post("/verify/run")).json() == waiting.json() == (await admin.get("/verify/run")).json()
    # Who asks while one is under way has not asked for it.
    assert "verify.asked" not in {line["event"] for line in logs}
    await Verifier(settings, running_api.runtime.broker, worker="one").run_once()
    done = (await admin.get("/verify/run")).json()
    assert (done["id"], done["status"], done["worker"]) == (waiting.json()["id"], "done", "one")
    assert (await admin.get("/verify/last")).json()["is_sound"]
