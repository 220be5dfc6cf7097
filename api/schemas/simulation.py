"""The member `simulation` of requests, which steers the calls to the gateway, and what answers show of it."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field
from pydantic.config import JsonDict

from api.schemas.fields import RequestModel, without_type_of_null
from api.schemas.rules import within_delay
from shared.simulation.calls import OUTCOMES_MAX, CallOperation, Steering, outcomes_of
from shared.simulation.rules import Pace

PENDING_MS_MAX = 86_400_000
WITHOUT_STEERING = "A member `simulation` needs SIMULATION=on. Leave it out."


def outcome_schema(*operations: CallOperation) -> JsonDict:
    """Return the schema of an outcome of one of these operations."""
    return {"enum": [*sorted({word for operation in operations for word in outcomes_of(operation)})]}


def _outcome_of(operation: CallOperation) -> Callable[[str], str]:
    known = outcomes_of(operation)

    def check(word: str) -> str:
        if word not in known:
            raise ValueError(f"must be one of {', '.join(sorted(known))}")
        return word

    return check


ChargeOutcome = Annotated[
    str,
    AfterValidator(_outcome_of(CallOperation.CHARGE)),
    Field(json_schema_extra=outcome_schema(CallOperation.CHARGE)),
]
CaptureOutcome = Annotated[
    str,
    AfterValidator(_outcome_of(CallOperation.CAPTURE)),
    Field(json_schema_extra=outcome_schema(CallOperation.CAPTURE)),
]
RefundOutcome = Annotated[
    str,
    AfterValidator(_outcome_of(CallOperation.REFUND)),
    Field(json_schema_extra=outcome_schema(CallOperation.REFUND)),
]
OUTCOMES = (
    "What each call to the gateway does, in their order; the last one repeats. `network_error`: nothing happens. "
    "`timeout_charged` and `timeout_not_charged`: the answer is lost, after it happened or not. `pending`: settled "
    "later, as the failure code that comes next or else approved; a notification says when. `pending_lost`: without a "
    "notification. A failure code: declined with it."
)


class _Steering(RequestModel):
    delay_ms: Annotated[int, Field(ge=0), AfterValidator(within_delay)] | None = Field(
        default=None,
        description="How long each call takes: 0 to 60,000 ms, and at most `LEASE_S` minus 10 s: 20,000 ms by default. "
        "Without it as drawn.",
    )
    pending_ms: Annotated[int, Field(ge=0, le=PENDING_MS_MAX)] | None = Field(
        default=None, description="How long it waits before a worker takes it up, in milliseconds."
    )

    def steering(self) -> Steering:
        """Return what is asked for."""
        outcomes: list[str] | None = getattr(self, "outcomes", None)
        return Steering(outcomes=tuple(outcomes or ()), delay_ms=self.delay_ms, pending_ms=self.pending_ms)


def _outcomes() -> Any:
    # Generators of clients have no name for the items of a list or null.
    return Field(
        default=None,
        min_length=1,
        max_length=OUTCOMES_MAX,
        description=OUTCOMES,
        json_schema_extra=without_type_of_null,
    )


class ChargeSteering(_Steering):
    """What the calls of a charge or an authorization do. For tests of clients; only where `SIMULATION` is on."""

    outcomes: list[ChargeOutcome] | None = _outcomes()


class CaptureSteering(_Steering):
    """What the calls of a capture do. For tests of clients; only where `SIMULATION` is on."""

    outcomes: list[CaptureOutcome] | None = _outcomes()


class RefundSteering(_Steering):
    """What the calls of a refund do. For tests of clients; only where `SIMULATION` is on."""

    outcomes: list[RefundOutcome] | None = _outcomes()


class AppliedSteering(BaseModel):
    """What was steered about one call to the gateway."""

    operation: CallOperation
    call: int = Field(description="The number of the call, of those for this operation.")
    by: str = Field(description="`request`, or `rule:` with the id of the rule.")
    name: str | None = Field(description="The name of the rule.")
    outcome: str | None = Field(description="What the call was made to do; null if only its delay was steered.")
    delay_ms: int | None = Field(description="How long it was made to take, in milliseconds.")
    pace: Pace | None = Field(description="How long it was made to take, in other words than milliseconds.")


class Simulation(BaseModel):
    """What was steered. null in a payment or a refund that nobody has steered."""

    outcomes: list[str] = Field(description="What the request for the present operation asked for.")
    delay_ms: int | None
    pending_ms: int | None
    applied: list[AppliedSteering] = Field(description="What was steered so far, the oldest first: the last 50 calls.")
