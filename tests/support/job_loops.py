"""Loops that take jobs from a real Valkey, and the job that they run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from shared.broker.client import Broker, Queue
from shared.database.leases import WorkItem
from shared.ids import new_id
from tests.support.waiting import eventually
from worker.arq_loop import JOBS_MAX, JobLoop

# For a loop to be at work again; its pauses are at most 5 s.
BACK_S = 20.0


def some_items(count: int = 2) -> list[WorkItem]:
    return [WorkItem(new_id(), number) for number in range(count)]


@dataclass
class FakeJob:
    """The job of a loop, which goes on until `opened` is set; it keeps what the loop brought."""

    got: list[list[WorkItem]] = field(default_factory=list)
    scores: list[int] = field(default_factory=list)
    finished: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    allowed: int = JOBS_MAX
    trouble: Exception | None = None

    async def run(self, items: list[WorkItem], score_ms: int) -> None:
        self.got.append(items)
        self.scores.append(score_ms)
        await self.opened.wait()
        self.finished += 1
        if self.trouble is not None:
            raise self.trouble

    @property
    def running(self) -> int:
        return len(self.got) - self.finished


@asynccontextmanager
async def looping(
    url: str, job: FakeJob, *, queue: Queue = Queue.PROCESS, gate: Callable[[], int] | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    loop = JobLoop(url, queue, job.run, poll_delay_ms=5, gate=gate or (lambda: job.allowed))
    run = asyncio.create_task(loop.run())
    try:
        yield run
    finally:
        job.opened.set()
        run.cancel()
        _done, pending = await asyncio.wait([run], timeout=15)
        assert not pending, "the loop does not end"


async def comes_through(broker: Broker, job: FakeJob) -> list[WorkItem]:
    """Publish until a job arrives, as the relay would; return its work items."""
    items = some_items()

    async def is_there() -> bool:
        await broker.publish(Queue.PROCESS, items)
        return items in job.got

    await eventually(is_there, timeout_s=BACK_S)
    return items


@pytest.fixture
def job() -> FakeJob:
    job = FakeJob()
    job.opened.set()
    return job
