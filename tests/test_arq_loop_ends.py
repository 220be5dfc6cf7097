"""The loop around arq's when Redis dies, hangs or forgets, and when the loop itself ends."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from shared.broker.client import Broker, Queue, open_broker
from tests.support.job_loops import BACK_S, FakeJob, comes_through, job, looping, some_items
from tests.support.messages import jobs_in
from tests.support.servers import ValkeyServer
from tests.support.waiting import eventually
from worker.arq_loop import JOBS_MAX, JobLoop

__all__ = ["job"]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
async def own_broker(own: ValkeyServer) -> AsyncIterator[Broker]:
    broker = open_broker(own.url)
    yield broker
    await broker.close()


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
