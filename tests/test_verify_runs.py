"""Verifications that are asked of the workers: one at a time, with progress, and with a word when nobody does them."""

import asyncio
import socket
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
from sqlalchemy import delete, text

from shared.broker.client import Broker
from shared.broker.verify_runs import (
    ALIVE_S,
    ASKED_KEY,
    CURRENT_KEY,
    LAST_KEY,
    NO_WORKER,
    VerifyRun,
    VerifyStatus,
    ask_for_verify,
    find_verify,
    say_verify,
    take_verify,
)
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import deliveries
from shared.ids import new_id
from shared.verify.reports import last_report
from shared.verify.scan import Scan
from shared.verify.verifier import Verification
from tests.support.api_client import RunningApi, opened_with, problem
from tests.support.verified import build
from worker.verifier import DEFECT, UNAVAILABLE, Verifier

pytest_plugins = ["tests.support.api_fixtures"]
ONE = VerifyStatus


def asked() -> VerifyRun:
    return VerifyRun(id=new_id(), asked_at=datetime.now(UTC).replace(microsecond=0))


async def known(broker: Broker) -> VerifyRun:
    run = await find_verify(broker)
    assert run is not None
    return run


async def forget(broker: Broker, *keys: str) -> None:
    await broker.round_trip(lambda pipe: pipe.delete(*keys), timeout_s=1)


async def test_nobody_has_asked(broker: Broker) -> None:
    assert await find_verify(broker) is None
    assert await take_verify(broker, "one") is None


async def test_there_is_one_at_a_time_and_one_worker_takes_it(broker: Broker) -> None:
    first, second = asked(), asked()
    assert await ask_for_verify(broker, first) == first
    assert await ask_for_verify(broker, second) == first
    taken = await take_verify(broker, "one")
    assert taken == replace(first, status=ONE.RUNNING, worker="one")
    assert await take_verify(broker, "two") is None
    assert await say_verify(broker, replace(taken, checked=3, total=9))
    assert await known(broker) == replace(taken, checked=3, total=9)
    assert await ask_for_verify(broker, second) == replace(taken, checked=3, total=9)
    assert await say_verify(broker, replace(taken, status=ONE.DONE, checked=9, total=9))
    assert (await known(broker)).status is ONE.DONE
    assert await take_verify(broker, "two") is None
    assert await ask_for_verify(broker, second) == second
    assert await known(broker) == second


async def test_a_run_that_was_asked_for_this_moment_waits(broker: Broker) -> None:
    done, new = asked(), asked()
    await ask_for_verify(broker, done)
    taken = await take_verify(broker, "one")
    assert taken is not None
    await say_verify(broker, replace(taken, status=ONE.DONE))
    await ask_for_verify(broker, new)
    # Who asks has not written it down as the last one yet.
    await forget(broker, ASKED_KEY)
    assert await known(broker) == new


async def test_a_run_that_nobody_speaks_of_any_more_has_failed(broker: Broker) -> None:
    run = asked()
    await ask_for_verify(broker, run)
    ttl = (await broker.round_trip(lambda pipe: pipe.ttl(CURRENT_KEY), timeout_s=1))[0]
    assert 0 < ttl <= ALIVE_S
    await forget(broker, CURRENT_KEY)
    assert await known(broker) == replace(run, status=ONE.FAILED, failure=NO_WORKER)
    await ask_for_verify(broker, run)
    taken = await take_verify(broker, "one")
    assert taken is not None
    await say_verify(broker, taken)
    await forget(broker, CURRENT_KEY)
    lost = await known(broker)
    assert lost.status is ONE.FAILED
    assert "one is gone" in (lost.failure or "")


async def test_a_run_that_redis_forgot_goes_on_unless_another_was_asked_for(broker: Broker) -> None:
    await ask_for_verify(broker, asked())
    taken = await take_verify(broker, "one")
    assert taken is not None
    await forget(broker, CURRENT_KEY, LAST_KEY)
    assert await say_verify(broker, replace(taken, checked=1))
    assert await known(broker) == replace(taken, checked=1)
    await forget(broker, CURRENT_KEY)
    other = asked()
    await ask_for_verify(broker, other)
    assert not await say_verify(broker, replace(taken, status=ONE.DONE))
    assert await known(broker) == other


async def test_a_run_that_redis_forgot_is_not_taken_by_another_worker(broker: Broker) -> None:
    await ask_for_verify(broker, asked())
    taken = await take_verify(broker, "one")
    assert taken is not None
    await broker.round_trip(lambda pipe: pipe.flushdb(), timeout_s=1)
    assert await say_verify(broker, taken)
    assert await take_verify(broker, "two") is None
    # A replica that has become the master may still have the run as it was asked for.
    waiting = orjson.dumps(replace(taken, status=ONE.WAITING, worker=None).to_json())
    await broker.round_trip(lambda pipe: pipe.set(CURRENT_KEY, waiting), timeout_s=1)
    assert await take_verify(broker, "two") is None


async def test_a_word_of_who_asked_that_comes_late_changes_nothing(broker: Broker) -> None:
    run = asked()
    await ask_for_verify(broker, run)
    taken = await take_verify(broker, "one")
    assert taken is not None
    done = replace(taken, status=ONE.DONE)
    await say_verify(broker, done)
    await broker.round_trip(lambda pipe: pipe.set(ASKED_KEY, orjson.dumps(run.to_json())), timeout_s=1)
    assert await known(broker) == done


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


async def test_a_defect_of_a_check_stops_no_worker(database: Database, settings: Settings, broker: Broker) -> None:
    async def broken(_scan: Scan, _settings: Settings) -> Verification:
        raise RuntimeError

    await ask_for_verify(broker, asked())
    assert await Verifier(settings, broker, worker="one", verify=broken).run_once()
    assert (await known(broker)).failure == DEFECT


async def test_a_run_ends_when_another_was_asked_for(database: Database, settings: Settings, broker: Broker) -> None:
    other = asked()

    async def slow(_scan: Scan, _settings: Settings) -> Verification:
        await forget(broker, CURRENT_KEY)
        await ask_for_verify(broker, other)
        async with database.read() as connection:
            while True:
                await connection.execute(text("SELECT 1"))

    await ask_for_verify(broker, asked())
    assert await Verifier(settings, broker, worker="one", verify=slow).run_once()
    assert await known(broker) == other


async def test_over_the_api(running_api: RunningApi, admin: httpx.AsyncClient, settings: Settings) -> None:
    problem(await admin.get("/verify/run"), 404, "not_found")
    waiting = await admin.post("/verify/run")
    assert waiting.status_code == 202
    assert waiting.json()["status"] == "waiting"
    assert (await admin.post("/verify/run")).json() == waiting.json() == (await admin.get("/verify/run")).json()
    await Verifier(settings, running_api.runtime.broker, worker="one").run_once()
    done = (await admin.get("/verify/run")).json()
    assert (done["id"], done["status"], done["worker"]) == (waiting.json()["id"], "done", "one")
    assert (await admin.get("/verify/last")).json()["is_sound"]


async def test_without_redis_nobody_can_ask(make_settings: Any) -> None:
    async with opened_with(make_settings(redis_url="redis://127.0.0.1:1")) as running_api:
        problem(await running_api.admin().post("/verify/run"), 503, "unavailable")
        problem(await running_api.admin().get("/verify/run"), 503, "unavailable")
