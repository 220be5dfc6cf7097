"""Counts in Redis that all processes share: the hits of many requests go there together, in one round trip.

It decides nothing, and waits for Redis no longer than COUNT_TIMEOUT_S.
"""

import asyncio
from typing import Any

from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.breaker import Breaker
from shared.errors import NeighbourUnreachable

COUNT_TIMEOUT_S = 0.1  # a healthy Redis needs a thousandth of it; this much an answer may get later by a hung one
REDIS_REST_S = 1.0  # how long a Redis that failed is left alone
KEY_PREFIX = "payments:limits"
HITS_MAX = 500  # in one round trip: a few milliseconds of Redis' time

type Hit = tuple[str, int, int, asyncio.Future[int]]  # the key, its end in s, how many at once, and who wants to know


class SharedCounts(RedisStorage):
    """The storage of `limits`, but for `incr`: a command for each request costs half of what the request does.

    Hits that arrive while a round trip is running share the next; alone, a hit waits for nobody. Needs `run`.
    """

    def __init__(self, redis: Redis, *, timeout_s: float = COUNT_TIMEOUT_S) -> None:
        options: dict[str, Any] = {"connection_pool": redis.connection_pool}  # which decides where Redis is
        super().__init__("async+redis://", implementation="redispy", key_prefix=KEY_PREFIX, **options)
        self._redis = redis
        self._timeout_s = timeout_s
        self._breaker = Breaker("rate_limits", failures_max=1, open_s=REDIS_REST_S)
        self._waiting: list[Hit] = []
        self._arrived = asyncio.Event()

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add `amount` to a count that ends `expiry` s after its first hit; returns the sum.

        Raises NeighbourUnreachable, within the time or at once; it may have been counted all the same.
        """
        self._breaker.check()
        counted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, expiry, amount, counted))
        self._arrived.set()
        return await counted

    async def run(self) -> None:
        """Take hits to Redis until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self.run_once()

    async def run_once(self) -> int:
        """One round trip for those that wait, HITS_MAX at most; returns how many those were."""
        hits, self._waiting = self._waiting[:HITS_MAX], self._waiting[HITS_MAX:]
        if self._waiting:
            self._arrived.set()
        try:
            sums = await self._added(hits)
        except NeighbourUnreachable as error:
            for *_, counted in hits:
                if not counted.done():  # it is, where a request was given up
                    counted.set_exception(error)
            return len(hits)
        for (*_, counted), count in zip(hits, sums, strict=True):
            if not counted.done():
                counted.set_result(count)
        return len(hits)

    async def _added(self, hits: list[Hit]) -> list[int]:
        """The sum after each hit. What begins a count sets its end with it: none is left that lasts for ever."""
        with self._breaker.guard():
            try:
                async with asyncio.timeout(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
                    for key, expiry, amount, _ in hits:
                        pipe.set(f"{KEY_PREFIX}:{key}", 0, ex=expiry, nx=True)
                        pipe.incrby(f"{KEY_PREFIX}:{key}", amount)
                    return (await pipe.execute())[1::2]
            except (RedisError, OSError, TimeoutError) as error:
                raise NeighbourUnreachable(type(error).__name__) from error
