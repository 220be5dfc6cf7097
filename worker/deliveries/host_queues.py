"""Deliveries that wait for a slot, in one bounded queue per host, taken round-robin.

So a host that hangs, or for which thousands of deliveries wait, delays no other host.
"""

from collections import OrderedDict
from uuid import UUID

from shared.database.leases import WorkItem

# Items in memory, about 5 MB. An item that does not fit stays due, and the relay publishes it again.
ITEMS_MAX = 20_000
# One host's backlog must leave room for those of the others.
ITEMS_PER_HOST_MAX = 2_000
# The part of a host's slots that it keeps while it is slow, so that a few slow hosts never fill the pool.
SLOW_SLOTS_SHARE = 0.1


class HostQueues:
    """Items that wait, by host, taken round-robin. A host is passed over while its slots are taken."""

    def __init__(self, *, slots_per_host: int) -> None:
        self._slots = slots_per_host
        self._slow_slots = max(1, int(slots_per_host * SLOW_SLOTS_SHARE))
        self._waiting: dict[str, OrderedDict[UUID, WorkItem]] = {}
        self._taken: dict[str, int] = {}
        self._slow: set[str] = set()
        # Hosts with an item and a free slot, the next one first.
        self._turns: OrderedDict[str, None] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, host: str, item: WorkItem) -> bool:
        """Add an item, or let it replace an older item of the same delivery. Return False if there is no room."""
        waiting = self._waiting.setdefault(host, OrderedDict())
        known = waiting.get(item.id)
        if known is None:
            if len(waiting) >= ITEMS_PER_HOST_MAX or self._count >= ITEMS_MAX:
                self._forget(host)
                return False
            self._count += 1
        waiting[item.id] = max(item, known) if known else item
        self._give_turn(host)
        return True

    def take(self) -> tuple[str, WorkItem] | None:
        """Take the next item and a slot of its host; None if every host's slots are taken, or nothing waits.

        The caller calls `release` when the item has been sent.
        """
        while self._turns:
            host, _ = self._turns.popitem(last=False)
            # The host may have become slow since it got its turn; `release` gives it the next one.
            if not self._may_start(host):
                continue
            _, item = self._waiting[host].popitem(last=False)
            self._count -= 1
            self._taken[host] = self._taken.get(host, 0) + 1
            self._give_turn(host)
            return host, item
        return None

    def release(self, host: str, *, was_slow: bool | None) -> None:
        """Release the slot of an item. `was_slow` says whether its host is slow now; None if nothing was sent."""
        self._taken[host] -= 1
        if was_slow is not None:
            (self._slow.add if was_slow else self._slow.discard)(host)
        self._give_turn(host)
        self._forget(host)

    def clear(self) -> None:
        """Drop every item that waits."""
        self._waiting.clear()
        self._turns.clear()
        self._count = 0

    def _may_start(self, host: str) -> bool:
        slots = self._slow_slots if host in self._slow else self._slots
        return bool(self._waiting.get(host)) and self._taken.get(host, 0) < slots

    def _give_turn(self, host: str) -> None:
        if self._may_start(host):
            self._turns.setdefault(host)

    def _forget(self, host: str) -> None:
        """Forget a host for which nothing waits and nothing is being sent."""
        if not self._waiting.get(host):
            self._waiting.pop(host, None)
            if not self._taken.get(host):
                self._taken.pop(host, None)
                self._slow.discard(host)
