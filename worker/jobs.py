"""arq's side of the worker: two queues, one job each, and a loop around arq's, which ends when Redis goes away."""

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

from shared.leases import Ref
from shared.queue import Carrier, Queue, open_carrier

log = structlog.get_logger(__name__)

JOBS_MAX = 10  # jobs at once from one queue; each only claims, or hands on, a batch of ids
JOB_TIMEOUT_S = 60
IDLE_STRIDE = 3  # a loop that had a job within BUSY_S looks into its queue this many times as often
BUSY_S = 1.0
RECONNECT_S, RECONNECT_MAX_S = 0.5, 5.0
CLOSE_S = 15  # for running jobs to end: they wait for the database, whose own time-outs are shorter

type Job = Callable[[list[Ref], int], Coroutine[None, None, None]]
"""Takes a batch of tickets, and its place in the queue (ms) for what it must put back."""


class Gate(Protocol):
    """How many jobs may run now; 0 = leave them to other workers."""

    def __call__(self) -> int:
        """Asked at every look into the queue."""
        ...


class _GatedWorker(Worker):
    """arq's worker, picking only as many jobs as the gate lets in."""

    gate: Gate
    is_idle: Callable[[], bool]
    looks = 0

    async def _poll_iteration(self) -> None:
        self.looks += 1
        if self.is_idle() and self.looks % IDLE_STRIDE:
            return
        allowed = self.gate()
        self.allow_pick_jobs = allowed > 0
        self.max_jobs = min(JOBS_MAX, max(1, allowed))
        await super()._poll_iteration()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """See arq. A job stays in the queue while it runs: about our own we need not ask Redis at every look."""
        await super().start_jobs([job_id for job_id in job_ids if job_id.decode() not in self.tasks])


class JobLoop:
    """Takes the jobs of one queue for as long as the process lives, whatever happens to Redis."""

    def __init__(self, redis_url: str, queue: Queue, job: Job, *, poll_delay_ms: int, gate: Gate) -> None:
        self._redis_url = redis_url
        self._queue = queue
        self._job = job
        self._poll_delay_s = poll_delay_ms / 1000
        self._gate = gate
        self._ran_at = -inf  # monotonic, the last job

    async def run(self) -> None:
        """Run arq's loop, and start a new one with growing pauses whenever it ends, until cancelled."""
        pause_s = RECONNECT_S
        while True:
            carrier = open_carrier(self._redis_url)
            worker = self._worker(carrier)
            started = asyncio.get_running_loop().time()
            try:
                await worker.async_run()
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("jobs.loop_ended", queue=self._queue, error=type(error).__name__, again_in_s=pause_s)
            finally:
                await asyncio.shield(_close(worker, carrier))
            lasted_s = asyncio.get_running_loop().time() - started
            pause_s = RECONNECT_S if lasted_s > RECONNECT_MAX_S else min(2 * pause_s, RECONNECT_MAX_S)
            await asyncio.sleep(pause_s)

    def _worker(self, carrier: Carrier) -> _GatedWorker:
        worker = _GatedWorker(
            functions=[func(self._run_job, name=self._queue.job, keep_result=0, timeout=JOB_TIMEOUT_S, max_tries=1)],
            queue_name=self._queue,
            redis_pool=carrier.redis,
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
        return worker

    async def _run_job(self, ctx: dict[str, Any], payload: Any) -> None:
        self._ran_at = monotonic()
        try:
            refs = [Ref(UUID(ref_id), int(attempt)) for ref_id, attempt in payload]
        except (AttributeError, TypeError, ValueError):
            log.warning("jobs.message_refused", queue=self._queue)  # nothing of ours; what is due is published again
            return
        await self._job(refs, ctx["score"])


async def _close(worker: Worker, carrier: Carrier) -> None:
    """Let running jobs end; arq's own `close` would cancel them a second time and needs a Redis that answers."""
    jobs = list(worker.tasks.values())
    if jobs:
        _, late = await asyncio.wait(jobs, timeout=CLOSE_S)
        for job in late:  # what it claimed is left to its lease
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    await carrier.close()
