"""Models of what a rule is for, and of what it makes of a call, as a request has them."""

from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)

from api.cards import Brand
from api.faults import LAST4, moved, wrong_members
from api.schemas.fields import (
    INT64,
    Currency,
    IntegerId,
    Metadata,
    RequestModel,
    UserId,
    decimal_text,
    without_type_of_null,
)
from api.schemas.rules import INT64_MAX, within_delay
from api.schemas.simulation import OUTCOMES, outcome_schema
from shared.ids import ORDER_IDS
from shared.lifecycle import MethodType
from shared.simulation.calls import OUTCOMES_MAX, CallOperation, outcomes_of
from shared.simulation.gateways import GatewayName
from shared.simulation.rules import Effect, Match, Outage, Span

# What a member begins with that is one of the metadata.
METADATA_PREFIX = "metadata."
NOT_A_SPAN = "must be an integer, or an object with min, max or both"
NO_DELAY = "must be an integer, or an object with min and max"
TWICE = "must have the value that it has in metadata, or be in one of the two only"
ONLY_CARDS = "must have no brand and no last4 with {type} PAYPAL: only cards have them"
NOT_IN_ORDER = "must have a min that is not above its max"
KNOWN_OUTCOMES = tuple(dict.fromkeys(word for operation in CallOperation for word in outcomes_of(operation)))


def _known_outcome(word: str) -> str:
    if word not in KNOWN_OUTCOMES:
        raise ValueError(f"must be one of {', '.join(sorted(KNOWN_OUTCOMES))}")
    return word


def _percentage(percent: float) -> float:
    if not 0 < percent <= 100:  # noqa: PLR2004 - percent
        raise ValueError("must be above 0 and at most 100")
    return percent


class Amounts(RequestModel):
    """Amounts from `min` to `max`. Without one of them there is no bound on that side."""

    min: Annotated[int, Field(ge=1, le=INT64_MAX, json_schema_extra=INT64)] | None = None
    max: Annotated[int, Field(ge=1, le=INT64_MAX, json_schema_extra=INT64)] | None = None


class Delays(RequestModel):
    """A delay from `min` to `max` milliseconds, drawn for each call."""

    min: Annotated[int, Field(ge=0), AfterValidator(within_delay)]
    max: Annotated[int, Field(ge=0), AfterValidator(within_delay)]


def _one_or_bounds(check: Callable[[int], int], otherwise: str) -> Callable[[Any], Any]:
    """Return the reader of a number, or of an object with bounds; a number is both bounds."""

    def read(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | dict):
            raise ValueError(otherwise)  # noqa: TRY004 - pydantic takes a ValueError for a fault
        return value if isinstance(value, dict) else dict.fromkeys(("min", "max"), check(value))

    return read


def _an_amount(amount: int) -> int:
    if not 1 <= amount <= INT64_MAX:
        raise ValueError("must be at least 1, and an integer of 64 bits")
    return amount


def _a_delay(delay_ms: int) -> int:
    if delay_ms < 0:
        raise ValueError("must be at least 0")
    return within_delay(delay_ms)


def _in_order[T: (Amounts, Delays)](bounds: T) -> T:
    if bounds.min is None and bounds.max is None:
        raise ValueError(NOT_A_SPAN)
    if bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
        raise ValueError(NOT_IN_ORDER)
    return bounds


AmountSpan = Annotated[
    Amounts,
    BeforeValidator(
        _one_or_bounds(_an_amount, NOT_A_SPAN),
        json_schema_input_type=Annotated[int, Field(ge=1, le=INT64_MAX, json_schema_extra=INT64)] | Amounts,
    ),
    AfterValidator(_in_order),
]
DelaySpan = Annotated[
    Delays,
    BeforeValidator(_one_or_bounds(_a_delay, NO_DELAY), json_schema_input_type=Annotated[int, Field(ge=0)] | Delays),
    AfterValidator(_in_order),
]
OrderIds = Annotated[
    str,
    BeforeValidator(decimal_text, json_schema_input_type=Annotated[str, Field(pattern=ORDER_IDS)] | IntegerId),
    StringConstraints(pattern=ORDER_IDS),
]


class MatchRequest(RequestModel):
    """The calls that a rule is for: those that have all of these members. Without any, it is for every call."""

    user_id: UserId | None = Field(default=None, description="The user who pays.")
    order_id: OrderIds | None = Field(
        default=None, description="The order. With `*` at its end, every order that begins so."
    )
    method_type: Annotated[MethodType, Field(strict=False)] | None = None
    brand: Annotated[Brand, Field(strict=False)] | None = Field(default=None, description="The brand of the card.")
    last4: Annotated[str, StringConstraints(pattern=LAST4)] | None = Field(
        default=None, description="The last four digits of the card."
    )
    currency: Currency | None = None
    amount: AmountSpan | None = Field(
        default=None,
        description="In minor units: one amount, or those from `min` to `max`. Of a capture or a refund, its own.",
    )
    metadata: Metadata | None = Field(
        default=None,
        description="Pairs that the payment has, among others. `metadata.<key>` is another way to write one of them.",
    )
    gateway: Annotated[GatewayName, Field(strict=False)] | None = None
    operation: Annotated[CallOperation, Field(strict=False)] | None = None
    percent: Annotated[float, AfterValidator(_percentage)] | None = Field(
        default=None,
        description="The part of the operations, above 0 and at most 100, drawn by `SIMULATOR_SEED` and the name of "
        "the rule.",
        json_schema_extra={"minimum": 0, "maximum": 100},
    )

    @model_validator(mode="wrap")
    @classmethod
    def _gather_metadata(cls, value: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Read `metadata.<key>` as the member of `metadata`, and name its fault by the name that was sent."""
        if not isinstance(value, dict):
            return read(value)
        dotted = {
            name: text for name, text in value.items() if name.startswith(METADATA_PREFIX) and name != METADATA_PREFIX
        }
        given = value.get("metadata") or {}
        if not dotted or not isinstance(given, dict):
            return read(value)
        texts = {name.removeprefix(METADATA_PREFIX): text for name, text in dotted.items()}
        twice = [key for key, text in texts.items() if key in given and given[key] != text]
        if twice:
            raise wrong_members({(METADATA_PREFIX + key,): TWICE for key in twice})
        gathered = given | texts
        try:
            return read({name: each for name, each in value.items() if name not in dotted} | {"metadata": gathered})
        except ValidationError as error:
            raise moved(error, {("metadata", key): (METADATA_PREFIX + key,) for key in texts}) from None

    @model_validator(mode="after")
    def _check_card(self) -> Self:
        if self.method_type is MethodType.PAYPAL and (self.brand or self.last4):
            raise ValueError(ONLY_CARDS.format(type="method_type"))
        return self

    def value(self) -> Match:
        """Return the match."""
        members = {name: getattr(self, name) for name in type(self).model_fields if name not in {"amount", "metadata"}}
        return Match(amount=_span(self.amount), metadata=self.metadata or {}, **members)


class EffectRequest(RequestModel):
    """What a rule makes of a call: `outcomes`, `delay_ms` or both; or an `outage`."""

    outcomes: (
        list[Annotated[str, AfterValidator(_known_outcome), Field(json_schema_extra=outcome_schema(*CallOperation))]]
        | None
    ) = Field(
        default=None,
        min_length=1,
        max_length=OUTCOMES_MAX,
        description=f"{OUTCOMES} A call whose operation does not know its outcome is left alone.",
        json_schema_extra=without_type_of_null,
    )
    delay_ms: DelaySpan | None = Field(
        default=None,
        description="How long a call takes: one number, or one drawn from `min` to `max`, 0 to 60,000 ms, and at most "
        "`LEASE_S` minus 10 s: 20,000 ms by default.",
    )
    outage: Annotated[Outage, Field(strict=False)] | None = Field(
        default=None,
        description="`unavailable`: every call ends at once with `network_error`. `timeout`: the answer is lost after "
        "the longest delay, half charged, half not. `slow`: five times the delay. It needs `expires_in_s`.",
    )

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        steers = self.outcomes is not None or self.delay_ms is not None
        if steers == (self.outage is not None):
            raise ValueError("must have outcomes, delay_ms or both; or an outage, and then nothing else")
        return self

    def value(self) -> Effect:
        """Return the effect."""
        return Effect(outcomes=tuple(self.outcomes or ()), delay_ms=_span(self.delay_ms), outage=self.outage)


def _span(bounds: Amounts | Delays | None) -> Span | None:
    return Span(min=bounds.min, max=bounds.max) if bounds is not None else None
