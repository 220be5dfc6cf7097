"""Models of payment methods."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails

from api.cards import CVC, CardRefused, check_cvc, check_number, expires_at
from api.paypal_addresses import read_address
from api.schemas.fields import (
    NO_CARD,
    ChangeModel,
    DisplayName,
    RequestModel,
    UserId,
    cardless_text,
    change_config,
    require_true,
)
from api.schemas.rules import clock_beside_faults
from shared.lifecycle import FailureCode, MethodType

HAS_EXPIRED = "is in the past: the card has expired"
# Members by which `payment_details` is recognised as those of a card or of an account.
LOOKS = frozenset({"card_number", "email"})
IS_DEFAULT = "Make this the user's default. The first payment method of a user always is."
OWNER = "The user whose method it is, by default the user of the token. Only services and admins may name one."


def _possible_number(number: str) -> str:
    try:
        check_number(number)
    except CardRefused as error:
        raise ValueError(error.reason) from None
    return number


class CardDetails(RequestModel):
    """A card. Its number and its CVC are checked once and never stored."""

    card_number: Annotated[str, AfterValidator(_possible_number)] = Field(
        min_length=12,
        max_length=40,
        description="The digits, which may have blanks or hyphens between them.",
        examples=["4242424242424242"],
    )
    exp_month: int = Field(
        ge=1, le=12, description="The month of expiry. The card is valid through its last day (UTC)."
    )
    exp_year: int = Field(ge=2000, le=2100, description="The year of expiry, with four digits.")
    cvv: str = Field(
        pattern=CVC,
        # For generators of clients, which read no lengths out of a pattern.
        json_schema_extra={"minLength": 3, "maxLength": 4},
        description="The card verification code: 4 digits for American Express, 3 for every other brand.",
        examples=["123"],
    )
    cardholder_name: Annotated[str, StringConstraints(max_length=100), AfterValidator(cardless_text)] | None = Field(
        default=None, description=f"Accepted and not stored. {NO_CARD}"
    )

    @field_validator("exp_year")
    @classmethod
    def _check_expiry(cls, year: int, info: ValidationInfo) -> int:
        now, month = clock_beside_faults(), info.data.get("exp_month")
        if now is not None and month is not None and expires_at(month, year) <= now:
            raise ValueError(HAS_EXPIRED)
        return year

    @field_validator("cvv")
    @classmethod
    def _check_length(cls, cvv: str, info: ValidationInfo) -> str:
        """Check the length, which depends on the brand. Of a wrong number no brand is known."""
        if "card_number" in info.data:
            try:
                check_cvc(cvv, check_number(info.data["card_number"]))
            except CardRefused as error:
                raise ValueError(error.reason) from None
        return cvv


class PaypalDetails(RequestModel):
    """A PayPal account, which is known by its e-mail address."""

    email: Annotated[str, StringConstraints(max_length=254), AfterValidator(read_address)] = Field(
        description="In ASCII before the @. The full address is not stored, only a masked form and a keyed hash.",
        examples=["shopper@example.com"],
        json_schema_extra={"format": "email"},
    )


class CardMethodRequest(RequestModel):
    """A new card."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "CREDIT_CARD",
                    "payment_details": {
                        "card_number": "4242424242424242",
                        "exp_month": 12,
                        "exp_year": 2040,
                        "cvv": "123",
                        "cardholder_name": "J. Doe",
                    },
                },
                {
                    "type": "DEBIT_CARD",
                    "display_name": "Household",
                    "payment_details": {
                        "card_number": "4000 0566 5566 5556",
                        "exp_month": 6,
                        "exp_year": 2040,
                        "cvv": "123",
                    },
                },
            ]
        }
    )

    type: Literal["CREDIT_CARD", "DEBIT_CARD"]
    display_name: DisplayName | None = Field(
        default=None, description=f"By default the brand and the last four digits. {NO_CARD}"
    )
    is_default: bool = Field(default=False, description=IS_DEFAULT)
    user_id: UserId | None = Field(default=None, description=OWNER)
    payment_details: CardDetails


class PaypalMethodRequest(RequestModel):
    """A new PayPal account."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"type": "PAYPAL", "is_default": True, "payment_details": {"email": "success@paypal.test"}}]
        }
    )

    type: Literal["PAYPAL"]
    display_name: DisplayName | None = Field(
        default=None, description=f"By default `PayPal` and the masked address. {NO_CARD}"
    )
    is_default: bool = Field(default=False, description=IS_DEFAULT)
    user_id: UserId | None = Field(default=None, description=OWNER)
    payment_details: PaypalDetails


def _all_faults(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a new method. If its `type` is wrong, name the faults of the other members, too.

    They are those of the type that `payment_details` looks like; if it looks like none, its members are not judged.
    """
    try:
        return validate(value)
    except ValidationError as error:
        faults = error.errors()
        if not faults[0]["type"].startswith("union_tag_") or not isinstance(value, dict):
            raise
    details = value.get("payment_details")
    names = details.keys() if isinstance(details, dict) else frozenset()
    looks_like = MethodType.PAYPAL if "email" in names else MethodType.CREDIT_CARD
    try:
        validate({**value, "type": looks_like})
    except ValidationError as error:
        others = [fault for fault in error.errors() if names & LOOKS or not _is_of_details(fault, details)]
        faults += others
    raise ValidationError.from_exception_data("MethodRequest", [_raised_again(fault) for fault in faults])


def _is_of_details(fault: ErrorDetails, details: Any) -> bool:
    """Return whether the fault is of a member of `payment_details`, and not of the whole."""
    return isinstance(details, dict) and len(fault["loc"]) > 1 and fault["loc"][1] == "payment_details"


def _raised_again(fault: ErrorDetails) -> InitErrorDetails:
    return InitErrorDetails(type=fault["type"], loc=fault["loc"], input=fault["input"], ctx=fault.get("ctx", {}))


type MethodRequest = Annotated[
    CardMethodRequest | PaypalMethodRequest, Field(discriminator="type"), WrapValidator(_all_faults)
]


class MethodChange(ChangeModel):
    """The changes of a payment method. Members that are absent change nothing."""

    model_config = change_config({"display_name": "Household", "is_default": True})

    display_name: DisplayName | None = None
    is_default: Annotated[Literal[True], BeforeValidator(require_true)] | None = Field(
        default=None,
        description="Only true: it makes this payment method the default. To end that, make another one the default.",
    )


class MaskedDetails(BaseModel):
    """What may be shown of a card or of a PayPal account. What does not apply is absent."""

    brand: str | None = Field(default=None, description="The brand of a card, such as `visa`.")
    last4: str | None = Field(default=None, description="The last four digits of a card number.")
    exp_month: int | None = Field(default=None, description="The month of a card's expiry, 1-12.")
    exp_year: int | None = Field(default=None, description="The year of a card's expiry, with four digits.")
    email: str | None = Field(default=None, description="The masked address of a PayPal account.")


class Method(BaseModel):
    """A payment method."""

    id: str
    user_id: str
    type: MethodType
    display_name: str
    masked_details: MaskedDetails
    is_default: bool = Field(description="Whether this is the user's default. A user has at most one.")
    is_active: bool = Field(description="True until the payment method is deleted.")
    expires_at: datetime | None = Field(
        description="The first moment at which the card is no longer valid; null for PayPal."
    )
    created_at: datetime


class ReadyMadeMethod(BaseModel):
    """A ready-made payment method."""

    id: str = Field(description="Its name, which a payment takes as its `payment_method_id`.")
    type: MethodType
    display_name: str
    masked_details: MaskedDetails
    outcome: Literal["succeeds", "fails", "random"] = Field(
        description="How every payment with it ends; `random` follows PAYMENT_SUCCESS_RATE."
    )
    failure_code: FailureCode | None = Field(description="Why every payment fails; null unless it `fails`.")


class ReadyMadeMethodList(BaseModel):
    """All ready-made payment methods."""

    test_methods: list[ReadyMadeMethod]


class MethodList(BaseModel):
    """The payment methods of a user, the newest first."""

    payment_methods: list[Method]
