"""Rules: what an admin makes of the calls of many payments. Values only; a store and a cache hold them."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Outage(StrEnum):
    """What is wrong with the gateway while a rule holds."""

    UNAVAILABLE = "unavailable"
    """No call reaches the gateway, which shows at once."""
    TIMEOUT = "timeout"
    """Every answer is lost after the longest delay; half of the calls are carried out, drawn by the seed."""
    SLOW = "slow"
    """Every call takes five times as long, within the bound of a delay."""


class Pace(StrEnum):
    """How long a call takes that names no delay in milliseconds."""

    DRAWN = "drawn"
    AT_ONCE = "at_once"
    LONGEST = "longest"
    SLOW = "slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """What a rule makes of one call. `outcomes` are those of the rule; without any, it changes the delay only."""

    rule_id: UUID
    name: str
    outcomes: tuple[str, ...] = ()
    delay_ms: int | None = None
    pace: Pace = Pace.DRAWN

    @property
    def outcome_rule(self) -> str:
        """The `outcome_rule` of an operation that the rule decides."""
        return f"rule:{self.rule_id}"
