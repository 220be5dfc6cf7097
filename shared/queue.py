"""Redis, the carrier: batches of ids to arq's queues, and wake-ups for those who wait.

Everything carried here may be lost, doubled or late: the rows are the truth. No state and no secret travels.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from enum import StrEnum
from time import monotonic
from uuid import UUID, uuid4

import orjson
import structlog
from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import RedisError

from shared.leases import Ref

log = structlog.get_logger(__name__)

PUBLISH_TIMEOUT_S = 2.0  # no answer waits for it; less, and a burst that keeps our loop busy looks like a dead Redis
BREAKER_S = 1.0  # how long a carrier that failed is left alone
JOB_REFS_MAX = 100  # ids in one job: small enough to share among workers, large enough to be few
PUBLISH_REST = 1.0  # times as long as the last round took, before the next: a stream of small commits is few jobs
PENDING_MAX = 20_000  # ids waiting for the publisher; what does not fit is the relay's
CONNECTIONS_MAX = 20
SOCKET_TIMEOUT_S = 2.0  # a hung server must look like a dead one
JOB_EXPIRES_S = 3600  # a job older than this has been published again many times
SETTLED_CHANNEL = "payments:settled"


class Queue(StrEnum):
    """arq's queues, each named like its one job."""

    PROCESS = "payments:process"
    DELIVER = "payments:deliver"

    @property
    def job(self) -> str:
        """The name of the arq function that takes this queue's batches."""
        return {Queue.PROCESS: "process_payments", Queue.DELIVER: "deliver"}[self]


def open_carrier(redis_url: str) -> "Carrier":
    """The carrier at REDIS_URL; does not connect."""
    pool = BlockingConnectionPool.from_url(
        redis_url,
        max_connections=CONNECTIONS_MAX,
        timeout=SOCKET_TIMEOUT_S,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
    )
    return Carrier(ArqRedis(pool, job_serializer=orjson.dumps, job_deserializer=orjson.loads))


class Carrier:
    """Publishes at most for 2 s and, after a failure, not at all for a second."""

    def __init__(self, redis: ArqRedis) -> None:
        self.redis = redis
        self._closed_until = 0.0

    async def publish(self, queue: Queue, refs: Sequence[Ref], *, score_ms: int | None = None) -> bool:
        """One job with `refs`; False if it did not get through (or nobody knows): the rows stay due.

        `score_ms` is the place in the queue of an earlier job whose rest this is; without it, the end.
        """
        payload: list[list[str | int]] = [[str(ref.id), ref.attempt] for ref in refs]
        return await self._attempt(self._enqueue(queue, payload, score_ms))

    async def wake(self, payment_ids: Iterable[UUID]) -> bool:
        """Tell every API process that these payments are settled; a lost message costs a waiter a second."""
        return await self._attempt(self._wake([str(payment_id) for payment_id in payment_ids]))

    async def ping(self) -> bool:
        """Redis answers now."""
        self._closed_until = 0.0
        return await self._attempt(self._ping())

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose(close_connection_pool=True)

    async def _attempt(self, action: Coroutine[None, None, None]) -> bool:
        if monotonic() < self._closed_until:
            action.close()
            return False
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                await action
        except (RedisError, OSError, TimeoutError) as error:
            # Safe to go on: whatever was to be published is due in the database and the relay comes by.
            log.warning("carrier.failed", error=type(error).__name__)
            self._closed_until = monotonic() + BREAKER_S
            return False
        return True

    async def _enqueue(self, queue: Queue, payload: list[list[str | int]], score_ms: int | None) -> None:
        """What arq's `enqueue_job` writes, in one round trip: its WATCH is for ids that may exist already, and loses
        a connection for good when the server hangs between WATCH and EXEC."""
        job_id, now_ms = uuid4().hex, timestamp_ms()
        job = serialize_job(queue.job, (payload,), {}, None, now_ms, serializer=orjson.dumps)
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.psetex(job_key_prefix + job_id, JOB_EXPIRES_S * 1000, job)
            pipe.zadd(queue, {job_id: now_ms if score_ms is None else score_ms})
            await pipe.execute()

    async def _wake(self, payment_ids: list[str]) -> None:
        await self.redis.publish(SETTLED_CHANNEL, orjson.dumps(payment_ids))

    async def _ping(self) -> None:
        await self.redis.ping()


class Publisher:
    """Publishes in the background what was committed, so that no answer waits for Redis."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._pending: dict[Queue, deque[Ref]] = {queue: deque(maxlen=PENDING_MAX) for queue in Queue}
        self._settled: deque[UUID] = deque(maxlen=PENDING_MAX)
        self._arrived = asyncio.Event()
        self._closing = False

    def publish(self, queue: Queue, refs: Iterable[Ref]) -> None:
        """Hand over ids that are committed and due."""
        self._pending[queue].extend(refs)
        self._arrived.set()

    def wake(self, payment_ids: Iterable[UUID]) -> None:
        """Hand over ids of payments whose settlement is committed."""
        self._settled.extend(payment_ids)
        self._arrived.set()

    async def run(self) -> None:
        """Publish what arrives until `close`, then what is left."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            began_at = monotonic()
            await self.run_once()
            if self._closing:
                return
            await asyncio.sleep(PUBLISH_REST * (monotonic() - began_at))

    async def run_once(self) -> int:
        """Publish what has been handed over; returns how many ids that were, whether or not they got through."""
        published = len(self._settled)
        if self._settled:
            settled, self._settled = self._settled, deque(maxlen=PENDING_MAX)
            await self._carrier.wake(settled)
        for queue, pending in self._pending.items():
            while pending:
                refs = [pending.popleft() for _ in range(min(JOB_REFS_MAX, len(pending)))]
                await self._carrier.publish(queue, refs)
                published += len(refs)
        return published

    def close(self) -> None:
        """Let `run` end after what is left."""
        self._closing = True
        self._arrived.set()
