"""Rules: what an admin makes of the calls of many payments. Values only; a store and a cache hold them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from shared.database.clock import rfc3339
from shared.lifecycle import MethodType
from shared.simulation.calls import CallOperation
from shared.simulation.gateways import GatewayName

# Times that a rule may fire at most, if it names a number.
TIMES_MAX = 1_000_000
# Seconds until a rule expires at most, if it names a number.
EXPIRES_IN_S_MAX = 86_400
# Rules of an installation that can still fire.
LIVE_RULES_MAX = 1_000
# What ends an order id that is the beginning of the wanted ones.
PREFIX_END = "*"
# The members of a match that a call must have as they are.
EXACT = ("user_id", "method_type", "brand", "last4", "currency", "gateway", "operation")


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


class RuleState(StrEnum):
    """Whether a rule can still fire."""

    ACTIVE = "active"
    """It fires on the calls that it matches."""
    USED_UP = "used_up"
    """It has fired as often as it may."""
    EXPIRED = "expired"
    """Its time is over."""


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

    def to_json(self) -> dict[str, Any]:
        """Return what the rule does, as it is stored with a use."""
        return {
            "name": self.name,
            "outcomes": list(self.outcomes),
            "delay_ms": self.delay_ms,
            "pace": self.pace.value,
        }


def read_fired(rule_id: UUID, stored: Mapping[str, Any]) -> Fired:
    """Return what `Fired.to_json` has stored."""
    return Fired(
        rule_id=rule_id,
        name=stored["name"],
        outcomes=tuple(stored["outcomes"]),
        delay_ms=stored["delay_ms"],
        pace=Pace(stored["pace"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The numbers from `min` to `max`; None = no bound on that side."""

    min: int | None = None
    max: int | None = None

    def to_json(self) -> int | dict[str, int]:
        """Return the one number, or the bounds that there are."""
        if self.min is not None and self.min == self.max:
            return self.min
        return {name: bound for name, bound in (("min", self.min), ("max", self.max)) if bound is not None}


def read_span(stored: int | Mapping[str, int] | None) -> Span | None:
    """Return what `Span.to_json` has stored."""
    if stored is None:
        return None
    return Span(min=stored, max=stored) if isinstance(stored, int) else Span(**stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The calls that a rule is for. A member that is None matches every call; without any, the rule matches all.

    `order_id` may end in `*` and is the beginning of the wanted ids then. `percent` is the part of the operations, from
    0 to 100, that the rule is for; which ones is drawn.
    """

    user_id: str | None = None
    order_id: str | None = None
    method_type: MethodType | None = None
    brand: str | None = None
    last4: str | None = None
    currency: str | None = None
    amount: Span | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    gateway: GatewayName | None = None
    operation: CallOperation | None = None
    percent: float | None = None
    # The members that there are of those that a call must have as they are: most rules have few.
    exact: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = ((name, getattr(self, name)) for name in EXACT)
        object.__setattr__(self, "exact", tuple((name, value) for name, value in found if value is not None))

    def to_json(self) -> dict[str, Any]:
        """Return the members that there are."""
        members = {
            "user_id": self.user_id,
            "order_id": self.order_id,
            "method_type": self.method_type,
            "brand": self.brand,
            "last4": self.last4,
            "currency": self.currency,
            "amount": self.amount.to_json() if self.amount else None,
            "metadata": dict(self.metadata) or None,
            "gateway": self.gateway,
            "operation": self.operation,
            "percent": self.percent,
        }
        return {name: value for name, value in members.items() if value is not None}


def read_match(stored: Mapping[str, Any]) -> Match:
    """Return what `Match.to_json` has stored."""
    members: dict[str, Any] = dict(stored)
    for name, word in (("method_type", MethodType), ("gateway", GatewayName), ("operation", CallOperation)):
        if name in stored:
            members[name] = word(stored[name])
    return Match(**members | {"amount": read_span(stored.get("amount"))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a rule makes of the calls that it matches: outcomes, a delay or both; or an outage and nothing else.

    `outcomes` are as in `Steering`: the first call of an operation does the first, and the last one repeats. `delay_ms`
    is drawn for each call.
    """

    outcomes: tuple[str, ...] = ()
    delay_ms: Span | None = None
    outage: Outage | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the members that there are."""
        members = {
            "outcomes": list(self.outcomes) or None,
            "delay_ms": self.delay_ms.to_json() if self.delay_ms else None,
            "outage": self.outage,
        }
        return {name: value for name, value in members.items() if value is not None}


def read_effect(stored: Mapping[str, Any]) -> Effect:
    """Return what `Effect.to_json` has stored."""
    return Effect(
        outcomes=tuple(stored.get("outcomes", ())),
        delay_ms=read_span(stored.get("delay_ms")),
        outage=Outage(stored["outage"]) if "outage" in stored else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule. Without `times` it fires without a count; without `expires_at` it holds until it is deleted.

    `used` counts the times that it has fired; 0 without `times`.
    """

    id: UUID
    name: str
    match: Match
    effect: Effect
    times: int | None
    used: int
    expires_at: datetime | None
    created_by: str
    created_at: datetime

    def state(self, now: datetime) -> RuleState:
        """Return whether the rule can still fire."""
        if self.times is not None and self.used >= self.times:
            return RuleState.USED_UP
        if self.expires_at is not None and self.expires_at <= now:
            return RuleState.EXPIRED
        return RuleState.ACTIVE

    def why_ended(self, now: datetime) -> str | None:
        """Return the sentence that says why the rule cannot fire any more; None if it can."""
        match self.state(now):
            case RuleState.USED_UP:
                return f"It has fired {self.used} of {self.times} times."
            case RuleState.EXPIRED:
                return f"It expired at {rfc3339(self.expires_at)}." if self.expires_at else None
            case RuleState.ACTIVE:
                return None

    def to_json(self, now: datetime) -> dict[str, Any]:
        """Return the rule as admins see it."""
        return {
            "id": str(self.id),
            "name": self.name,
            "match": self.match.to_json(),
            "effect": self.effect.to_json(),
            "times": self.times,
            "used": self.used if self.times is not None else None,
            "state": self.state(now).value,
            "state_reason": self.why_ended(now),
            "expires_at": rfc3339(self.expires_at) if self.expires_at else None,
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
        }
