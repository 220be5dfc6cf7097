"""Values in Redis under our names that are none of ours: they are dropped, and end nothing."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from api.worker_versions import WorkerVersions
from shared.broker.client import Broker
from shared.broker.heartbeats import WORKERS_KEY, WorkerStatus, alive_workers, send_heartbeat
from shared.broker.sleepers import KEPT_S, SLEEPERS_KEY, Sleepers, read_sleepers, say_sleepers
from shared.broker.verify_runs import (
    ASKED_KEY,
    CURRENT_KEY,
    LAST_KEY,
    VerifyRun,
    VerifyStatus,
    ask_for_verify,
    find_verify,
    say_verify,
    take_verify,
)
from shared.config.settings import Settings
from shared.ids import new_id
from tests.support.api_client import RunningApi
from tests.support.verify_runs import asked
from worker.verifier import Verifier

pytest_plugins = ["tests.support.api_fixtures"]
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # no database is asked

ONE = WorkerStatus(
    worker="one", slots=5, in_gateway=1, sending=0, settled=3, settled_per_s=0.5, uptime_s=9.0, version="0.2.0"
)
NO_JSON = [b"", b"x", b"\xff", b"{", b"[" * 10_000, b"1" * 5000]
NO_OBJECT = [b"[]", b"1", b"null", b"true", b'"x"', b"{}"]
NO_COUNT: list[Any] = [-1, 1.5, 1e300, 2**53, 10**30, "1", None, True, [], {}]
NO_SECONDS: list[Any] = [float("nan"), float("inf"), 1e300, -1e300, "1", None, []]
NO_UNIX_SECONDS: list[Any] = [*NO_SECONDS, -1.0, 1e18, 253_402_300_799.5]
NO_COUNTS: list[Any] = [None, {}, [-1], ["1"], 5]
NO_OUTCOMES: list[Any] = [None, [], {"COMPLETED": -1}, {"COMPLETED": "x"}]
NO_TEXT: list[Any] = [1, {}, []]
NO_MOMENTS = ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-11-28T11:00:00", "x", 1, None]


def changed(value: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({**value, **changes}).encode()


async def put(broker: Broker, *command: str | bytes) -> None:
    await broker.round_trip(lambda pipe: pipe.execute_command(*command), timeout_s=1)


# -- heartbeats


@on_sqlite
@pytest.mark.parametrize(
    "payload",
    [
        *NO_JSON,
        *NO_OBJECT,
        *(changed(asdict(ONE), slots=value) for value in NO_COUNT),
        *(changed(asdict(ONE), **{name: -1}) for name in ("in_gateway", "sending", "settled", "checking_orders")),
        changed(asdict(ONE), settled_per_s="1"),
        *(changed(asdict(ONE), settle_counts=value) for value in NO_COUNTS),
        *(changed(asdict(ONE), outcomes=value) for value in NO_OUTCOMES),
        *(changed(asdict(ONE), uptime_s=value) for value in NO_SECONDS),
        *(changed(asdict(ONE), version=value) for value in NO_TEXT),
        *(changed(asdict(ONE), worker=value) for value in (None, *NO_TEXT)),
    ],
)
async def test_what_is_no_heartbeat_is_dropped(running_api: RunningApi, payload: bytes) -> None:
    broker = running_api.runtime.broker
    await send_heartbeat(broker, ONE)
    redis = broker.arq_connection
    for name in (b"zz", b"\xff\xfe", b""):
        await redis.zadd(WORKERS_KEY, {name: 99_999_999_999})
        await redis.set(b"payments:worker:" + name, payload)
    assert await alive_workers(broker) == [ONE]
    await WorkerVersions(broker).run_once()
    assert [worker["worker"] for worker in (await running_api.admin().get("/stats")).json()["workers"]] == ["one"]


async def test_a_heartbeat_whose_newer_half_is_none_is_dropped_and_not_taken_for_one_of_0_1(broker: Broker) -> None:
    await send_heartbeat(broker, ONE)
    for later in (b"x", b"[]", b'{"version": 1}'):
        await broker.arq_connection.set("payments:worker-later:one", later)
        assert await alive_workers(broker) == []
    await broker.arq_connection.delete("payments:worker-later:one")
    assert await alive_workers(broker) == [replace(ONE, version=None)]


async def test_a_heartbeat_under_the_name_of_another_worker_is_dropped(broker: Broker) -> None:
    await send_heartbeat(broker, ONE)
    await broker.arq_connection.zadd(WORKERS_KEY, {"two": 99_999_999_999})
    await broker.arq_connection.set("payments:worker:two", changed(asdict(ONE)))
    assert await alive_workers(broker) == [ONE]


async def test_no_more_heartbeats_are_read_than_there_may_be_workers(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.broker.heartbeats.WORKERS_MAX", 1)
    for name in ("one", "two"):
        await send_heartbeat(broker, replace(ONE, worker=name))
    assert len(await alive_workers(broker) or []) == 1


async def test_members_of_a_newer_version_are_dropped_alone(broker: Broker) -> None:
    await send_heartbeat(broker, ONE)
    await broker.arq_connection.set("payments:worker:one", changed(asdict(ONE), mood="good"))
    assert await alive_workers(broker) == [ONE]
    sleepers = Sleepers(count=1, seen_at_s=2.0)
    await put(broker, "HSET", SLEEPERS_KEY, "one", changed(asdict(sleepers), mood="good"))
    assert await read_sleepers(broker) == [sleepers]
    run = VerifyRun(id=new_id(), asked_at=datetime.now(UTC).replace(microsecond=0))
    await broker.arq_connection.set(CURRENT_KEY, changed(run.to_json(), mood="good"))
    assert await find_verify(broker) == run


# -- what sleeps in service time


@pytest.mark.parametrize(
    "payload",
    [
        *NO_JSON,
        *NO_OBJECT,
        *(changed({"seen_at_s": 1.0}, count=value) for value in NO_COUNT),
        *(changed({"count": 1}, seen_at_s=value) for value in NO_UNIX_SECONDS),
        *(
            changed({"count": 1, "seen_at_s": 1.0}, **{member: value})
            for member in ("wakes_at_s", "wakes_until_s")
            for value in NO_UNIX_SECONDS
            if value is not None
        ),
    ],
)
async def test_what_nobody_has_said_of_sleepers_is_dropped(broker: Broker, payload: bytes) -> None:
    sleepers = Sleepers(count=1, seen_at_s=2.0, wakes_at_s=3.0)
    await say_sleepers(broker, "one", sleepers)
    await put(broker, "HSET", SLEEPERS_KEY, "zz", payload)
    assert await read_sleepers(broker) == [sleepers]


async def test_what_sleeps_is_forgotten_with_the_last_worker(broker: Broker) -> None:
    await say_sleepers(broker, "one", Sleepers(count=1, seen_at_s=2.0))
    assert 0 < await broker.arq_connection.ttl(SLEEPERS_KEY) <= KEPT_S


async def test_what_is_refused_is_said_without_its_value(broker: Broker) -> None:
    await put(broker, "HSET", SLEEPERS_KEY, "zz", b'{"count": "4242424242424242", "seen_at_s": 1}')
    with capture_logs() as logs:
        assert await read_sleepers(broker) == []
    wanted = {"event": "redis.value_refused", "log_level": "warning", "wanted": "Sleepers", "problem": "int_type"}
    assert logs == [wanted]


# -- verifications


@on_sqlite
@pytest.mark.parametrize(
    "payload",
    [
        *NO_JSON,
        *NO_OBJECT,
        *(changed(asked().to_json(), checked=value) for value in NO_COUNT),
        *(changed(asked().to_json(), total=value) for value in NO_COUNT if value is not None),
        *(changed(asked().to_json(), asked_at=value) for value in NO_MOMENTS),
        *(changed(asked().to_json(), id=value) for value in ("x", 1, None)),
        *(changed(asked().to_json(), status=value) for value in ("new", 1, None)),
        *(changed(asked().to_json(), worker=value) for value in NO_TEXT),
        *(changed(asked().to_json(), failure=value) for value in NO_TEXT),
        None,
    ],
)
async def test_what_is_no_run_ends_no_worker_and_is_replaced(
    settings: Settings, running_api: RunningApi, payload: bytes | None
) -> None:
    broker = running_api.runtime.broker
    redis, admin = broker.arq_connection, running_api.admin()
    for key in (CURRENT_KEY, ASKED_KEY, LAST_KEY):
        if payload is None:
            await put(broker, "RPUSH", key, "of another type")
        else:
            await redis.set(key, payload)
    assert await find_verify(broker) is None
    assert (await admin.get("/verify/run")).status_code == 404
    assert not await Verifier(settings, broker, worker="one").run_once()
    first = (await admin.post("/verify/run")).json()
    assert (await admin.get("/verify/run")).json() == first
    taken = await take_verify(broker, "one")
    assert taken is not None
    assert str(taken.id) == first["id"]
    assert await say_verify(broker, taken)
    assert (await admin.get("/verify/run")).json()["status"] == "running"


@pytest.mark.parametrize(
    "current",
    [
        replace(asked(), status=VerifyStatus.DONE),
        replace(asked(), status=VerifyStatus.FAILED),
        replace(asked(), id=UUID(int=0)),
        replace(asked(), id=uuid4()),
        replace(asked(), id=UUID("01900000-0000-7000-8000-000000000000"), status=VerifyStatus.RUNNING),
        replace(asked(), id=UUID("ffffffff-ffff-7fff-bfff-ffffffffffff")),
    ],
    ids=["done", "failed", "zero", "random", "long ago", "to come"],
)
async def test_a_run_that_is_not_under_way_stands_in_nobodys_way(broker: Broker, current: VerifyRun) -> None:
    await broker.arq_connection.set(CURRENT_KEY, json.dumps(current.to_json()))
    assert await find_verify(broker) is None
    assert await take_verify(broker, "one") is None
    run = asked()
    assert await ask_for_verify(broker, run) == run
    taken = await take_verify(broker, "one")
    assert taken is not None
    assert taken.id == run.id


async def test_the_late_word_of_a_worker_hides_no_later_run(broker: Broker) -> None:
    # The first worker stood still, and another run was asked for and has ended.
    await ask_for_verify(broker, asked())
    stood_still = await take_verify(broker, "one")
    assert stood_still is not None
    await broker.arq_connection.delete(CURRENT_KEY)
    await ask_for_verify(broker, asked())
    second = await take_verify(broker, "two")
    assert second is not None
    done = replace(second, status=VerifyStatus.DONE)
    assert await say_verify(broker, done)
    for status in (VerifyStatus.RUNNING, VerifyStatus.DONE):
        assert not await say_verify(broker, replace(stood_still, status=status))
        assert await find_verify(broker) == done
