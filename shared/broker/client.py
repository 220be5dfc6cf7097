"""The broker: publishes batches of ids to the queues of arq, and tells every API process which payments are settled.

Everything in Redis may be lost, doubled or late: the rows in the database are the truth. No state and no secret
travels through it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import orjson
import structlog
from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms
from redis.asyncio.client import Pipeline, PubSub
from redis.exceptions import RedisError, ResponseError

from shared import metrics
from shared.broker.connections import close_idle, open_pool
from shared.broker.failures import FailureKind, command_of, errors_translated, kind_of, translated
from shared.broker.subscription import SettledSubscription, Subscription
from shared.database.leases import WorkItem
from shared.errors import BrokerUnavailable, ConfigurationError
from shared.upstream.breaker import Breaker

log = structlog.get_logger(__name__)

# Seconds that a publication may take; no answer waits for it. With less time, a burst that keeps our own event loop
# busy looks like a dead Redis.
PUBLISH_TIMEOUT_S = 2.0
# Seconds for which nothing is published after a failure.
BREAKER_OPEN_S = 1.0
# Ids in one job: few enough to share among workers, many enough to make few jobs.
JOB_ITEMS_MAX = 100
# Seconds after which a job expires: by then its rows have been published again many times.
JOB_EXPIRES_S = 3600
SETTLED_CHANNEL = "payments:settled"
PUBLISHED_CHANNEL = "payments:published"
# The job of `probe`, which never exists.
PROBE = "payments-probe"
UNSUPPORTED_MODES = {
    "cluster": "this Redis runs in cluster mode, which is not supported. Use one without cluster mode, or Sentinel.",
    "sentinel": "this is a Sentinel. Write redis+sentinel://host:26379/name-of-the-master instead.",
}


class Queue(StrEnum):
    """The queues of arq, each for one kind of job."""

    PROCESS = "payments:process"
    REFUND = "payments:refund"
    DELIVER = "payments:deliver"

    @property
    def job(self) -> str:
        """The name of the arq function that takes the batches of this queue."""
        return {Queue.PROCESS: "process_payments", Queue.REFUND: "process_refunds", Queue.DELIVER: "deliver"}[self]


def open_broker(redis_url: str) -> "Broker":
    """Return the broker at `redis_url`. It connects to nothing yet. Raises ConfigurationError for a wrong URL."""
    return Broker(ArqRedis(open_pool(redis_url), job_serializer=orjson.dumps, job_deserializer=orjson.loads))


class Broker:
    """A client of Redis. A publication takes at most 2 s, and after one that failed none is tried for a second."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        # Redis has let us tell the workers of the last job.
        self._tells = True
        # Every publication may probe: the rows of one that is refused would wait up to 30 s for the relay.
        self._breaker = Breaker(
            "broker", failures_max=1, open_s=BREAKER_OPEN_S, single_probe=False, error=BrokerUnavailable
        )

    @property
    def arq_connection(self) -> ArqRedis:
        """The connection pool in the form that arq's worker takes; only the arq loop uses it."""
        return self._redis

    async def require_supported(self) -> None:
        """Raise ConfigurationError if Redis answers within 2 s that it runs in a mode that is not supported."""
        try:
            async with self._answering(PUBLISH_TIMEOUT_S):
                server = await self._redis.info("server")
        except BrokerUnavailable as error:
            # Safe: without Redis, payments are accepted all the same, and a probe says what it refuses.
            log.warning("broker.unknown", error=str(error))
            return
        if reason := UNSUPPORTED_MODES.get(server.get("redis_mode") or server.get("server_mode", "")):
            raise ConfigurationError(f"REDIS_URL: {reason}")

    async def publish(self, queue: Queue, items: Sequence[WorkItem], *, score_ms: int | None = None) -> bool:
        """Publish one job with `items`. Return False if that failed or is not known: the rows stay due.

        Takes at most 2 s. Returns False at once while the breaker is open. `score_ms` is the job's place in the queue,
        in Unix milliseconds. Give the score of the earlier job when you put back items that did not fit. Without it the
        job goes to the end.
        """
        payload: list[list[str | int]] = [[str(item.id), item.lease_version] for item in items]
        return await self._try_jobs(self._enqueue(queue, payload, score_ms))

    async def notify_settled(self, payment_ids: Iterable[UUID]) -> bool:
        """Tell every API process that these payments are settled; return whether Redis answered.

        A lost message costs a long poll one second.
        """
        ids = [str(payment_id) for payment_id in payment_ids]
        return await self._try("notify_settled", self._publish_settled(ids))

    @asynccontextmanager
    async def subscribe_settled(self) -> AsyncIterator[SettledSubscription]:
        """Subscribe to settled payments for the length of the block. Raises BrokerUnavailable, also within it."""
        async with self._subscribed(SETTLED_CHANNEL) as pubsub:
            yield SettledSubscription(pubsub)

    @asynccontextmanager
    async def subscribe_published(self) -> AsyncIterator[Subscription]:
        """Subscribe to the names of queues that get a job, for the length of the block. Raises BrokerUnavailable."""
        async with self._subscribed(PUBLISHED_CHANNEL) as pubsub:
            yield Subscription(pubsub)

    async def round_trip(
        self, add_commands: Callable[[Pipeline], object], *, timeout_s: float, is_transaction: bool = False
    ) -> list[Any]:
        """Send the commands that `add_commands` adds to a pipeline in one round trip; return their results.

        Raises BrokerUnavailable if there is no answer within `timeout_s` seconds; the commands may have run all the
        same, and with `is_transaction` all of them or none have. The circuit breaker is for publications only and plays
        no part here.
        """
        async with self._answering(timeout_s), self._redis.pipeline(transaction=is_transaction) as pipe:
            add_commands(pipe)
            results: list[Any] = await pipe.execute()
            return results

    async def probe(self) -> bool:
        """Return whether jobs can be published, within 2 s and whatever the breaker says; nothing is published.

        After a success publications go on at once; without one they pause for a second.
        """
        return await self._try_jobs(self._write_nothing(), is_forced=True)

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose(close_connection_pool=True)

    async def _try_jobs(self, action: Coroutine[None, None, None], *, is_forced: bool = False) -> bool:
        could = await self._try("publish", action, is_forced=is_forced)
        metrics.can_publish.set(could)
        return could

    async def _try(self, name: str, action: Coroutine[None, None, None], *, is_forced: bool = False) -> bool:
        try:
            with self._breaker.guard(is_forced=is_forced):
                await self._in_time(name, action)
        except BrokerUnavailable:
            # A breaker that is open has not begun the action.
            action.close()
            return False
        return True

    async def _in_time(self, name: str, action: Coroutine[None, None, None]) -> None:
        try:
            async with self._answering(PUBLISH_TIMEOUT_S):
                await action
        except BrokerUnavailable as error:
            # Safe to go on: what was to be published is due in the database, and the relay finds it there.
            log.warning("broker.failed", action=name, error=str(error))
            raise

    @asynccontextmanager
    async def _subscribed(self, channel: str) -> AsyncIterator[PubSub]:
        with errors_translated():
            async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(channel)
                yield pubsub

    @asynccontextmanager
    async def _answering(self, timeout_s: float) -> AsyncIterator[None]:
        """Bound the block, and translate its errors. If no answer comes, connections that may be dead are closed."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            if kind_of(error) is FailureKind.UNREACHABLE:
                await close_idle(self._redis.connection_pool)
            raise translated(error) from error

    async def _write_nothing(self) -> None:
        """Send the commands of a publication in the form that changes nothing; Redis refuses what it would refuse."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(job_key_prefix + PROBE, b"", px=1, xx=True)
            for queue in Queue:
                pipe.zadd(queue, {PROBE: 0}, xx=True)
            await pipe.execute()

    async def _enqueue(self, queue: Queue, payload: list[list[str | int]], score_ms: int | None) -> None:
        """Write what arq's `enqueue_job` writes and tell the workers, in one round trip.

        arq's own WATCH is for job ids that may exist already, and it loses a connection for good when the server hangs
        between WATCH and EXEC.
        """
        job_id, now_ms = uuid4().hex, timestamp_ms()
        job = serialize_job(queue.job, (payload,), {}, None, now_ms, serializer=orjson.dumps)
        # No transaction: where the channel is forbidden it would publish nothing.
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(job_key_prefix + job_id, job, ex=JOB_EXPIRES_S)
            pipe.zadd(queue, {job_id: now_ms if score_ms is None else score_ms})
            pipe.publish(PUBLISHED_CHANNEL, queue)
            try:
                await pipe.execute()
            except ResponseError as refusal:
                # The first command that is refused. Before the last one the job was written.
                if not command_of(refusal).startswith("PUBLISH"):
                    raise
                # Safe: workers that are told of nothing look into their queues all the same.
                if self._tells:
                    log.warning("broker.notification_refused", error=str(translated(refusal)))
                self._tells = False
            else:
                self._tells = True

    async def _publish_settled(self, payment_ids: list[str]) -> None:
        try:
            await self._redis.publish(SETTLED_CHANNEL, orjson.dumps(payment_ids))
        except ResponseError as error:
            # Safe: long polls look again once a second, and jobs may be published all the same.
            log.warning("broker.notification_refused", error=str(translated(error)))
