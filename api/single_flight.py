"""Single flight: callers that want the same answer at the same time share one call."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from math import inf
from time import monotonic
from typing import Any

# The name of the tasks that make the calls.
TASK_NAME = "single_flight"


class SingleFlight[K: Hashable, T]:
    """At most one call per key at a time; every caller that arrives while it runs gets its result."""

    def __init__(self) -> None:
        self._calls: dict[K, asyncio.Task[T]] = {}

    async def do(self, key: K, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of `call`, or of the call for `key` that is running already. Raises what it raises.

        The call goes on if a caller leaves, until `close` at the latest. The call must have a timeout of its own.
        """
        running = self._calls.get(key)
        if running is None:
            running = self._calls[key] = asyncio.create_task(call(), name=TASK_NAME)
            running.add_done_callback(lambda task: self._forget(key, task))
        return await asyncio.shield(running)

    async def close(self) -> None:
        """Cancel the calls that still run, and return when they have ended. Callers that still wait are cancelled."""
        running = list(self._calls.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _forget(self, key: K, task: asyncio.Task[T]) -> None:
        del self._calls[key]
        # Every caller may have left. Without this, asyncio would log that the exception was never retrieved.
        if not task.cancelled():
            task.exception()


class CachedCall[T]:
    """An answer that is kept for `ttl_s` seconds. After that, one call for all callers gets a new one."""

    def __init__(
        self, call: Callable[[], Coroutine[Any, Any, T]], *, ttl_s: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._call = call
        self._ttl_s = ttl_s
        self._clock = clock
        self._flight: SingleFlight[None, T] = SingleFlight()
        self._answer: T | None = None
        self._answered_at = -inf

    async def get(self) -> T:
        """Return the answer, at most `ttl_s` seconds old. Raises what the call raises; errors are not kept."""
        if self._answer is not None and self._clock() - self._answered_at < self._ttl_s:
            return self._answer
        return await self._flight.do(None, self._ask)

    async def close(self) -> None:
        """Cancel the call if it still runs, and return when it has ended."""
        await self._flight.close()

    async def _ask(self) -> T:
        answer = await self._call()
        self._answer, self._answered_at = answer, self._clock()
        return answer
