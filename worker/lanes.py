"""Tickets of deliveries that wait for a slot, by receiver: one that hangs, or has thousands, holds up nobody else."""

from collections import OrderedDict
from uuid import UUID

from shared.leases import Ref

TICKETS_MAX = 20_000  # held in memory, about 5 MB; what does not fit is the relay's
TICKETS_PER_HOST_MAX = 2_000  # one receiver's backlog leaves room for the others'
SLOW_SLOTS_SHARE = 0.1  # of a host's slots: what a slow receiver keeps, so that a few of them never fill the pool


class Lanes:
    """Tickets waiting by host, taken in turns; a host is passed over while its slots are taken."""

    def __init__(self, *, slots_per_host: int) -> None:
        self._slots = slots_per_host
        self._slow_slots = max(1, int(slots_per_host * SLOW_SLOTS_SHARE))
        self._waiting: dict[str, OrderedDict[UUID, Ref]] = {}
        self._taken: dict[str, int] = {}
        self._slow: set[str] = set()
        self._turns: OrderedDict[str, None] = OrderedDict()  # hosts with a ticket and a free slot
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, host: str, ref: Ref) -> bool:
        """Add a ticket, or let it replace an older one of the same delivery. False if there is no room."""
        waiting = self._waiting.setdefault(host, OrderedDict())
        known = waiting.get(ref.id)
        if known is None:
            if len(waiting) >= TICKETS_PER_HOST_MAX or self._count >= TICKETS_MAX:
                self._forget(host)
                return False
            self._count += 1
        waiting[ref.id] = max(ref, known) if known else ref
        self._give_turn(host)
        return True

    def take(self) -> tuple[str, Ref] | None:
        """The next ticket, with a slot of its host; None if all are waiting for a slot. Follow up with `finish`."""
        while self._turns:
            host, _ = self._turns.popitem(last=False)
            if not self._may_start(host):
                continue  # it has become slow since; `finish` gives it its next turn
            _, ref = self._waiting[host].popitem(last=False)
            self._count -= 1
            self._taken[host] = self._taken.get(host, 0) + 1
            self._give_turn(host)
            return host, ref
        return None

    def finish(self, host: str, *, was_slow: bool | None) -> None:
        """Give the slot of a ticket back; `was_slow` is None if the host was not asked."""
        self._taken[host] -= 1
        if was_slow is not None:
            (self._slow.add if was_slow else self._slow.discard)(host)
        self._give_turn(host)
        self._forget(host)

    def clear(self) -> None:
        """Drop every ticket that waits."""
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
        """Keep nothing of a host with which there is nothing to do."""
        if not self._waiting.get(host):
            self._waiting.pop(host, None)
            if not self._taken.get(host):
                self._taken.pop(host, None)
                self._slow.discard(host)
