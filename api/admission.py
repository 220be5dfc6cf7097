"""How many intents may be on their way to their commit at once: what comes beyond that is turned away at the door.

It counts from the first byte, not only in the accept queue: when the processor is what is short, intents wait in every
part of the process, and one that was read, checked and looked up before it is refused has cost as much as one accepted.

And how many begin at once: whoever is turned away, or only asks how a payment is doing, is answered after the round of
the event loop that is running. In a flood that round must not check hundreds of intents.
"""

import asyncio
from collections import deque

from starlette.types import Scope

CALM = 128  # so many inside begin as they come: the more share a commit, the cheaper it is
BEGIN_AT_ONCE = 8  # of those beyond, in one round of the event loop
_INSIDE = "payments.inside"  # in the scope of a request that is counted


class Admission:
    """Counts the intents inside; `limit` of them fit."""

    def __init__(self, limit: int, paths: frozenset[str]) -> None:
        self._limit = limit
        self._paths = paths
        self.inside = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._rounds: asyncio.Handle | None = None

    def enter(self, scope: Scope) -> bool:
        """Let a request in, counting it if it is an intent; False if it must be turned away."""
        if scope["method"] != "POST" or scope["path"] not in self._paths:
            return True
        if self.inside >= self._limit:
            return False
        self.inside += 1
        scope[_INSIDE] = True
        return True

    async def turn(self, scope: Scope) -> None:
        """Wait in line until this request may begin; only intents wait, and only when there are many."""
        if _INSIDE not in scope or (self.inside <= CALM and not self._line):
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(mine)
        if self._rounds is None:
            self._rounds = asyncio.get_running_loop().call_soon(self._round)
        await mine

    def leave(self, scope: Scope) -> None:
        """The intent is committed or refused, whatever its answer still waits for; saying so twice does no harm."""
        if scope.pop(_INSIDE, False):
            self.inside -= 1

    def _round(self) -> None:
        begun = 0
        while self._line and begun < BEGIN_AT_ONCE:
            first = self._line.popleft()
            if not first.done():  # else its request was cancelled
                first.set_result(None)
                begun += 1
        self._rounds = asyncio.get_running_loop().call_soon(self._round) if self._line else None
