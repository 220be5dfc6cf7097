"""Models of payments. They validate requests, and only describe responses.

Responses are built by `Payment.to_json` in `shared.payments.payment`; a test compares them with these models.
"""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.fields import (
    INT64,
    NO_CARD,
    Currency,
    Int64,
    Metadata,
    OrderId,
    RequestModel,
    ReturnUrl,
    Url,
    UserId,
    cardless_text,
)
from api.schemas.payment_methods import MaskedDetails
from api.schemas.rules import INT64_MAX, known_if_ready_made, within_limits
from api.schemas.simulation import ChargeSteering, Simulation
from shared.failure_advice import FailureAdvice
from shared.lifecycle import (
    CaptureFailureCode,
    CaptureMethod,
    FailureCode,
    HistoryReason,
    MethodType,
    PaymentStatus,
)


class PaymentRequest(RequestModel):
    """A payment intent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "order_id": "1042",
                    "payment_method_id": "pm_test_visa",
                    "amount": 1585,
                    "currency": "USD",
                    "description": "Two mugs",
                    "metadata": {"basket": "7"},
                },
                {
                    "order_id": "1043",
                    "payment_method_id": "pm_test_visa",
                    "amount": 1585,
                    "capture_method": "manual",
                },
                {
                    "order_id": "1044",
                    "payment_method_id": "pm_test_paypal",
                    "amount": 1585,
                    "return_url": "https://shop.example/paid?basket=7",
                },
                {
                    "order_id": "1045",
                    "payment_method_id": "pm_test_visa",
                    "amount": 1585,
                    "simulation": {"outcomes": ["network_error", "approve"], "delay_ms": 100},
                },
            ]
        }
    )

    order_id: OrderId
    payment_method_id: Annotated[str, AfterValidator(known_if_ready_made)] = Field(
        min_length=1,
        max_length=64,
        description="An active payment method of the user who pays, or the name of a ready-made one, such as "
        "`pm_test_visa` (`GET /test-methods`).",
    )
    amount: Annotated[int, AfterValidator(within_limits)] = Field(
        description="In minor units of the currency: 1585 is 15.85 USD, and 1,585 JPY.",
        # The limits of the settings are within these, and one sentence names them.
        json_schema_extra=INT64 | {"minimum": 1, "maximum": INT64_MAX},
    )
    currency: Currency = "USD"
    description: Annotated[str, StringConstraints(max_length=255), AfterValidator(cardless_text)] | None = Field(
        default=None,
        description=f"Free text of the client, which is stored and returned unchanged. {NO_CARD}",
    )
    metadata: Metadata = Field(default_factory=dict)
    callback_url: Url | None = Field(
        default=None,
        description="Where a webhook is sent when the payment has ended, and for every event of its authorization, "
        "capture and refunds. It is signed with the secret of `GET /callback-secret`.",
    )
    capture_method: CaptureMethod = Field(
        # No default in the schema: generators of clients cannot read one beside a reference.
        default_factory=lambda: CaptureMethod.AUTOMATIC,
        strict=False,
        description="`automatic`, the default: charged at once. `manual`: authorized, and captured on request; not for "
        "debit cards.",
    )
    return_url: ReturnUrl | None = Field(
        default=None,
        description="Where the customer goes from the page of the bank or of PayPal; `payment_id` and `status` are "
        "added to its query. Without it a PayPal account is charged at once, and a card that wants 3-D Secure fails.",
    )
    simulation: ChargeSteering | None = Field(
        default=None, description="What the calls of the charge or the authorization to the gateway do."
    )
    user_id: UserId | None = Field(
        default=None,
        description="The user who pays, by default the user of the token. Only services and admins may set it.",
    )


class MethodDetails(MaskedDetails):
    """The payment method as it was when the payment was accepted, without what must not be shown."""

    type: MethodType


class Fee(BaseModel):
    """What the gateway keeps of a payment."""

    amount: Int64 = Field(description="In minor units of the currency.")
    currency: str = Field(description="ISO 4217 code.")


class GatewayDetails(BaseModel):
    """What the gateway reports, depending on the payment method. What it does not report is absent."""

    authorization_code: str | None = Field(default=None, description="The code of the issuer that approved a card.")
    avs_result: str | None = Field(
        default=None,
        description="The check of a credit card's address: `Y` all matches, `Z` the postcode, `A` the street, `U` "
        "unknown.",
    )
    cvc_result: str | None = Field(
        default=None, description="The check of a credit card's CVC: `M` it matches, `N` it does not."
    )
    payer_id: str | None = Field(default=None, description="The id of a PayPal account.")
    fee: Fee | None = Field(default=None, description="The fee of a charge to a PayPal account.")


class CaptureError(BaseModel):
    """Why the last capture failed. The payment is AUTHORIZED again."""

    code: CaptureFailureCode | FailureCode = Field(description="The gateway's code, or that of the order's check.")
    reason: str = Field(description="`code` in words for people.")
    at: datetime


class NextAction(BaseModel):
    """What the customer must do: open `url` in a browser, and approve or decline the payment there."""

    type: str = Field(description="Always `redirect`.")
    url: str = Field(description="The page of the bank or of PayPal. Whoever has it may answer: do not log it.")
    expires_at: datetime = Field(description="Until when the customer may answer. Then the payment fails.")


class Payment(BaseModel):
    """A payment."""

    id: str
    order_id: str
    user_id: str = Field(description="The user who pays.")
    created_by: str = Field(
        description="The principal that created it, such as `service:orders`; its secret signs the callbacks."
    )
    payment_method_id: str = Field(description="Its id; of a ready-made payment method the name.")
    amount: Int64 = Field(description="In minor units of the currency.")
    currency: str = Field(description="ISO 4217 code.")
    description: str | None
    metadata: Metadata
    callback_url: str | None = Field(description="Where the webhooks about this payment are sent.")
    status: PaymentStatus
    capture_method: CaptureMethod
    amount_authorized: Int64 = Field(description="What the gateway has held or charged, in minor units; 0 before.")
    amount_captured: Int64 = Field(description="What was captured of it, in minor units.")
    amount_refunded: Int64 = Field(description="What has been paid back by refunds that are COMPLETED, in minor units.")
    amount_refundable: Int64 = Field(
        description="What may still be refunded, in minor units: without refunds that are PENDING or PROCESSING."
    )
    return_url: str | None = Field(description="Where the customer goes from the page of the bank or of PayPal.")
    next_action: NextAction | None = Field(
        description="What the customer must do while the payment is REQUIRES_ACTION; else null. Only in answers about "
        "one payment, to the user who pays and to the principal that created it: null in lists and events."
    )
    capture_before: datetime | None = Field(
        description="Until when the payment can be captured, while it is AUTHORIZED or being captured; else null."
    )
    last_capture_error: CaptureError | None = Field(
        description="Why the last capture failed; null if none has, or after a capture that succeeded."
    )
    gateway: str | None = Field(
        description="The simulated gateway, such as `stripe_mock`; null before it has answered, or if none was asked."
    )
    gateway_transaction_id: str | None = Field(
        description="The gateway's id of the charge or the authorization; null before, and if it failed."
    )
    failure_code: FailureCode | None = Field(description="Why the payment failed; null unless FAILED.")
    failure_reason: str | None = Field(description="`failure_code` in words for people; null unless FAILED.")
    failure_advice: FailureAdvice | None = Field(
        description="What a customer can do after this failure; null unless FAILED. Show general words for "
        "`do_not_retry`: a customer is not told that a card is lost, stolen or suspected."
    )
    outcome_rule: str | None = Field(
        description="What decided the outcome: the request's `simulation` (`request`), a rule of an admin (`rule:` "
        "with its id), a test card or a ready-made one (`card`), a test address or such an "
        "account (`address`), the amount (`amount`), the success rate (`rate`), the customer (`customer`), a void at "
        "the gateway (`closed`) or the order service (`order`). null without an outcome.",
    )
    payment_method_details: MethodDetails
    gateway_details: GatewayDetails | None = Field(
        description="null before the gateway has answered, and if none was asked."
    )
    simulation: Simulation | None = Field(description="What was steered about it; null if nothing was.")
    sequence: int = Field(description="The number of entries in the payment's history. It is also the ETag.")
    livemode: bool = Field(description="Always false: no money is moved.")
    created_at: datetime
    updated_at: datetime
    processed_at: datetime | None = Field(
        description="When the payment became COMPLETED or FAILED; null before, and if it is cancelled. A refund does "
        "not change it."
    )


class PaymentList(BaseModel):
    """A page of payments, the newest first."""

    payments: list[Payment]
    limit: int = Field(description="The largest number of payments on a page.")
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")


class PaymentStatusAnswer(BaseModel):
    """The status of a payment."""

    payment_id: str
    status: PaymentStatus
    updated_at: datetime


class HistoryMetadata(BaseModel):
    """What is known beside the change. What does not apply is absent."""

    attempt: int | None = Field(default=None, description="The number of the claim by a worker.")
    worker: str | None = Field(default=None, description="The worker that claimed. Only admins see it.")
    gateway: str | None = Field(default=None, description="The gateway that answered.")
    gateway_transaction_id: str | None = Field(
        default=None, description="The gateway's id of the charge or the authorization."
    )
    failure_code: FailureCode | CaptureFailureCode | None = Field(
        default=None, description="Why the charge, the authorization or the capture failed."
    )
    amount: Int64 | None = Field(default=None, description="What is captured or refunded, in minor units.")
    refund_id: str | None = Field(default=None, description="The refund whose step this is.")


class HistoryEntry(BaseModel):
    """One entry in the history of a payment: a change of its status or its amounts, or a claim by a worker."""

    sequence: int = Field(description="The number of the entry, from 1 and without gaps.")
    previous_status: PaymentStatus | None = Field(description="null in the first entry.")
    new_status: PaymentStatus
    reason: HistoryReason
    metadata: HistoryMetadata
    created_at: datetime
    created_by: str = Field(
        description="Who caused the entry: `worker`, `customer` (at the page of the bank or of PayPal), or a principal "
        "such as `user:1`, `service:orders` or `admin:7`."
    )


class PaymentHistory(BaseModel):
    """The history of a payment, the oldest entry first."""

    payment_id: str
    history: list[HistoryEntry]
