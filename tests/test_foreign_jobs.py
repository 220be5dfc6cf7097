"""Jobs in Redis that are none of ours: they are dropped, and neither end a loop nor stand in the way of others."""

import asyncio
import json
from typing import Any

import pytest
from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix
from structlog.testing import capture_logs

from shared.broker.client import JOB_EXPIRES_S, Broker, Queue
from tests.support.job_loops import FakeJob, comes_through, looping
from tests.support.waiting import eventually
from worker import arq_loop

JOB_ID = "0" * 32
JOB: dict[str, Any] = {"f": Queue.PROCESS.job, "a": [[]], "k": {}, "t": None, "et": 1_700_000_000_000}
# More than arq reads of a queue at once.
MANY = 150


@pytest.fixture
def job() -> FakeJob:
    job = FakeJob()
    job.opened.set()
    return job


async def require_dropped(redis_url: str, broker: Broker, job: FakeJob) -> None:
    """Require that a loop drops what is in the queue with a warning, and takes a job of ours."""
    with capture_logs() as logs:
        async with looping(redis_url, job) as run:
            await comes_through(broker, job)
            await eventually(lambda: is_empty(broker))
            assert not run.done()
    assert "jobs.message_refused" in {line["event"] for line in logs}
    assert "jobs.loop_ended" not in {line["event"] for line in logs}


async def is_empty(broker: Broker) -> bool:
    return not await broker.arq_connection.zcard(Queue.PROCESS)


@pytest.mark.parametrize("member", [b"\xff\xfe", b"", b"x", JOB_ID.encode() + b"\n", "é".encode() * 16])
async def test_what_is_no_id_of_a_job_is_dropped(redis_url: str, broker: Broker, job: FakeJob, member: bytes) -> None:
    await broker.arq_connection.zadd(Queue.PROCESS, {member: 1.0})
    await require_dropped(redis_url, broker, job)


@pytest.mark.parametrize(
    "change",
    [{"t": "x"}, {"et": "x"}, {"et": 10**30}, {"et": None}, {"f": ["x"]}, {"f": {}}, {"a": 5}, {"a": [{}]}, {"k": []}],
    ids=str,
)
async def test_a_job_with_a_member_of_another_type_is_dropped(
    redis_url: str, broker: Broker, job: FakeJob, change: dict[str, Any]
) -> None:
    await broker.arq_connection.set(job_key_prefix + JOB_ID, json.dumps(JOB | change))
    await broker.arq_connection.zadd(Queue.PROCESS, {JOB_ID: 1.0})
    with capture_logs() as logs:
        async with looping(redis_url, job) as run:
            await comes_through(broker, job)
            await eventually(lambda: is_empty(broker))
            assert not run.done()
    assert "jobs.loop_ended" not in {line["event"] for line in logs}


async def test_a_job_under_a_key_of_another_type_is_dropped(redis_url: str, broker: Broker, job: FakeJob) -> None:
    await broker.round_trip(lambda pipe: pipe.rpush(job_key_prefix + JOB_ID, "x"), timeout_s=1)
    await broker.arq_connection.zadd(Queue.PROCESS, {JOB_ID: 1.0})
    await require_dropped(redis_url, broker, job)


async def test_a_job_before_all_time_is_dropped(redis_url: str, broker: Broker, job: FakeJob) -> None:
    async with looping(redis_url, job) as run:
        # More than run at once: none of them may cost a place.
        for _ in range(arq_loop.JOBS_MAX + 1):
            await broker.arq_connection.zadd(Queue.PROCESS, {JOB_ID: float("-inf")})
            await eventually(lambda: is_empty(broker))
        await comes_through(broker, job)
        assert not run.done()


async def test_a_job_whose_count_of_tries_is_no_number_is_dropped(redis_url: str, broker: Broker, job: FakeJob) -> None:
    await broker.arq_connection.mset({job_key_prefix + JOB_ID: json.dumps(JOB), retry_key_prefix + JOB_ID: "abc"})
    await broker.arq_connection.zadd(Queue.PROCESS, {JOB_ID: 1.0})
    await require_dropped(redis_url, broker, job)


@pytest.mark.parametrize(("score", "runs_elsewhere"), [(0.0, False), (1.0, True)])
async def test_many_that_never_run_stand_in_nobodys_way(
    redis_url: str, broker: Broker, job: FakeJob, *, score: float, runs_elsewhere: bool
) -> None:
    members = [f"{number:032x}" for number in range(MANY)]
    await broker.arq_connection.zadd(Queue.PROCESS, dict.fromkeys(members, score))
    if runs_elsewhere:
        await broker.arq_connection.mset({in_progress_key_prefix + member: "1" for member in members})
    await require_dropped(redis_url, broker, job)


async def test_jobs_that_wait_long_are_kept_as_long_as_they_are_valid(broker: Broker, redis_url: str) -> None:
    job = FakeJob(allowed=1)
    now_s, _ = await broker.arq_connection.time()
    async with looping(redis_url, job):
        for number in range(MANY):
            score_ms = (now_s - JOB_EXPIRES_S + 60) * 1000 + number
            assert await broker.publish(Queue.PROCESS, [], score_ms=score_ms)
        # Long enough that what is too old would be dropped.
        await eventually(lambda: job.running == 1)
        await asyncio.sleep(arq_loop.CLEAN_S + 0.2)
        job.opened.set()
        await eventually(lambda: job.finished == MANY, 30)
