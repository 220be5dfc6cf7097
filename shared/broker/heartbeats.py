"""Heartbeats: each worker says once a second, in Redis and with an expiry, that it is alive and how busy it is.

They are for people. An API decides one thing by them: what it must not accept while an older worker is alive. Without
Redis no worker is known to be alive.
"""

import asyncio
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
import structlog
from pydantic import TypeAdapter
from redis.asyncio.client import Pipeline

from shared.broker.client import Broker
from shared.broker.stored import Count, Seconds, read_stored
from shared.errors import BrokerUnavailable

log = structlog.get_logger(__name__)

# Seconds between two heartbeats of a worker.
HEARTBEAT_INTERVAL_S = 1.0
# Seconds until a heartbeat expires: a worker that misses three of them is gone.
HEARTBEAT_TTL_S = 4
# A sorted set: worker name -> the moment at which its last heartbeat expires, in Unix seconds of Redis.
WORKERS_KEY = "payments:workers"
WORKERS_MAX = 1000
# Seconds that Redis may take for all round trips of one call together.
REDIS_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """What one worker says about itself.

    `worker` is its host, process and a few random letters. `slots` is the number of payments that it processes at
    once. `in_gateway` counts the payments that the gateway is working on, `checking_orders` those that wait for the
    order service, and `sending` the deliveries that it is sending. `settled` counts payments since the worker started,
    which was `uptime_s` seconds ago; `settled_per_s` is over the last seconds. Also since the start, `outcomes` counts
    payments by failure code, or by status without one, and `settle_counts` those that took as long as each bucket of
    `payments_settle_seconds` says.
    """

    worker: str
    slots: Count
    in_gateway: Count
    sending: Count
    settled: Count
    settled_per_s: Seconds
    uptime_s: Seconds
    # A worker of 0.1 says neither of these.
    checking_orders: Count = 0
    # None is a worker of 0.1.
    version: str | None = None
    outcomes: dict[str, Count] = field(default_factory=dict)
    settle_counts: list[Count] = field(default_factory=list)

    def payloads(self) -> tuple[bytes, bytes]:
        """Return two payloads: the members that 0.1 knows, and the newer ones."""
        members = asdict(self)
        later = {name: members.pop(name) for name in _LATER_MEMBERS}
        return orjson.dumps(members), orjson.dumps(later)


# Members that a heartbeat of 0.1 does not have.
_LATER_MEMBERS = ("checking_orders", "version", "outcomes", "settle_counts")
_MEMBERS = TypeAdapter(dict[str, Any])
_STATUS = TypeAdapter(WorkerStatus)


async def send_heartbeat(broker: Broker, status: WorkerStatus) -> bool:
    """Say that a worker is alive, in at most a second.

    Return False if Redis did not answer in that time: the next heartbeat is a second away.
    """
    try:
        async with asyncio.timeout(REDIS_TIMEOUT_S):
            await _write(broker, status, now_s=await _now_s(broker))
    except (BrokerUnavailable, TimeoutError) as error:
        log.warning("heartbeat.not_sent", error=str(error))
        return False
    return True


async def remove_heartbeat(broker: Broker, worker: str) -> None:
    """Say, in at most a second, that a worker is gone, so that nothing waits for its last heartbeat to expire."""

    def add_commands(pipe: Pipeline) -> None:
        pipe.delete(_key(worker), _later_key(worker))
        pipe.zrem(WORKERS_KEY, worker)

    try:
        await broker.round_trip(add_commands, timeout_s=REDIS_TIMEOUT_S, is_transaction=True)
    except BrokerUnavailable as error:
        # Safe: the last heartbeat expires.
        log.debug("heartbeat.not_removed", error=str(error))


async def alive_workers(broker: Broker) -> list[WorkerStatus] | None:
    """Return the workers that are alive, by name and at most 1,000; None if Redis does not answer within a second."""
    try:
        async with asyncio.timeout(REDIS_TIMEOUT_S):
            return await _read_alive(broker)
    except (BrokerUnavailable, TimeoutError) as error:
        log.warning("heartbeat.unknown", error=str(error))
        return None


async def _write(broker: Broker, status: WorkerStatus, *, now_s: float) -> None:
    payload, later = status.payloads()

    def add_commands(pipe: Pipeline) -> None:
        pipe.set(_key(status.worker), payload, ex=HEARTBEAT_TTL_S)
        pipe.set(_later_key(status.worker), later, ex=HEARTBEAT_TTL_S)
        pipe.zadd(WORKERS_KEY, {status.worker: now_s + HEARTBEAT_TTL_S})
        pipe.zremrangebyscore(WORKERS_KEY, "-inf", now_s - HEARTBEAT_TTL_S)

    await broker.round_trip(add_commands, timeout_s=REDIS_TIMEOUT_S, is_transaction=True)


async def _read_alive(broker: Broker) -> list[WorkerStatus]:
    now_s = await _now_s(broker)
    [names] = await broker.round_trip(
        lambda pipe: pipe.zrangebyscore(WORKERS_KEY, now_s, "+inf", start=0, num=WORKERS_MAX),
        timeout_s=REDIS_TIMEOUT_S,
    )
    if not names:
        return []
    workers = [name.decode(errors="replace") for name in sorted(names)]
    keys = [*map(_key, workers), *map(_later_key, workers)]
    [payloads] = await broker.round_trip(lambda pipe: pipe.mget(keys), timeout_s=REDIS_TIMEOUT_S)
    pairs = zip(payloads[: len(workers)], payloads[len(workers) :], strict=True)
    statuses = [_status(payload, later) for payload, later in pairs]
    return [
        status
        for worker, status in zip(workers, statuses, strict=True)
        if status is not None and status.worker == worker
    ]


def _status(payload: bytes | None, later: bytes | None) -> WorkerStatus | None:
    """Return what a worker has said in its two payloads; None if that is no heartbeat."""
    members = read_stored(_MEMBERS, payload)
    later_members = read_stored(_MEMBERS, later or b"{}")
    if members is None or later_members is None:
        return None
    return read_stored(_STATUS, _MEMBERS.dump_json(members | later_members))


def _key(worker: str) -> str:
    return f"payments:worker:{worker}"


def _later_key(worker: str) -> str:
    return f"payments:worker-later:{worker}"


async def _now_s(broker: Broker) -> float:
    """Return the time of Redis in Unix seconds: the clocks of the workers need not agree."""
    [(seconds, microseconds)] = await broker.round_trip(lambda pipe: pipe.time(), timeout_s=REDIS_TIMEOUT_S)
    return float(seconds + microseconds / 1_000_000)
