"""Admission control: how many payment intents may be in progress before their commit, and how many start at once.

An intent counts from its first byte, not only in the accept queue. When the CPU is the bottleneck, intents wait in
every part of the process. An intent that is refused only after it was read, validated and looked up has cost as much as
one that was accepted.

A refusal, or the answer to a request that only reads a payment, is sent after the current iteration of the event loop.
In a flood that iteration must not validate hundreds of intents, so their start is throttled.
"""

import asyncio
from collections import deque

from starlette.types import Scope

# Up to this many admitted intents start as they arrive: the more of them share a commit, the cheaper each one is.
UNTHROTTLED_MAX = 128
# Of the intents beyond that, so many start in one iteration of the event loop.
STARTS_PER_TICK = 8
# The key in the ASGI scope of a request that is counted.
_ADMITTED = "payments.admitted"


class Admission:
    """Counts the admitted intents, at most `limit` at once. An intent is a POST to one of `paths`.

    While more than `unthrottled_max` are in progress, `starts_per_tick` start in one iteration of the event loop.
    Signed notifications of gateways are counted like intents, in an admission of their own.
    """

    def __init__(
        self,
        limit: int,
        paths: frozenset[str],
        *,
        unthrottled_max: int = UNTHROTTLED_MAX,
        starts_per_tick: int = STARTS_PER_TICK,
    ) -> None:
        self._limit = limit
        self._paths = paths
        self._unthrottled_max = unthrottled_max
        self._starts_per_tick = starts_per_tick
        self.admitted = 0
        self._starts: deque[asyncio.Future[None]] = deque()
        self._tick: asyncio.Handle | None = None

    def enter(self, scope: Scope) -> bool:
        """Admit a request, and count it if it is an intent. Return False if it must be refused."""
        if scope["method"] != "POST" or scope["path"] not in self._paths:
            return True
        if self.admitted >= self._limit:
            return False
        self.admitted += 1
        scope[_ADMITTED] = self
        return True

    async def wait_for_start(self, scope: Scope) -> None:
        """Wait until this request may start. Only intents wait, and only while there are many of them."""
        if scope.get(_ADMITTED) is not self or (self.admitted <= self._unthrottled_max and not self._starts):
            return
        start: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._starts.append(start)
        if self._tick is None:
            self._tick = asyncio.get_running_loop().call_soon(self._start_some)
        await start

    def leave(self, scope: Scope) -> None:
        """Stop counting an intent that is committed or refused, even while a long poll holds back its answer.

        Calling this again for the same request does nothing.
        """
        if scope.get(_ADMITTED) is self:
            del scope[_ADMITTED]
            self.admitted -= 1

    def _start_some(self) -> None:
        started = 0
        while self._starts and started < self._starts_per_tick:
            start = self._starts.popleft()
            # A future that is done belongs to a request that was cancelled.
            if not start.done():
                start.set_result(None)
                started += 1
        self._tick = asyncio.get_running_loop().call_soon(self._start_some) if self._starts else None
