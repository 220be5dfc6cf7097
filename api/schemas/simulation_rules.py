"""Models of rules, with which admins steer the simulation."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from api.faults import wrong_members
from api.schemas.fields import Int64, Name, RequestModel, without_type_of_null
from api.schemas.rule_members import EffectRequest, MatchRequest
from shared.lifecycle import MethodType
from shared.simulation.calls import CallOperation
from shared.simulation.gateways import GatewayName
from shared.simulation.matching import unfit_outcomes
from shared.simulation.rules import EXPIRES_IN_S_MAX, TIMES_MAX, Outage, RuleState


class RuleRequest(RequestModel):
    """A new rule."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Visa cards are declined twice",
                    "match": {"brand": "visa", "amount": {"min": 1000}},
                    "effect": {"outcomes": ["insufficient_funds"]},
                    "times": 2,
                },
                {"name": "The gateway is away", "effect": {"outage": "unavailable"}, "expires_in_s": 300},
                {
                    "name": "A tenth of the answers is slow",
                    "match": {"percent": 10, "metadata": {"channel": "web"}},
                    "effect": {"delay_ms": {"min": 2000, "max": 5000}},
                },
            ]
        }
    )

    name: Name = Field(description="A name for people. What is drawn depends on it.", examples=["The gateway is away"])
    match: MatchRequest = Field(default_factory=MatchRequest)
    effect: EffectRequest
    times: Annotated[int, Field(ge=1, le=TIMES_MAX)] | None = Field(
        default=None, description="How often the rule fires, in calls; exact with any number of workers."
    )
    expires_in_s: Annotated[int, Field(ge=1, le=EXPIRES_IN_S_MAX)] | None = Field(
        default=None,
        description="After how many seconds the rule ends. An outage needs it; another rule without it holds until it "
        "is deleted or used up.",
        validate_default=True,
    )

    @field_validator("effect")
    @classmethod
    def _check_outcomes(cls, effect: EffectRequest, info: ValidationInfo) -> EffectRequest:
        """Check that the operations of the match know the outcomes. Of a wrong match no operation is known."""
        match = info.data.get("match")
        unfit = unfit_outcomes(effect.value(), match.value()) if match is not None else {}
        if unfit:
            raise wrong_members(
                {("outcomes",) if index is None else ("outcomes", index): reason for index, reason in unfit.items()}
            )
        return effect

    @field_validator("expires_in_s")
    @classmethod
    def _check_end(cls, expires_in_s: int | None, info: ValidationInfo) -> int | None:
        effect = info.data.get("effect")
        if expires_in_s is None and effect is not None and effect.outage is not None:
            raise ValueError("is required with an outage, so that it ends by itself")
        return expires_in_s


class Bounds(BaseModel):
    """Numbers from `min` to `max`. Without one of them there is no bound on that side."""

    min: Int64 | None = None
    max: Int64 | None = None


class RuleMatch(BaseModel):
    """The calls that a rule is for. What it does not ask for is absent."""

    user_id: str | None = None
    order_id: str | None = None
    method_type: MethodType | None = None
    brand: str | None = None
    last4: str | None = None
    currency: str | None = None
    amount: Int64 | Bounds | None = None
    metadata: dict[str, str] | None = Field(default=None, json_schema_extra=without_type_of_null)
    gateway: GatewayName | None = None
    operation: CallOperation | None = None
    percent: float | None = None


class RuleEffect(BaseModel):
    """What a rule makes of a call. What it does not name is absent."""

    outcomes: list[str] | None = Field(default=None, json_schema_extra=without_type_of_null)
    delay_ms: int | Bounds | None = None
    outage: Outage | None = None


class Rule(BaseModel):
    """A rule."""

    id: str
    name: str
    match: RuleMatch
    effect: RuleEffect
    times: int | None = Field(description="How often the rule fires at most; null = without a count.")
    used: int | None = Field(
        description="How often it has fired; null without `times`, because nothing is written then."
    )
    state: RuleState
    state_reason: str | None = Field(description="Why the rule cannot fire any more; null if it can.")
    expires_at: datetime | None = Field(description="When the rule ends; null = not by itself.")
    created_by: str
    created_at: datetime


class RuleList(BaseModel):
    """A page of rules, the newest first. One that cannot fire any more is among them for a day."""

    rules: list[Rule]
    limit: int = Field(description="The largest number of rules on a page.")
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")
