"""Deliveries that wait for a slot, in one queue per flow, taken in turns that no owner and no slow receiver can buy.

Owners take turns, and so do the flows of one owner. A flow that has used up a share (see `shares`) waits at that gate
and costs nothing until a slot of the share is free.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from time import monotonic
from typing import assert_never
from uuid import UUID

from shared.database.leases import WorkItem
from shared.webhooks.flows import Flow
from worker.deliveries.flow_memory import FlowMemory
from worker.deliveries.shares import Gate, Gates, Limits, Turns

# Items in memory, about 15 MB. One owner's backlog is never larger than the room that is left for the others.
ITEMS_MAX = 40_000
# An item without room comes back after a second for so many that wait: a fast receiver has then taken half of them.
DRAINED_PER_S = 2_000
COMES_BACK_MIN_S, COMES_BACK_MAX_S = 1.0, 30.0


class Pace(Enum):
    """What an attempt says about its flow."""

    # It was accepted soon: the flow is proven.
    FAST = auto()
    # It took too long, or the receiver asked for a pause: the flow is not proven.
    SLOW = auto()
    # It failed quickly, or was not made, which says nothing.
    UNKNOWN = auto()


@dataclass(slots=True, eq=False)
class Turn:
    """An item that was taken, with its share of the slots."""

    flow: Flow
    item: WorkItem
    gates: list[Gate]
    is_unproven: bool
    # The moment (monotonic, in seconds) at which the attempt began.
    began_at: float = inf


@dataclass(slots=True, eq=False)
class _Queue:
    """The items of one flow."""

    items: OrderedDict[UUID, WorkItem] = field(default_factory=OrderedDict)
    # The gate at which the flow waits; None while it has a turn.
    closed_gate: Gate | None = None
    # The gate that has let the flow have a turn again.
    woken_by: Gate | None = None


class FairQueues:
    """At most `items_max` items that wait, by flow.

    An attempt that lasts longer than `slow_after_s` seconds makes its flow unproven. The pauses that receivers ask for
    are counted by `hold_clock` (in seconds); without one, by `clock`.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        slow_after_s: float,
        items_max: int = ITEMS_MAX,
        clock: Callable[[], float] = monotonic,
        hold_clock: Callable[[], float] | None = None,
    ) -> None:
        self._gates = Gates(limits)
        self._slow_after_s = slow_after_s
        self._items_max = items_max
        self._clock = clock
        self._queues: dict[Flow, _Queue] = {}
        self._turns = Turns()
        self._items_by_owner: Counter[str] = Counter()
        self._count = 0
        # Items of flows that wait at a gate.
        self._blocked_count = 0
        self._memory = FlowMemory(hold_clock or clock)
        # Attempts that run, the longest first.
        self._running: OrderedDict[Turn, None] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Nobody's item would find room."""
        return self._count >= self._items_max

    @property
    def unblocked_count(self) -> int:
        """Items whose flow has a turn: they need nothing but a slot."""
        return self._count - self._blocked_count

    def put(self, flow: Flow, item: WorkItem) -> float | None:
        """Add an item, or let it replace an older item of the same delivery. Return None.

        If the flow is held, or there is no room, nothing is added: return the seconds after which the item should come
        back.
        """
        if wait_s := self._memory.held_for(flow):
            return wait_s
        queue = self._queues.get(flow)
        known = queue.items.get(item.id) if queue else None
        if known is None and (wait_s := self._no_room_for(flow.owner)):
            return wait_s
        if queue is None:
            queue = self._queues[flow] = _Queue()
            self._turns.add(flow)
        queue.items[item.id] = max(item, known) if known else item
        if known is None:
            self._counted(flow, queue, 1)
        return None

    def take(self) -> Turn | None:
        """Take the next item with its share of the slots; None if nothing waits, or every share is used up.

        The caller calls `began` when the attempt begins, and `release` at its end.
        """
        self._find_slow()
        while (flow := self._turns.pop()) is not None:
            queue = self._queues[flow]
            is_unproven = not self._memory.is_proven(flow)
            gates = self._gates.for_unproven(flow) if is_unproven else []
            gates += self._gates.for_all(flow)
            closed = next((gate for gate in gates if not gate.is_open), None)
            woken_by, queue.woken_by = queue.woken_by, None
            turn = self._start(flow, queue, gates, is_unproven=is_unproven) if closed is None else None
            if closed is not None:
                self._park(flow, queue, closed)
                self._gates.forget_idle(gates)
            if woken_by is not None and (turn is None or woken_by not in gates):
                # The slot for which this flow was woken is still free.
                self._wake(woken_by)
            if turn is not None:
                return turn
        return None

    def began(self, turn: Turn) -> None:
        """Note that the attempt begins now."""
        turn.began_at = self._clock()
        self._running[turn] = None

    def release(self, turn: Turn, pace: Pace) -> None:
        """Release the share of an item whose attempt has ended, and say what the attempt says about its flow."""
        self._running.pop(turn, None)
        for gate in turn.gates:
            gate.taken -= 1
        match pace:
            case Pace.FAST:
                self._prove(turn.flow)
            case Pace.SLOW:
                self._memory.disprove(turn.flow)
            case Pace.UNKNOWN:
                pass
            case _:
                assert_never(pace)
        for gate in turn.gates:
            self._wake(gate)
        self._gates.forget_idle(turn.gates)

    def hold(self, flow: Flow, for_s: float) -> list[WorkItem]:
        """Take nothing for the flow for so many seconds, and return what waited for it. A longer hold stays."""
        self._memory.hold(flow, for_s)
        queue = self._queues.get(flow)
        if queue is None:
            return []
        items = list(queue.items.values())
        self._counted(flow, queue, -len(items))
        self._drop(flow, queue)
        return items

    def clear(self) -> None:
        """Drop every item that waits."""
        for flow, queue in list(self._queues.items()):
            self._counted(flow, queue, -len(queue.items))
            self._drop(flow, queue)

    def _start(self, flow: Flow, queue: _Queue, gates: list[Gate], *, is_unproven: bool) -> Turn:
        _, item = queue.items.popitem(last=False)
        self._counted(flow, queue, -1)
        if queue.items:
            self._turns.add(flow)
        else:
            del self._queues[flow]
        for gate in gates:
            gate.taken += 1
        return Turn(flow, item, gates, is_unproven)

    def _park(self, flow: Flow, queue: _Queue, gate: Gate) -> None:
        queue.closed_gate = gate
        gate.waiting.add(flow)
        self._blocked_count += len(queue.items)

    def _unpark(self, flow: Flow, queue: _Queue) -> None:
        queue.closed_gate = None
        self._blocked_count -= len(queue.items)
        self._turns.add(flow)

    def _wake(self, gate: Gate) -> None:
        """Give the next flow that waits at a gate a turn, if the gate is open."""
        if gate.is_open and (flow := gate.waiting.pop()):
            queue = self._queues[flow]
            self._unpark(flow, queue)
            queue.woken_by = gate

    def _prove(self, flow: Flow) -> None:
        self._memory.prove(flow)
        queue = self._queues.get(flow)
        if queue and queue.closed_gate:
            # It may wait at a gate that it need not pass any more.
            queue.closed_gate.waiting.remove(flow)
            self._unpark(flow, queue)

    def _find_slow(self) -> None:
        """Make flows unproven whose attempts last too long, and count these attempts as such already now."""
        overdue = self._clock() - self._slow_after_s
        while self._running and (turn := next(iter(self._running))).began_at < overdue:
            del self._running[turn]
            self._memory.disprove(turn.flow)
            if not turn.is_unproven:
                turn.is_unproven = True
                # A gate may be passed by more attempts than its limit then: no further one begins.
                further = self._gates.for_unproven(turn.flow)
                for gate in further:
                    gate.taken += 1
                turn.gates += further

    def _no_room_for(self, owner: str) -> float | None:
        """Return None if an item of the owner finds room, else the seconds after which there may be some."""
        waiting = self._items_by_owner[owner]
        if waiting < self._items_max - self._count:
            return None
        return min(max(waiting / DRAINED_PER_S, COMES_BACK_MIN_S), COMES_BACK_MAX_S)

    def _counted(self, flow: Flow, queue: _Queue, change: int) -> None:
        self._count += change
        if queue.closed_gate:
            self._blocked_count += change
        self._items_by_owner[flow.owner] += change
        if not self._items_by_owner[flow.owner]:
            del self._items_by_owner[flow.owner]

    def _drop(self, flow: Flow, queue: _Queue) -> None:
        """Forget a queue whose items are gone."""
        del self._queues[flow]
        if queue.closed_gate is not None:
            queue.closed_gate.waiting.remove(flow)
            self._gates.forget_idle([queue.closed_gate])
        else:
            self._turns.remove(flow)
        if queue.woken_by is not None:
            self._wake(queue.woken_by)
