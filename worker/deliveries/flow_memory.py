"""What a worker remembers of flows: which are proven, and which asked for a pause. It forgets the oldest."""

from collections import OrderedDict
from collections.abc import Callable

from shared.webhooks.flows import Flow

# Flows that are remembered of each kind.
FLOWS_REMEMBERED = 10_000


class FlowMemory:
    """Remembers at most FLOWS_REMEMBERED proven flows, and as many that are held."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._proven: OrderedDict[Flow, None] = OrderedDict()
        # The moments (in seconds of the clock) until which a flow takes nothing.
        self._held_until: OrderedDict[Flow, float] = OrderedDict()

    def is_proven(self, flow: Flow) -> bool:
        """Return whether the last attempt of the flow that says anything was accepted soon."""
        return flow in self._proven

    def prove(self, flow: Flow) -> None:
        """Remember that an attempt was accepted soon."""
        self._proven[flow] = None
        self._proven.move_to_end(flow)
        _trim(self._proven)

    def disprove(self, flow: Flow) -> None:
        """Remember that an attempt was slow, or that the receiver asked for a pause."""
        self._proven.pop(flow, None)

    def hold(self, flow: Flow, for_s: float) -> None:
        """Hold the flow for so many seconds. A longer hold stays."""
        until = self._clock() + for_s
        self._held_until[flow] = max(until, self._held_until.pop(flow, until))
        _trim(self._held_until)

    def held_for(self, flow: Flow) -> float | None:
        """Return the seconds for which the flow is still held; None if it is not."""
        until = self._held_until.get(flow)
        if until is None:
            return None
        left_s = until - self._clock()
        if left_s > 0:
            return left_s
        del self._held_until[flow]
        return None


def _trim[V](remembered: OrderedDict[Flow, V]) -> None:
    if len(remembered) > FLOWS_REMEMBERED:
        remembered.popitem(last=False)
