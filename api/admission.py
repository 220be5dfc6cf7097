"""How many intents may be on their way to their commit at once: what comes beyond that is turned away at the door.

It counts from the first byte, not only in the accept queue: when the processor is what is short, intents wait in every
part of the process, and one that was read, checked and looked up before it is refused has cost as much as one accepted.
"""

from starlette.types import Scope

_INSIDE = "payments.inside"  # in the scope of a request that is counted


class Admission:
    """Counts the intents inside; `limit` of them fit."""

    def __init__(self, limit: int, paths: frozenset[str]) -> None:
        self._limit = limit
        self._paths = paths
        self.inside = 0

    def enter(self, scope: Scope) -> bool:
        """Let a request in, counting it if it is an intent; False if it must be turned away."""
        if scope["method"] != "POST" or scope["path"] not in self._paths:
            return True
        if self.inside >= self._limit:
            return False
        self.inside += 1
        scope[_INSIDE] = True
        return True

    def leave(self, scope: Scope) -> None:
        """The intent is committed or refused, whatever its answer still waits for; saying so twice does no harm."""
        if scope.pop(_INSIDE, False):
            self.inside -= 1
