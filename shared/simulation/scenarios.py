"""Scenarios: what test card numbers, test addresses and ready-made methods make of every charge."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.lifecycle import FailureCode


class RefundScenario(StrEnum):
    """What becomes of every refund of a payment."""

    DECLINED = "declined"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Scenario:
    """The outcome of every charge. `failure` is None if the gateway always approves.

    `refund` is the outcome of every refund of what was charged; None = the usual one.
    """

    failure: FailureCode | None
    refund: RefundScenario | None = None

    @property
    def is_known_to_0_1(self) -> bool:
        """Whether a worker of 0.1 charges such a payment as it should: it knows failures only."""
        return self.failure is not None


ALWAYS_APPROVED = Scenario(None)


def scenario_members(scenario: Scenario | None) -> dict[str, Any]:
    """Return the members of a payment's copy of its method that keep the scenario.

    A worker of 0.1 reads `scenario` as a failure code and no other member.
    """
    if scenario is None:
        return {"scenario": None}
    if scenario.failure:
        return {"scenario": scenario.failure}
    of_refund = {"refund": scenario.refund} if scenario.refund else {}
    return {"scenario": None, "is_approved": True, **of_refund}


def read_scenario(method: Mapping[str, Any]) -> Scenario | None:
    """Return the scenario in a payment's copy of its method; None if no scenario decides."""
    if method.get("is_approved"):
        return Scenario(None, RefundScenario(method["refund"])) if "refund" in method else ALWAYS_APPROVED
    return Scenario(FailureCode(method["scenario"])) if method["scenario"] else None
