"""The shares of the delivery slots: how many attempts may run at once for one flow, one owner and one site.

A flow is proven while its last attempt was accepted within two seconds. The others are unknown or slow: together they
never hold more than half of the slots.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from shared.webhooks.flows import Flow


class Turns:
    """Flows in the order of their turns: owners take turns, and so do the flows of one owner."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, OrderedDict[Flow, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._owners)

    def add(self, flow: Flow) -> None:
        """Give the flow a turn, after the other flows of its owner."""
        self._owners.setdefault(flow.owner, OrderedDict())[flow] = None

    def remove(self, flow: Flow) -> None:
        """Take the turn of a flow away."""
        flows = self._owners[flow.owner]
        del flows[flow]
        if not flows:
            del self._owners[flow.owner]

    def pop(self) -> Flow | None:
        """Return the flow whose turn it is, and take its turn away; None if no flow has one."""
        if not self._owners:
            return None
        owner, flows = self._owners.popitem(last=False)
        flow, _ = flows.popitem(last=False)
        if flows:
            self._owners[owner] = flows
        return flow


@dataclass(slots=True, eq=False)
class Gate:
    """A bound on attempts at once, and the flows that wait because it is reached."""

    key: tuple[str, ...]
    limit: int
    taken: int = 0
    waiting: Turns = field(default_factory=Turns)

    @property
    def is_open(self) -> bool:
        """One more attempt may begin."""
        return self.taken < self.limit

    @property
    def is_idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.taken and not self.waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many attempts may run at once."""

    # To one origin, and for one owner.
    origin: int
    owner: int
    # Only attempts of flows that are not proven: of one flow, for one owner at one site, for one owner, at one site,
    # and all together.
    flow_unproven: int
    owner_at_site_unproven: int
    owner_unproven: int
    site_unproven: int
    all_unproven: int

    @classmethod
    def of(cls, *, slots: int, slots_per_origin: int) -> Self:
        """Return the limits of a pool with `slots` slots in all."""
        return cls(
            origin=slots_per_origin,
            owner=max(1, slots // 2),
            flow_unproven=max(1, slots_per_origin // 10),
            owner_at_site_unproven=max(1, slots // 20),
            owner_unproven=max(1, slots // 5),
            site_unproven=max(1, slots // 8),
            all_unproven=max(1, slots // 2),
        )


class Gates:
    """The gates that attempts pass, made when they are needed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._gates: dict[tuple[str, ...], Gate] = {}

    def __len__(self) -> int:
        return len(self._gates)

    def for_all(self, flow: Flow) -> list[Gate]:
        """Return the gates that every attempt passes."""
        limits = self._limits
        return [
            self._gate(limits.owner, "owner", flow.owner),
            self._gate(limits.origin, "origin", flow.origin),
        ]

    def for_unproven(self, flow: Flow) -> list[Gate]:
        """Return the further gates of a flow that is not proven, the narrowest first."""
        limits, site = self._limits, flow.site
        return [
            self._gate(limits.flow_unproven, "flow", *flow),
            self._gate(limits.owner_at_site_unproven, "owner at site", flow.owner, site),
            self._gate(limits.owner_unproven, "unproven of owner", flow.owner),
            self._gate(limits.site_unproven, "site", site),
            self._gate(limits.all_unproven, "all"),
        ]

    def forget_idle(self, gates: Iterable[Gate]) -> None:
        """Forget those of the gates at which nothing runs and nothing waits."""
        for gate in gates:
            if gate.is_idle:
                self._gates.pop(gate.key, None)

    def _gate(self, limit: int, *key: str) -> Gate:
        gate = self._gates.get(key)
        if gate is None:
            gate = self._gates[key] = Gate(key, limit)
        return gate
