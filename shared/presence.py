"""Which workers are alive and how busy they are: each says so once a second, in Redis, with an expiry.

For people who watch; nothing decides by it, and without Redis nobody is known to be alive.
"""

import asyncio
from dataclasses import asdict, dataclass
from typing import Self

import orjson
import structlog
from redis.exceptions import RedisError

from shared.queue import Carrier

log = structlog.get_logger(__name__)

BEAT_EVERY_S = 1.0
ALIVE_FOR_S = 4  # a worker that misses three beats is gone
WORKERS_KEY = "payments:workers"  # a sorted set: worker id -> the expiry of its last beat
WORKERS_MAX = 1000
ANSWER_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One worker's word about itself."""

    worker: str  # host, process and a few random letters
    slots: int
    in_gateway: int
    sending: int  # webhooks
    settled: int  # payments, since it started
    settled_per_s: float  # over the last seconds
    uptime_s: float

    @classmethod
    def of(cls, payload: bytes) -> Self:
        """The beat that `payload` holds."""
        return cls(**orjson.loads(payload))


async def announce(carrier: Carrier, beat: Beat) -> bool:
    """Say that a worker is alive; False if Redis did not take it."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S), carrier.redis.pipeline(transaction=True) as pipe:
            now = await _now(carrier)
            pipe.set(_key(beat.worker), orjson.dumps(asdict(beat)), ex=ALIVE_FOR_S)
            pipe.zadd(WORKERS_KEY, {beat.worker: now + ALIVE_FOR_S})
            pipe.zremrangebyscore(WORKERS_KEY, "-inf", now - ALIVE_FOR_S)
            await pipe.execute()
    except (RedisError, OSError, TimeoutError) as error:
        log.debug("presence.unannounced", error=type(error).__name__)  # the next beat is a second away
        return False
    return True


async def leave(carrier: Carrier, worker: str) -> None:
    """Say that a worker is gone, so that nobody waits for its beats to expire."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S), carrier.redis.pipeline(transaction=True) as pipe:
            pipe.delete(_key(worker))
            pipe.zrem(WORKERS_KEY, worker)
            await pipe.execute()
    except (RedisError, OSError, TimeoutError) as error:
        log.debug("presence.not_left", error=type(error).__name__)  # its last beat expires


async def alive(carrier: Carrier) -> list[Beat] | None:
    """The workers that are alive, by name; None if Redis does not answer."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            names = await carrier.redis.zrangebyscore(
                WORKERS_KEY, await _now(carrier), "+inf", start=0, num=WORKERS_MAX
            )
            payloads = await carrier.redis.mget([_key(name.decode()) for name in sorted(names)]) if names else []
    except (RedisError, OSError, TimeoutError) as error:
        log.debug("presence.unknown", error=type(error).__name__)
        return None
    return [Beat.of(payload) for payload in payloads if payload]


def _key(worker: str) -> str:
    return f"payments:worker:{worker}"


async def _now(carrier: Carrier) -> float:
    """Redis' clock: the workers' own need not agree."""
    seconds, microseconds = await carrier.redis.time()
    return float(seconds + microseconds / 1_000_000)
