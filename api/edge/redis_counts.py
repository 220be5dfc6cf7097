"""Counts in Redis that all API processes share: the hits of many requests go there together, in one round trip.

Nothing is decided here, and no request waits for Redis longer than COUNT_TIMEOUT_S.
"""

import asyncio

import structlog
from redis.asyncio.client import Pipeline

from shared.broker.client import Broker
from shared.errors import BrokerUnavailable
from shared.upstream.breaker import Breaker

# A healthy Redis needs a thousandth of this; a request is held up so long at most while Redis hangs.
COUNT_TIMEOUT_S = 0.1
# Seconds for which a Redis that failed is not asked.
BREAKER_OPEN_S = 1.0
log = structlog.get_logger(__name__)

KEY_PREFIX = "payments:limits"
# Hits in one round trip: a few milliseconds of Redis' time.
HITS_MAX = 500

# The key of a count, the seconds until it ends, and the future of the request that wants the sum.
type Hit = tuple[str, int, asyncio.Future[int]]


class RedisCounts:
    """Counters in Redis that expire. Hits are sent in batches: one command per request would cost half as much as the
    request.

    Hits that arrive while a round trip is running share the next; alone, a hit waits for no other. Needs `run`.
    """

    def __init__(self, broker: Broker, *, timeout_s: float = COUNT_TIMEOUT_S) -> None:
        self._broker = broker
        self._timeout_s = timeout_s
        self._breaker = Breaker("rate_limits", failures_max=1, open_s=BREAKER_OPEN_S, error=BrokerUnavailable)
        self._waiting: list[Hit] = []
        self._arrived = asyncio.Event()

    async def increment(self, key: str, expires_in_s: int) -> int:
        """Add 1 to a count that ends `expires_in_s` seconds after its first hit; return the sum.

        Raises BrokerUnavailable, within the time or at once; the hit may have been counted all the same.
        """
        self._breaker.check()
        counted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, expires_in_s, counted))
        self._arrived.set()
        return await counted

    async def run(self) -> None:
        """Take hits to Redis until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self.run_once()

    async def run_once(self) -> int:
        """Make one round trip for the hits that wait, HITS_MAX at most; return how many those were."""
        hits, self._waiting = self._waiting[:HITS_MAX], self._waiting[HITS_MAX:]
        if self._waiting:
            self._arrived.set()
        try:
            with self._breaker.guard():
                sums = await self._sums(hits)
        except BrokerUnavailable as error:
            # Safe: each process limits by its own counts meanwhile.
            log.warning("rate_limits.failed", error=str(error))
            for *_, counted in hits:
                # A future that is done belongs to a request that was given up.
                if not counted.done():
                    counted.set_exception(error)
            return len(hits)
        for (*_, counted), count in zip(hits, sums, strict=True):
            if not counted.done():
                counted.set_result(count)
        return len(hits)

    async def _sums(self, hits: list[Hit]) -> list[int]:
        """Return the sum after each hit. The first hit of a count also sets its end: none lasts for ever."""

        def add_commands(pipe: Pipeline) -> None:
            for key, expires_in_s, _ in hits:
                pipe.set(f"{KEY_PREFIX}:{key}", 0, ex=expires_in_s, nx=True)
                pipe.incrby(f"{KEY_PREFIX}:{key}", 1)

        results = await self._broker.round_trip(add_commands, timeout_s=self._timeout_s, is_transaction=False)
        return results[1::2]
