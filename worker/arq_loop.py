"""The loop around arq's worker, which takes the jobs of one queue and starts again whenever Redis was away.

It never looks at the work: a job only hands a batch of items to a pool.
"""

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from time import monotonic
from typing import Any, Protocol
from uuid import UUID

import orjson
import structlog
from arq.worker import Worker, func
from redis.exceptions import RedisError

from shared.broker.client import Broker, Queue, open_broker
from shared.broker.failures import raise_if_cancelled, reason_of
from shared.database.leases import WorkItem

log = structlog.get_logger(__name__)

# Jobs of one queue that run at once. Few are enough: each only claims, or hands on, a batch of ids.
JOBS_MAX = 10
# Seconds after which arq cancels a job.
JOB_TIMEOUT_S = 60
# A loop that had a job within the last BUSY_S seconds polls its queue this many times as often as an idle one.
IDLE_STRIDE = 3
BUSY_S = 1.0
# Seconds until arq's worker is started again: the backoff doubles from the first value to the second.
RECONNECT_S, RECONNECT_MAX_S = 0.5, 5.0
# Seconds in which running jobs must end. They wait for the database, whose own timeouts are shorter.
CLOSE_S = 15
# Seconds; a poll takes milliseconds, and an idle loop polls many times a second.
POLLED_WITHIN_S = 5.0

type Job = Callable[[list[WorkItem], int], Coroutine[None, None, None]]
"""Takes the items of one job, and the job's place in the queue (Unix milliseconds) for items that are put back."""


class Gate(Protocol):
    """The admission control of a queue."""

    def __call__(self) -> int:
        """Return how many jobs may run now; 0 leaves them to other workers. Called at every poll of the queue."""
        ...


class _GatedWorker(Worker):
    """arq's worker, which picks only as many jobs as the gate allows."""

    gate: Gate
    is_idle: Callable[[], bool]
    polled: Callable[[], None]
    polls = 0

    async def _poll_iteration(self) -> None:
        self.polls += 1
        if self.is_idle() and self.polls % IDLE_STRIDE:
            return
        allowed = self.gate()
        self.allow_pick_jobs = allowed > 0
        self.max_jobs = min(JOBS_MAX, max(1, allowed))
        await super()._poll_iteration()
        self.polled()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """See arq. A job stays in the queue while it runs; those that run here are skipped without asking Redis."""
        await super().start_jobs([job_id for job_id in job_ids if job_id.decode() not in self.tasks])


class JobLoop:
    """Takes the jobs of one queue as long as the process lives, whatever happens to Redis.

    An idle loop polls every `poll_delay_ms` milliseconds.
    """

    def __init__(self, redis_url: str, queue: Queue, job: Job, *, poll_delay_ms: int, gate: Gate) -> None:
        self._redis_url = redis_url
        self._queue = queue
        self._job = job
        self._poll_delay_s = poll_delay_ms / 1000
        self._gate = gate
        # The moment of the last job (monotonic, in seconds).
        self._ran_at = -inf
        # The moment of the last poll that Redis answered (monotonic, in seconds).
        self._polled_at = -inf

    @property
    def is_polling(self) -> bool:
        """The queue was polled within the last POLLED_WITHIN_S seconds, so jobs are taken."""
        return monotonic() - self._polled_at < POLLED_WITHIN_S

    async def run(self) -> None:
        """Run arq's worker until cancelled. Whenever it ends, start a new one after a backoff."""
        pause_s = RECONNECT_S / 2
        while True:
            broker = open_broker(self._redis_url)
            worker = self._worker(broker)
            started = monotonic()
            try:
                await worker.async_run()
            except (RedisError, OSError, TimeoutError) as error:
                # A loop that has polled had a Redis, which will be there again in a moment.
                pause_s = RECONNECT_S if self._polled_at > started else min(2 * pause_s, RECONNECT_MAX_S)
                log.warning("jobs.loop_ended", queue=self._queue, error=reason_of(error), again_in_s=pause_s)
            finally:
                await asyncio.shield(_close(worker, broker))
            raise_if_cancelled()
            await asyncio.sleep(pause_s)

    def _worker(self, broker: Broker) -> _GatedWorker:
        worker = _GatedWorker(
            functions=[func(self._run_job, name=self._queue.job, keep_result=0, timeout=JOB_TIMEOUT_S, max_tries=1)],
            queue_name=self._queue,
            redis_pool=broker.arq_connection,
            handle_signals=False,
            max_jobs=JOBS_MAX,
            poll_delay=self._poll_delay_s / IDLE_STRIDE,
            keep_result=0,
            max_tries=1,
            retry_jobs=False,
            log_results=False,
            job_serializer=orjson.dumps,
            job_deserializer=orjson.loads,
        )
        worker.gate = self._gate
        worker.is_idle = lambda: monotonic() - self._ran_at > BUSY_S
        worker.polled = self._note_poll
        return worker

    def _note_poll(self) -> None:
        self._polled_at = monotonic()

    async def _run_job(self, ctx: dict[str, Any], payload: Any) -> None:
        self._ran_at = monotonic()
        try:
            items = [WorkItem(UUID(row_id), int(attempt)) for row_id, attempt in payload]
        except (AttributeError, TypeError, ValueError):
            # Safe: the message is not ours, and rows that are due are published again.
            log.warning("jobs.message_refused", queue=self._queue)
            return
        await self._job(items, ctx["score"])


async def _close(worker: Worker, broker: Broker) -> None:
    """Let running jobs end, and close the connections.

    arq's own `close` would cancel the jobs a second time, and needs a Redis that answers.
    """
    jobs = list(worker.tasks.values())
    if jobs:
        _, late = await asyncio.wait(jobs, timeout=CLOSE_S)
        # What these jobs have claimed is left to its lease.
        for job in late:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    await broker.close()
