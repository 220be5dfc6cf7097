"""Scenarios: what test card numbers, test addresses and ready-made methods make of every charge."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from shared.lifecycle import FailureCode


class RefundScenario(StrEnum):
    """What becomes of every refund of a payment."""

    DECLINED = "declined"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class CardChecks:
    """The results of the address verification and of the check of the security code."""

    avs_result: str
    cvc_result: str

    def to_json(self) -> dict[str, str]:
        """Return the results as clients see them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Scenario:
    """The outcome of every charge. `failure` is None if the gateway always approves, or if it `follows_rate`.

    `refund` is the outcome of every refund of what was charged, and `checks` are the results of the checks of the card;
    None = the usual ones. A card that `is_challenged` wants 3-D Secure first. One that `is_pending` is settled late.
    """

    failure: FailureCode | None
    refund: RefundScenario | None = None
    checks: CardChecks | None = None
    follows_rate: bool = False
    is_challenged: bool = False
    is_pending: bool = False

    @property
    def is_known_to_0_1(self) -> bool:
        """Whether a worker of 0.1 charges such a payment as it should: it knows failures only."""
        return self.failure is not None and not (self.is_challenged or self.is_pending)


ALWAYS_APPROVED = Scenario(None)
CHALLENGED = Scenario(None, follows_rate=True, is_challenged=True)
CHALLENGED_THEN_DECLINED = Scenario(FailureCode.CARD_DECLINED, is_challenged=True)
CHALLENGED_WITHOUT_FUNDS = Scenario(FailureCode.INSUFFICIENT_FUNDS, is_challenged=True)
PENDING = Scenario(None, is_pending=True)
PENDING_THEN_DECLINED = Scenario(FailureCode.INSTRUMENT_DECLINED, is_pending=True)
REFUND_DECLINED = Scenario(None, refund=RefundScenario.DECLINED)
REFUND_SLOW = Scenario(None, refund=RefundScenario.SLOW)


def approved_with_checks(avs_result: str, cvc_result: str) -> Scenario:
    """Return the scenario of a card that is always approved, with these results of its checks."""
    return Scenario(None, checks=CardChecks(avs_result, cvc_result))


# The checks failed in part, or were not made. AVS: A = the street matches, Z = the postal code, N = neither, U = the
# issuer does not know. CVC: M = it matches, N = it does not.
CVC_FAILED = approved_with_checks("Y", "N")
POSTAL_CODE_FAILED = approved_with_checks("A", "M")
STREET_FAILED = approved_with_checks("Z", "M")
ADDRESS_FAILED = approved_with_checks("N", "M")
ADDRESS_UNKNOWN = approved_with_checks("U", "M")


# The members of a copy that say yes or no.
_FLAGS = ("follows_rate", "is_challenged", "is_pending")


def scenario_members(scenario: Scenario | None) -> dict[str, Any]:
    """Return the members of a payment's copy of its method that keep the scenario.

    A worker of 0.1 reads `scenario` as a failure code and no other member.
    """
    if scenario is None:
        return {"scenario": None}
    members: dict[str, Any] = {"scenario": scenario.failure}
    if scenario.failure is None and not scenario.follows_rate:
        members["is_approved"] = True
    if scenario.refund:
        members["refund"] = scenario.refund
    if scenario.checks:
        members["checks"] = scenario.checks.to_json()
    return members | {flag: True for flag in _FLAGS if getattr(scenario, flag)}


def read_scenario(method: Mapping[str, Any]) -> Scenario | None:
    """Return the scenario in a payment's copy of its method; None if no scenario decides."""
    if not (method["scenario"] or method.get("is_approved") or method.get("follows_rate")):
        return None
    return Scenario(
        FailureCode(method["scenario"]) if method["scenario"] else None,
        RefundScenario(method["refund"]) if "refund" in method else None,
        CardChecks(**method["checks"]) if "checks" in method else None,
        **{flag: True for flag in _FLAGS if method.get(flag)},
    )


def is_named_charge(method: Mapping[str, Any]) -> bool:
    """Return whether a charge with this copy of a method may end late or in another way than 0.1 knows."""
    return bool(method.get("is_challenged") or method.get("is_pending"))
