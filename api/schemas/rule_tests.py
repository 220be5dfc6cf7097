"""Models of the test of rules: a call that is not made, and what would be made of it."""

from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from api.cards import Brand
from api.faults import KEY, LAST4, wrong_members
from api.schemas.fields import INT64, RequestModel
from api.schemas.payments import PaymentRequest
from api.schemas.rule_members import ONLY_CARDS
from api.schemas.rules import INT64_MAX, known_if_ready_made, within_limits
from shared.lifecycle import CaptureMethod, MethodType
from shared.simulation.calls import CallOperation
from shared.simulation.rules import Pace, RuleState

CALL_NUMBER_MAX = 1000
OF_PAYMENTS = (CallOperation.CHARGE, CallOperation.AUTHORIZE)


class MethodFacts(RequestModel):
    """A payment method that nobody has."""

    type: Annotated[MethodType, Field(strict=False)]
    brand: Annotated[Brand, Field(strict=False)] | None = None
    last4: Annotated[str, StringConstraints(pattern=LAST4)] | None = None

    @model_validator(mode="after")
    def _check_card(self) -> Self:
        if self.type is MethodType.PAYPAL and (self.brand or self.last4):
            raise ValueError(ONLY_CARDS.format(type="type"))
        return self


class RuleTestRequest(PaymentRequest):
    """A call to the gateway that is not made: an intent as for `POST /payments`, and which call of it is meant.

    Of a capture or a refund, `amount` is its own amount.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"order_id": "1042", "payment_method_id": "pm_test_visa", "amount": 1585},
                {
                    "order_id": "1042",
                    "payment_method": {"type": "CREDIT_CARD", "brand": "visa", "last4": "0005"},
                    "amount": 500,
                    "operation": "refund",
                    "call_number": 2,
                },
            ]
        }
    )

    payment_method_id: Annotated[str, AfterValidator(known_if_ready_made)] | None = Field(  # type: ignore[assignment]
        default=None,
        min_length=1,
        max_length=64,
        description="A payment method of any user, or the name of a ready-made one, such as `pm_test_visa`.",
    )
    payment_method: MethodFacts | None = Field(
        default=None,
        description="What there is to know of the payment method, instead of `payment_method_id`.",
        validate_default=True,
    )
    amount: Annotated[int, Field(ge=1, le=INT64_MAX, json_schema_extra=INT64)] = Field(
        description="In minor units of the currency. Of a capture or a refund, its own amount; else within the limits "
        "of a payment."
    )
    operation: Annotated[CallOperation, Field(strict=False)] | None = Field(
        default=None,
        description="By default `charge`, or `authorize` with `capture_method` `manual`.",
    )
    call_number: int = Field(
        default=1, ge=1, le=CALL_NUMBER_MAX, description="Which call of the operation is meant: the first is 1."
    )
    idempotency_key: Annotated[str, StringConstraints(pattern=KEY)] | None = Field(
        default=None,
        description="The key that the intent would be sent with. With `SIMULATOR_SEED` the draws depend on it; without "
        "a key they are those of the first payment for the order.",
    )

    @field_validator("payment_method")
    @classmethod
    def _check_method(cls, facts: MethodFacts | None, info: ValidationInfo) -> MethodFacts | None:
        # A wrong payment_method_id is named already.
        if "payment_method_id" in info.data and (facts is None) == (info.data["payment_method_id"] is None):
            raise ValueError("must be there, or payment_method_id, and not both")
        return facts

    @field_validator("operation")
    @classmethod
    def _check_operation(cls, operation: CallOperation | None, info: ValidationInfo) -> CallOperation | None:
        if operation not in {None, *OF_PAYMENTS} and info.data.get("simulation") is not None:
            raise ValueError("must be charge or authorize with simulation, which is that of the intent")
        return operation

    @model_validator(mode="after")
    def _check_amount(self) -> Self:
        # What is captured or paid back of a payment may be less than the smallest payment.
        if self.asked_operation in OF_PAYMENTS:
            try:
                within_limits(self.amount)
            except ValueError as error:
                raise wrong_members({("amount",): str(error)}) from None
        return self

    @property
    def asked_operation(self) -> CallOperation:
        """The operation whose call is meant."""
        is_held = self.capture_method is CaptureMethod.MANUAL
        return self.operation or (CallOperation.AUTHORIZE if is_held else CallOperation.CHARGE)


class FiringRule(BaseModel):
    """The rule that fires, or would."""

    id: str
    name: str


class SilentRule(BaseModel):
    """A rule that does not fire."""

    id: str
    name: str
    state: RuleState
    reasons: list[str] = Field(description="Why it does not fire: a sentence for each reason.")


class RuleTestResult(BaseModel):
    """What would be made of the call, and by what."""

    operation: CallOperation
    call_number: int
    decided_by: str = Field(
        description="What decides the outcome, as `outcome_rule` of a payment: `request`, `rule:` and the id of the "
        "rule, `card`, `address`, `amount` or `rate`."
    )
    outcome: str = Field(description="What the call does: `approve`, a failure code, or another outcome of a rule.")
    requires_action: bool = Field(description="The customer is asked to approve the payment first.")
    delay_ms: int | None = Field(description="How long the call takes, in milliseconds; null = as `pace` says.")
    pace: Pace = Field(description="How long the call takes that names no milliseconds.")
    rule: FiringRule | None = Field(
        description="The rule that fires; one may change the delay only. null = none fires."
    )
    other_rules: list[SilentRule] = Field(description="Every other rule, the newest first.")
    is_repeatable: bool = Field(
        description="Whether `SIMULATOR_SEED` is set, so that the draws are those of the payment. Else they are of "
        "this test only, and a payment has its own."
    )
