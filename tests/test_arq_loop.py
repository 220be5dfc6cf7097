"""The loop around arq's, with a real Valkey that dies, hangs and forgets."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
from arq.constants import job_key_prefix
from structlog.testing import capture_logs

from shared.broker.client import Broker, Queue, open_broker
from tests.support.job_loops import BACK_S, FakeJob, comes_through, looping, some_items
from tests.support.messages import jobs_in
from tests.support.servers import ValkeyServer
from tests.support.waiting import eventually
from worker.arq_loop import JOBS_MAX, JobLoop


@pytest.fixture
def job() -> FakeJob:
    job = FakeJob()
    job.opened.set()
    return job


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
async def own_broker(own: ValkeyServer) -> AsyncIterator[Broker]:
    broker = open_broker(own.url)
    yield broker
    await broker.close()


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


# -- jobs that are none


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


# -- Redis goes away


async def test_a_redis_that_is_not_there_yet_is_waited_for(tmp_path: Path, job: FakeJob) -> None:
    own = ValkeyServer(tmp_path / "valkey")
    with capture_logs() as logs:
        async with looping(own.url, job):
            await eventually(lambda: "jobs.loop_ended" in {line["event"] for line in logs})
            with own:
                broker = open_broker(own.url)
                await comes_through(broker, job)
                await broker.close()


async def test_after_a_restart_of_redis_the_loop_is_at_work_again(
    own: ValkeyServer, own_broker: Broker, job: FakeJob
) -> None:
    async with looping(own.url, job) as run:
        for _ in range(2):
            await comes_through(own_broker, job)
            own.restart()
        await comes_through(own_broker, job)
        assert not run.done()


async def test_a_job_that_runs_while_redis_dies_ends_by_itself(own: ValkeyServer, own_broker: Broker) -> None:
    job = FakeJob()
    async with looping(own.url, job):
        await own_broker.publish(Queue.PROCESS, some_items())
        await eventually(lambda: job.running == 1)
        with capture_logs() as logs:
            own.kill()
            await eventually(lambda: "jobs.loop_ended" in {line["event"] for line in logs})
            own.start()
        job.opened.set()
        await eventually(lambda: job.finished == 1)
        await comes_through(own_broker, job)


async def test_a_hung_redis_is_left_and_found_again(own: ValkeyServer, own_broker: Broker, job: FakeJob) -> None:
    async with looping(own.url, job):
        await comes_through(own_broker, job)
        with capture_logs() as logs:
            own.pause()
            await eventually(lambda: "jobs.loop_ended" in {line["event"] for line in logs}, timeout_s=BACK_S)
            own.resume()
        await comes_through(own_broker, job)


async def test_a_redis_that_forgets_everything_in_the_middle_of_a_job_does_no_harm(
    redis_url: str, broker: Broker
) -> None:
    job = FakeJob()
    with capture_logs() as logs:
        async with looping(redis_url, job):
            for _ in range(JOBS_MAX + 5):
                await broker.publish(Queue.PROCESS, some_items())
            await eventually(lambda: job.running == JOBS_MAX)
            await broker.arq_connection.flushall()
            job.opened.set()
            await comes_through(broker, job)
    assert "jobs.loop_ended" not in {line["event"] for line in logs}


# -- the end


async def test_ending_the_loop_lets_the_running_job_end(redis_url: str, broker: Broker) -> None:
    job = FakeJob()
    async with looping(redis_url, job) as run:
        await broker.publish(Queue.PROCESS, some_items())
        await eventually(lambda: job.running == 1)
        late = some_items()
        run.cancel()
        await asyncio.wait([run], timeout=0.05)
        assert not run.done()
        await broker.publish(Queue.PROCESS, late)
        job.opened.set()
        await asyncio.wait([run], timeout=10)
    assert run.cancelled()
    assert job.finished == 1
    assert await jobs_in(broker, Queue.PROCESS) == [late]


@pytest.mark.parametrize("trouble", ["kill", "pause"])
async def test_ending_the_loop_needs_no_redis(
    own: ValkeyServer, own_broker: Broker, job: FakeJob, trouble: str
) -> None:
    async with looping(own.url, job) as run:
        await comes_through(own_broker, job)
        getattr(own, trouble)()
        run.cancel()
        _done, pending = await asyncio.wait([run], timeout=10)
        assert not pending


class _LosesItsCancel:
    """arq's worker over a client of Redis that closes a connection when it is cancelled, and fails at that."""

    tasks: ClassVar[dict[str, asyncio.Task[None]]] = {}

    async def async_run(self) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise TimeoutError from None


async def test_the_loop_ends_although_redis_answers_its_cancel_with_an_error(own: ValkeyServer, job: FakeJob) -> None:
    class Loop(JobLoop):
        def _worker(self, _broker: Broker) -> Any:
            return _LosesItsCancel()

    run = asyncio.create_task(Loop(own.url, Queue.PROCESS, job.run, poll_delay_ms=5, gate=lambda: 1).run())
    await asyncio.sleep(0.05)
    run.cancel()
    await asyncio.wait([run], timeout=5)
    assert run.cancelled()


async def test_a_bug_in_the_loop_itself_ends_it(redis_url: str, job: FakeJob) -> None:
    """Its worker ends with it: no worker stays that takes nothing."""

    def gate() -> int:
        raise RuntimeError("a bug of ours")

    async with looping(redis_url, job, gate=gate) as run:
        await asyncio.wait([run], timeout=10)
        assert run.done()
        assert isinstance(run.exception(), RuntimeError)
