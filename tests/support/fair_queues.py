"""Queues of deliveries without a pool: attempts begin and end when the test says so, and a clock of its own passes."""

from shared.database.leases import WorkItem
from shared.ids import new_id
from shared.webhooks.flows import Flow
from tests.support.manual_clock import ManualClock
from worker.deliveries.fair_queues import FairQueues, Pace, Turn
from worker.deliveries.shares import Limits

LIMITS = Limits.of(slots=200, slots_per_origin=50)
SLOW_AFTER_S = 2.0


class Queues:
    """Queues with a pool of slots that is never larger than `slots`."""

    def __init__(self, slots: int = 200, limits: Limits = LIMITS) -> None:
        self.clock = ManualClock()
        self.queues = FairQueues(limits, slow_after_s=SLOW_AFTER_S, clock=self.clock)
        self.slots = slots
        self.running: list[Turn] = []

    def put(self, flow: Flow, count: int = 1) -> None:
        for _ in range(count):
            assert self.queues.put(flow, an_item()) is None

    def fill(self) -> list[Flow]:
        """Start attempts while there are slots; return their flows in order."""
        started = []
        while len(self.running) < self.slots and (turn := self.queues.take()):
            self.queues.began(turn)
            self.running.append(turn)
            started.append(turn.flow)
        return started

    def end(self, flow: Flow | None = None, pace: Pace = Pace.FAST, count: int = 1) -> None:
        """End attempts, the oldest first."""
        for _ in range(count):
            turn = next(turn for turn in self.running if flow in {None, turn.flow})
            self.running.remove(turn)
            self.queues.release(turn, pace)

    def prove(self, *flows: Flow) -> None:
        """Let an attempt of each flow be accepted."""
        for flow in flows:
            self.put(flow)
            assert self.fill() == [flow]
            self.end(flow)


def an_item() -> WorkItem:
    return WorkItem(new_id(), 0)


def flow(origin: str = "https://shop.example:443", owner: str = "user:1", receiver: str | None = None) -> Flow:
    return Flow(origin, receiver or owner, owner)


def one_of(number: int, owner: str = "user:1") -> Flow:
    """A flow to a site of its own."""
    return flow(f"https://shop{number}.example:443", owner)
