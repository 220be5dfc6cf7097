"""The loop around arq's worker, which takes the jobs of one queue and starts again whenever Redis was away.

It never looks at the work: a job only hands a batch of items to a pool.
"""

import asyncio
import random
import re
from collections.abc import Callable, Coroutine
from math import inf
from time import monotonic
from typing import Any, Protocol
from uuid import UUID

import orjson
import structlog
from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix
from arq.utils import timestamp_ms
from arq.worker import Worker, func
from redis.exceptions import RedisError

from shared.broker.client import JOB_EXPIRES_S, Broker, Queue, open_broker
from shared.broker.failures import FailureKind, kind_of, raise_if_cancelled, reason_of
from shared.database.leases import WorkItem
from worker.queue_watch import QueueNews

log = structlog.get_logger(__name__)

# Jobs of one queue that run at once. Few are enough: each only claims, or hands on, a batch of ids.
JOBS_MAX = 10
# Seconds after which arq cancels a job.
JOB_TIMEOUT_S = 60
# A loop that expects a job polls its queue this many times as often as one that has heard of nothing. It expects one
# when it is told, and where nobody tells it, for BUSY_S seconds after each job.
BUSY_FACTOR = 3
BUSY_S = 1.0
# Seconds between two polls of a queue of which nothing is heard while a subscription is open. Messages may be lost.
QUIET_S = 0.2
# Seconds until arq's worker is started again: the backoff doubles from the first value to the second.
RECONNECT_S, RECONNECT_MAX_S = 0.5, 5.0
# Seconds in which running jobs must end. They wait for the database, whose own timeouts are shorter.
CLOSE_S = 15
# Seconds; a poll takes milliseconds, and an idle loop polls many times a second.
POLLED_WITHIN_S = 5.0
# Seconds between two looks for jobs that are too old, while there are more jobs than can be started.
CLEAN_S = 1.0
# The form that arq and we give the ids of jobs.
_JOB_ID = re.compile(rb"[0-9a-f]{32}")
_FAILURES = (RedisError, OSError, TimeoutError)
# What Redis answers if something else stands under a key of the job.
_OF_THE_JOB = frozenset({FailureKind.WRONG_TYPE, FailureKind.REFUSED})

type Job = Callable[[list[WorkItem], int], Coroutine[None, None, None]]
"""Takes the items of one job, and the job's place in the queue (Unix milliseconds) for items that are put back."""


class Gate(Protocol):
    """The admission control of a queue."""

    def __call__(self) -> int:
        """Return how many jobs may run now; 0 leaves them to other workers. Called at every poll of the queue."""
        ...


class _GatedWorker(Worker):
    """arq's worker, which picks only as many jobs as the gate allows, and polls only when it is time to."""

    gate: Gate
    news: QueueNews
    pause_s: Callable[[], float]
    polled: Callable[[], None]
    looked_at = cleaned_at = -inf
    # The last poll has left no job to others that could have been started here.
    saw_all = False

    async def _poll_iteration(self) -> None:
        left_s = self.looked_at + self.pause_s() - monotonic()
        if left_s > 0:
            if await self.news.wait(left_s):
                # Not all workers at once.
                await asyncio.sleep(random.uniform(0, self.poll_delay_s))  # noqa: S311 - no secret
            return
        self.looked_at = monotonic()
        allowed = self.gate()
        self.allow_pick_jobs = allowed > 0
        self.max_jobs = min(JOBS_MAX, max(1, allowed))
        self.saw_all = False
        self.news.begin_look()
        await super()._poll_iteration()
        if not self.saw_all:
            self.news.expect_jobs()
        self.polled()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """See arq. A job stays in the queue while it runs; those that run here are skipped without asking Redis."""
        foreign = [job_id for job_id in job_ids if not _JOB_ID.fullmatch(job_id)]
        if foreign:
            await self._drop(foreign)
        new = [job_id for job_id in job_ids if job_id not in foreign and job_id.decode() not in self.tasks]
        started = len(self.tasks)
        try:
            await super().start_jobs(new)
        except OverflowError:
            # A job with the score -inf. arq has counted it already.
            self._release_sem_dec_counter_on_complete()
            await self._drop(await self.pool.zrangebyscore(self.queue_name, -inf, -inf))
            return
        has_room, is_page_full = self.job_counter < self.max_jobs, len(job_ids) >= self.queue_read_limit
        self.saw_all = has_room and not is_page_full
        # A page of jobs that run elsewhere, or whose worker died with them, must not hide those behind it.
        is_idle_page = is_page_full and has_room and len(self.tasks) == started
        self._queue_read_offset = self._queue_read_offset + len(job_ids) if is_idle_page else 0
        if not self.saw_all and monotonic() - self.cleaned_at > CLEAN_S:
            self.cleaned_at = monotonic()
            await self._drop_until(timestamp_ms() - JOB_EXPIRES_S * 1000)

    async def run_job(self, job_id: str, score: int) -> None:
        """See arq, which does not look at the types of what it reads. Safe: rows that are due are published again."""
        try:
            await super().run_job(job_id, score)
        except Exception as error:
            if isinstance(error, _FAILURES) and kind_of(error) not in _OF_THE_JOB:
                raise
            await self._drop([job_id.encode()])

    async def _drop(self, job_ids: list[bytes]) -> None:
        """Take out of the queue what is no job of ours."""
        log.warning("jobs.message_refused", queue=self.queue_name, count=len(job_ids))
        prefixes = (job_key_prefix, in_progress_key_prefix, retry_key_prefix)
        await self.pool.zrem(self.queue_name, *job_ids)
        await self.pool.delete(*(prefix.encode() + job_id for prefix in prefixes for job_id in job_ids))

    async def _drop_until(self, score_ms: float) -> None:
        """Take what is older than any job out of the queue: enough of it would stand before all others for ever."""
        if dropped := await self.pool.zremrangebyscore(self.queue_name, -inf, score_ms):
            log.warning("jobs.message_refused", queue=self.queue_name, count=dropped)


class JobLoop:
    """Takes the jobs of one queue as long as the process lives, whatever happens to Redis.

    Without `news` an idle loop polls every `poll_delay_ms` milliseconds.
    """

    def __init__(
        self,
        redis_url: str,
        queue: Queue,
        job: Job,
        *,
        poll_delay_ms: int,
        gate: Gate,
        news: QueueNews | None = None,
    ) -> None:
        self._redis_url = redis_url
        self._queue = queue
        self._job = job
        self._poll_delay_s = poll_delay_ms / 1000
        self._gate = gate
        self._news = news or QueueNews()
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
            # The poll that failed may have missed something.
            self._news.expect_jobs()
            try:
                await worker.async_run()
            except _FAILURES as error:
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
            poll_delay=self._poll_delay_s / BUSY_FACTOR,
            keep_result=0,
            max_tries=1,
            retry_jobs=False,
            log_results=False,
            job_serializer=orjson.dumps,
            job_deserializer=orjson.loads,
        )
        worker.gate = self._gate
        worker.news = self._news
        worker.pause_s = self._pause_s
        worker.polled = self._note_poll
        return worker

    def _pause_s(self) -> float:
        """Return the seconds that must lie between two polls now."""
        if self._news.is_live:
            return 0 if self._news.may_have_jobs else max(QUIET_S, self._poll_delay_s)
        return 0 if monotonic() - self._ran_at < BUSY_S else self._poll_delay_s

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
