"""Verifications that are asked of the workers: one at a time, with progress, and with a word when nobody does them."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import delete, text
from structlog.testing import capture_logs

from shared.broker.client import Broker, open_broker
from shared.broker.verify_runs import (
    ALIVE_S,
    ASKED_KEY,
    CURRENT_KEY,
    KEPT_S,
    LAST_KEY,
    NO_WORKER,
    TAKEN_KEY,
    VerifyRun,
    VerifyStatus,
    ask_for_verify,
    find_verify,
    say_verify,
    take_verify,
)
from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.tables import deliveries
from shared.errors import BrokerUnavailable, CommitUnknown
from shared.ids import new_id
from shared.verify.reports import last_report
from shared.verify.scan import Scan
from shared.verify.verifier import STATEMENT_TIMEOUT_S, Verification
from tests.support.api_client import RunningApi, opened_with, problem
from tests.support.verified import build
from worker.verifier import DEFECT, RUN_MAX_S, TOO_LONG, UNAVAILABLE, Verifier

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


async def ttl(broker: Broker, key: str) -> int:
    """The seconds after which Redis forgets it."""
    [left_s] = await broker.round_trip(lambda pipe: pipe.ttl(key), timeout_s=1)
    return int(left_s)


async def replace_by(broker: Broker, run: VerifyRun) -> None:
    """Redis forgets what is under way, and another run is asked for: in one step, so that no worker speaks between."""
    stored = orjson.dumps(run.to_json())
    await broker.round_trip(lambda pipe: [pipe.set(key, stored) for key in (CURRENT_KEY, ASKED_KEY)], timeout_s=1)


async def ended(broker: Broker) -> VerifyRun:
    """A run that was asked for, taken and done."""
    await ask_for_verify(broker, asked())
    taken = await take_verify(broker, "one")
    assert taken is not None
    done = replace(taken, status=ONE.DONE)
    assert await say_verify(broker, done)
    return done


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
    assert await take_verify(broker, "two") == replace(second, status=ONE.RUNNING, worker="two")


async def test_each_word_of_a_run_prolongs_its_life(broker: Broker) -> None:
    await ask_for_verify(broker, asked())
    taken = await take_verify(broker, "one")
    assert taken is not None
    await broker.round_trip(lambda pipe: pipe.expire(CURRENT_KEY, 1), timeout_s=1)
    await say_verify(broker, taken)
    assert ALIVE_S - 1 <= await ttl(broker, CURRENT_KEY) <= ALIVE_S


async def test_how_a_run_ended_and_who_took_it_is_known_for_two_hours(broker: Broker) -> None:
    run = await ended(broker)
    for key in (ASKED_KEY, LAST_KEY, f"{TAKEN_KEY}{run.id}"):
        assert 7190 <= await ttl(broker, key) <= 7200, key


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
    assert 0 < await ttl(broker, CURRENT_KEY) <= ALIVE_S
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


async def test_a_run_that_nobody_took_has_failed_although_the_one_before_it_was_done(broker: Broker) -> None:
    await ended(broker)
    run = asked()
    await ask_for_verify(broker, run)
    await forget(broker, CURRENT_KEY)
    assert await known(broker) == replace(run, status=ONE.FAILED, failure=NO_WORKER)


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
    # Later still: another run has ended meanwhile.
    newer = await ended(broker)
    await broker.round_trip(lambda pipe: pipe.set(ASKED_KEY, orjson.dumps(run.to_json())), timeout_s=1)
    assert await known(broker) == newer


@pytest.mark.parametrize(
    "value", [b"", b"x", b"[]", b"1", b"null", b"{}", b'{"id": 1}', b'{"id": "x", "status": "new"}']
)
async def test_what_is_no_run_ends_no_worker_and_is_replaced(settings: Settings, broker: Broker, value: bytes) -> None:
    await broker.round_trip(
        lambda pipe: [pipe.set(key, value) for key in (CURRENT_KEY, ASKED_KEY, LAST_KEY)], timeout_s=1
    )
    assert await find_verify(broker) is None
    assert not await Verifier(settings, broker, worker="one").run_once()
    run = asked()
    assert await ask_for_verify(broker, run) == run
    assert (await take_verify(broker, "one")) is not None


async def test_what_is_no_run_is_replaced_although_another_has_ended(broker: Broker) -> None:
    await ended(broker)
    await broker.round_trip(lambda pipe: pipe.set(CURRENT_KEY, b"x"), timeout_s=1)
    run = asked()
    assert await ask_for_verify(broker, run) == run


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

    def opening(given: Settings) -> Database:
        limits.append(given.database_timeout_s)
        return open_database(given)

    monkeypatch.setattr("worker.verifier.open_database", opening)
    await ask_for_verify(broker, asked())
    await Verifier(settings, broker, worker="one").run_once()
    assert (await known(broker)).status is ONE.DONE
    assert limits == [STATEMENT_TIMEOUT_S]


async def test_without_a_database_it_says_so(make_settings: Any, broker: Broker) -> None:
    settings = make_settings(database_url="postgresql://127.0.0.1:1/x")
    await ask_for_verify(broker, asked())
    assert await Verifier(settings, broker, worker="one").run_once()
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


async def test_without_redis_nobody_can_ask(make_settings: Any) -> None:
    async with opened_with(make_settings(redis_url="redis://127.0.0.1:1")) as running_api:
        problem(await running_api.admin().post("/verify/run"), 503, "unavailable")
        problem(await running_api.admin().get("/verify/run"), 503, "unavailable")
