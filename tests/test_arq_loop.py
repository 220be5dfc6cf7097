"""The loop around arq's, with a real Valkey: which jobs it takes, how many, and what it drops."""

from typing import Any

import orjson
import pytest
from arq.constants import job_key_prefix
from structlog.testing import capture_logs

from shared.broker.client import Broker, Queue
from tests.support.job_loops import FakeJob, comes_through, job, looping, some_items
from tests.support.messages import jobs_in
from tests.support.waiting import eventually
from worker.arq_loop import JOBS_MAX

__all__ = ["job"]


async def test_a_job_gets_its_work_items_and_its_place_in_the_queue(
    redis_url: str, broker: Broker, job: FakeJob
) -> None:
    items = some_items(100)
    await broker.publish(Queue.PROCESS, items, score_ms=1_700_000_000_123)
    async with looping(redis_url, job):
        await eventually(lambda: job.got)
    assert job.got == [items]
    assert job.scores == [1_700_000_000_123]


async def test_each_queue_has_a_loop_of_its_own(redis_url: str, broker: Broker, job: FakeJob) -> None:
    to_process, to_deliver = some_items(), some_items()
    await broker.publish(Queue.PROCESS, to_process)
    await broker.publish(Queue.DELIVER, to_deliver)
    async with looping(redis_url, job, queue=Queue.DELIVER):
        await eventually(lambda: job.got)
        await until_empty(broker, Queue.DELIVER)
    assert job.got == [to_deliver]
    assert await jobs_in(broker, Queue.PROCESS) == [to_process]


async def until_empty(broker: Broker, queue: Queue = Queue.PROCESS) -> None:
    async def is_empty() -> bool:
        return not await broker.arq_connection.zcard(queue)

    await eventually(is_empty)


async def test_a_finished_job_leaves_nothing_behind(redis_url: str, broker: Broker, job: FakeJob) -> None:
    for _ in range(5):
        await broker.publish(Queue.PROCESS, some_items())
    async with looping(redis_url, job):
        await eventually(lambda: len(job.got) == 5)
        await until_empty(broker)
    left = {key.decode() for key in await broker.arq_connection.keys("*")}
    assert left <= {f"{Queue.PROCESS}:health-check"}


async def test_a_job_of_our_own_that_runs_is_not_asked_about_again(
    redis_url: str, broker: Broker, job: FakeJob
) -> None:
    looks = 0

    def gate() -> int:
        nonlocal looks
        looks += 1
        return job.allowed

    job.opened.clear()
    await broker.publish(Queue.PROCESS, some_items())
    await broker.arq_connection.config_resetstat()
    async with looping(redis_url, job, gate=gate):
        await eventually(lambda: job.got)
        began = looks
        await eventually(lambda: looks > began + 5)
        counted = await broker.arq_connection.info("commandstats")
        assert counted["cmdstat_watch"]["calls"] == 1
        assert counted["cmdstat_zrangebyscore"]["calls"] > 5


async def test_loops_beside_each_other_share_the_jobs(redis_url: str, broker: Broker, job: FakeJob) -> None:
    jobs = [some_items(1) for _ in range(60)]
    other = FakeJob(opened=job.opened)
    # A loop that runs as many jobs as it may leaves the others to the other loop, however late that one starts.
    job.opened.clear()
    async with looping(redis_url, job), looping(redis_url, other):
        for items in jobs:
            assert await broker.publish(Queue.PROCESS, items)
        await eventually(lambda: job.got and other.got)
        job.opened.set()
        await eventually(lambda: len(job.got) + len(other.got) >= 60)
        await until_empty(broker)
    assert sorted(job.got + other.got) == sorted(jobs)


async def test_a_closed_gate_leaves_the_jobs_to_others_and_an_open_one_takes_them(
    redis_url: str, broker: Broker, job: FakeJob
) -> None:
    other, looks = FakeJob(opened=job.opened), 0
    job.allowed = 0

    def gate() -> int:
        nonlocal looks
        looks += 1
        return job.allowed

    await broker.publish(Queue.PROCESS, some_items())
    async with looping(redis_url, job, gate=gate):
        await eventually(lambda: looks > 5)
        assert job.got == []
        async with looping(redis_url, other):
            await eventually(lambda: other.got)
        await broker.publish(Queue.PROCESS, some_items())
        job.allowed = 1
        await eventually(lambda: job.got)


async def test_never_more_jobs_at_once_than_the_gate_lets_in(redis_url: str, broker: Broker) -> None:
    job, looks = FakeJob(allowed=3), 0

    def gate() -> int:
        nonlocal looks
        looks += 1
        return job.allowed

    for _ in range(30):
        await broker.publish(Queue.PROCESS, some_items())
    async with looping(redis_url, job, gate=gate):
        await eventually(lambda: job.running == 3)
        seen = looks
        await eventually(lambda: looks > seen + 5)
        assert job.running == 3
        job.allowed = 1000
        await eventually(lambda: job.running == JOBS_MAX)
        seen = looks
        await eventually(lambda: looks > seen + 5)
        assert job.running == JOBS_MAX
        job.opened.set()
        await eventually(lambda: len(job.got) == 30)


async def test_a_job_that_fails_is_logged_once_and_holds_up_no_other(
    redis_url: str, broker: Broker, job: FakeJob
) -> None:
    job.trouble = RuntimeError("a bug of ours")
    jobs = [some_items() for _ in range(3)]
    for items in jobs:
        await broker.publish(Queue.PROCESS, items)
    async with looping(redis_url, job):
        await eventually(lambda: len(job.got) == 3)
        await until_empty(broker)
        assert sorted(job.got) == sorted(jobs)
        job.trouble = None
        await comes_through(broker, job)


def message(*arguments: Any, function: str = "process_payments", **keywords: Any) -> bytes:
    return orjson.dumps({"t": None, "f": function, "a": arguments, "k": keywords, "et": 1})


POISON = {
    "not JSON": b"not JSON",
    "a list": b"[]",
    "null": b"null",
    "no UUID": message([["no uuid", 0]]),
    "a number as id": message([[5, 0]]),
    "no lease version": message([["01a204c6-b7a9-735c-88a1-8b4cc722f904"]]),
    "a word as lease version": message([["01a204c6-b7a9-735c-88a1-8b4cc722f904", "x"]]),
    "an id alone": message(["01a204c6-b7a9-735c-88a1-8b4cc722f904"]),
    "text": message("text"),
    "a number": message(7),
    "nothing": message(),
    "more than that": message([], surplus=1),
    "of a later version": message([], function="refund_payments"),
    "expired": None,
}


@pytest.mark.parametrize("name", POISON)
async def test_a_message_that_is_none_is_dropped_and_the_loop_goes_on(
    redis_url: str, broker: Broker, job: FakeJob, name: str
) -> None:
    poison = POISON[name]
    if poison is not None:
        await broker.arq_connection.set(job_key_prefix + "poison", poison)
    await broker.arq_connection.zadd(Queue.PROCESS, {"poison": 1})
    with capture_logs() as logs:
        async with looping(redis_url, job) as run:
            items = await comes_through(broker, job)
            await until_empty(broker)
            assert not run.done()
    assert job.got[0] == items
    assert "jobs.loop_ended" not in {line["event"] for line in logs}
