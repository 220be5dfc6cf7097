"""What clients send and see, as models: requests are validated by them, answers are described by them.

Answers are built by `shared.documents`; a test holds them against these models.
"""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from api.errors import Code
from shared.lifecycle import (
    TERMINAL_EVENTS,
    DeliveryKind,
    DeliveryStatus,
    EventType,
    FailureCode,
    HistoryReason,
    MethodType,
    PaymentStatus,
)
from shared.money import is_currency

FORBIDDEN_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
ORDER_ID = r"^[A-Za-z0-9._-]{1,64}$"
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")
USER_ID = r"^[\x21-\x7e]{1,64}$"
METADATA_BYTES_MAX = 8192
METADATA_PAIRS_MAX = 20
URL_LENGTH_MAX = 2048


def _clean(text: str) -> str:
    if FORBIDDEN_TEXT.search(text):
        raise ValueError("must not contain control characters")
    return text


def _decimal(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else value


def _rfc3339(value: Any) -> Any:
    if isinstance(value, str) and not MOMENT.match(value):  # pydantic would take 0.5 for half a second after 1970
        raise ValueError("should be a moment such as 2026-11-22T12:00:00Z")
    return value


def _boolean(value: Any) -> Any:
    if not isinstance(value, bool):  # to Literal, 1 is as good as true
        raise ValueError("should be a valid boolean")  # noqa: TRY004 - what pydantic understands
    return value


def _known_currency(code: str) -> str:
    if not is_currency(code):
        raise ValueError("is not an ISO 4217 currency code in upper case, such as USD")
    return code


def _small(metadata: dict[str, str]) -> dict[str, str]:
    if len(orjson.dumps(metadata)) > METADATA_BYTES_MAX:
        raise ValueError(f"is larger than {METADATA_BYTES_MAX} bytes")
    return metadata


type Moment = Annotated[datetime, BeforeValidator(_rfc3339, json_schema_input_type=datetime)]
type Text = Annotated[str, AfterValidator(_clean)]
type OrderId = Annotated[
    str,
    BeforeValidator(_decimal, json_schema_input_type=str | int),
    StringConstraints(pattern=ORDER_ID),
    Field(examples=["1042"]),
]
type Currency = Annotated[str, AfterValidator(_known_currency), Field(examples=["USD"])]
type MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_clean)]
type MetadataValue = Annotated[str, StringConstraints(max_length=500), AfterValidator(_clean)]
type Metadata = Annotated[
    dict[MetadataKey, MetadataValue], Field(max_length=METADATA_PAIRS_MAX), AfterValidator(_small)
]
type Url = Annotated[str, StringConstraints(min_length=1, max_length=URL_LENGTH_MAX), AfterValidator(_clean)]
type Name = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_clean)]
type UserId = Annotated[str, StringConstraints(pattern=USER_ID)]


class Request(BaseModel):
    """What a client sends: an unknown member is a mistake, not a wish to be ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PaymentRequest(Request):
    """A payment intent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "order_id": "1042",
                    "payment_method_id": "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00",
                    "amount": 1585,
                    "currency": "USD",
                    "description": "Two mugs",
                    "callback_url": "https://shop.example/hooks/payments",
                }
            ]
        }
    )

    order_id: OrderId
    payment_method_id: str = Field(min_length=1, max_length=64)
    amount: int = Field(ge=1, le=2**63 - 1, description="Minor units: 1585 is 15.85 USD, and 1,585 JPY.")
    currency: Currency = "USD"
    description: Annotated[str, StringConstraints(max_length=255), AfterValidator(_clean)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    callback_url: Url | None = None
    user_id: Annotated[UserId, BeforeValidator(_decimal, json_schema_input_type=str | int)] | None = Field(
        default=None, description="Who pays; only services and admins may say so."
    )


class CardDetails(Request):
    """A card. The number and the CVC are looked at once and never stored."""

    card_number: str = Field(min_length=12, max_length=40, examples=["4242424242424242"])
    exp_month: int = Field(ge=1, le=12)
    exp_year: int = Field(ge=2000, le=2100)
    cvv: str = Field(min_length=3, max_length=4, pattern=r"^[0-9]{3,4}$", examples=["123"])
    cardholder_name: Annotated[str, StringConstraints(max_length=100), AfterValidator(_clean)] | None = None


class PaypalDetails(Request):
    """A PayPal account, by its e-mail address."""

    email: Annotated[
        str,
        StringConstraints(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+\.[^@\s.]+$"),
        AfterValidator(_clean),
    ] = Field(examples=["shopper@example.com"])


class CardMethodRequest(Request):
    """A new card."""

    type: Literal["CREDIT_CARD", "DEBIT_CARD"]
    display_name: Name | None = None
    is_default: bool = False
    payment_details: CardDetails


class PaypalMethodRequest(Request):
    """A new PayPal account."""

    type: Literal["PAYPAL"]
    display_name: Name | None = None
    is_default: bool = False
    payment_details: PaypalDetails


type MethodRequest = Annotated[CardMethodRequest | PaypalMethodRequest, Field(discriminator="type")]


class MethodChange(Request):
    """What may be changed of a method."""

    display_name: Name | None = None
    is_default: Annotated[Literal[True], BeforeValidator(_boolean)] | None = Field(
        default=None, description="Only true: another method becomes the default by being made it."
    )


type EventTypes = Annotated[
    list[Annotated[EventType, Field(strict=False)]], Field(min_length=1, max_length=len(EventType))
]


class EndpointRequest(Request):
    """A receiver of events."""

    name: Name = Field(examples=["order-service"])
    url: Url = Field(examples=["https://orders.example/hooks/payments"])
    event_types: EventTypes = Field(default_factory=lambda: list(TERMINAL_EVENTS))


class EndpointChange(Request):
    """What may be changed of an endpoint."""

    name: Name | None = None
    url: Url | None = None
    event_types: EventTypes | None = None
    enabled: bool | None = None


VERIFY_REPORT_EXAMPLE: dict[str, Any] = {
    "version": "0.2.0",
    "started_at": "2026-11-24T15:00:00.000Z",
    "finished_at": "2026-11-24T15:00:21.417Z",
    "is_sound": False,
    "payments_checked": 1_000_000,
    "idempotency_keys_checked": 1_000_000,
    "oldest_due_s": {"payments": 0.2, "deliveries": 0.0},
    "invariants": [
        {"name": "event", "promise": "what a history entry calls for was told once, and nothing else", "breaches": 1}
    ],
    "breaches_total": 1,
    "breaches": [
        {
            "kind": "event_missing",
            "invariant": "event",
            "words": "with a move that was not told",
            "what_to_do": "Tell the receiver by hand: no delivery can be resent.",
            "total": 1,
            "shown": [
                {
                    "payment_id": "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00",
                    "sequence": 3,
                    "event_type": "payment.completed",
                }
            ],
        }
    ],
}


class MethodDetails(BaseModel):
    """How a payment was paid, as far as it may be shown."""

    type: MethodType
    brand: str | None = None
    last4: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None
    email: str | None = None


class Payment(BaseModel):
    """A payment."""

    id: str
    order_id: str
    user_id: str
    payment_method_id: str
    amount: int
    currency: str
    description: str | None
    metadata: dict[str, str]
    callback_url: str | None
    status: PaymentStatus
    gateway: str | None
    gateway_transaction_id: str | None
    failure_code: FailureCode | None
    failure_reason: str | None
    outcome_rule: str | None = Field(
        description="What decided the outcome: a test card, an address, an amount, the rate."
    )
    payment_method_details: MethodDetails
    gateway_details: dict[str, Any] | None
    sequence: int = Field(description="The length of its history: grows by one with every move.")
    livemode: Literal[False]
    created_at: datetime
    updated_at: datetime
    processed_at: datetime | None


class PaymentList(BaseModel):
    """A page of payments, newest first."""

    payments: list[Payment]
    limit: int
    next_cursor: str | None


class PaymentStatusAnswer(BaseModel):
    """Where a payment stands."""

    payment_id: str
    status: PaymentStatus
    updated_at: datetime


class HistoryEntry(BaseModel):
    """One move of a payment."""

    sequence: int
    previous_status: PaymentStatus | None
    new_status: PaymentStatus
    reason: HistoryReason
    metadata: dict[str, Any]
    created_at: datetime
    created_by: str


class PaymentHistory(BaseModel):
    """Every move of a payment, the oldest first."""

    payment_id: str
    history: list[HistoryEntry]


class Method(BaseModel):
    """A payment method."""

    id: str
    user_id: str
    type: MethodType
    display_name: str
    masked_details: dict[str, Any]
    is_default: bool
    is_active: bool
    expires_at: datetime | None
    created_at: datetime


class MethodList(BaseModel):
    """A user's methods, the newest first."""

    payment_methods: list[Method]


class Endpoint(BaseModel):
    """A webhook endpoint."""

    id: str
    name: str
    url: str
    event_types: list[EventType]
    enabled: bool
    disabled_reason: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime


class NewEndpoint(Endpoint):
    """A webhook endpoint with the secret that signs its deliveries; it is shown this once."""

    secret: str | None = None


class EndpointList(BaseModel):
    """Webhook endpoints, the newest first."""

    webhook_endpoints: list[Endpoint]


class DeliveryAttempt(BaseModel):
    """One attempt to deliver."""

    number: int
    started_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None
    response_body: str | None = None


class Delivery(BaseModel):
    """An event on its way to one receiver."""

    id: str = Field(description="Also the webhook-id header of every attempt.")
    event_id: str
    event_type: EventType
    payment_id: str
    kind: DeliveryKind
    endpoint_id: str | None
    endpoint_name: str | None
    url: str | None = None
    status: DeliveryStatus
    tries: int
    next_attempt_at: datetime | None
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    delivered_at: datetime | None
    attempts: list[DeliveryAttempt]


class PaymentDeliveries(BaseModel):
    """Every delivery of a payment's events."""

    payment_id: str
    deliveries: list[Delivery]


class EndpointDeliveries(BaseModel):
    """A page of an endpoint's deliveries, newest first."""

    deliveries: list[Delivery]
    limit: int
    next_cursor: str | None


class CallbackSecret(BaseModel):
    """The secret that signs deliveries to the caller's `callback_url`s."""

    secret: str


class Health(BaseModel):
    """The process is alive."""

    status: Literal["healthy"]
    timestamp: datetime
    version: str
    uptime: float


type Readiness = Literal["ready", "not_ready", "not_configured"]


class Ready(BaseModel):
    """What the service can reach."""

    ready: bool
    checks: dict[Literal["database", "redis", "auth_service", "order_service"], Readiness]


class Worker(BaseModel):
    """A worker that is alive."""

    worker: str
    slots: int
    in_gateway: int
    sending: int
    settled: int
    settled_per_s: float
    uptime_s: float


class Figures(BaseModel):
    """What happens right now, in the whole installation; counted at most once a second."""

    computed_at: datetime
    queue_depth: int = Field(description="Payments that no worker has claimed.")
    in_flight: int = Field(description="Payments that are claimed.")
    oldest_pending_s: float
    webhook_backlog: int
    accepted_per_s: float
    settled_per_s: float | None = Field(description="null: Redis does not answer.")
    workers: list[Worker] | None = Field(description="null: Redis does not answer.")


class Invariant(BaseModel):
    """What must hold, and how often it does not."""

    name: str
    promise: str
    breaches: int


class Breaches(BaseModel):
    """The breaches of one kind."""

    kind: str
    invariant: str
    words: str
    what_to_do: str
    total: int
    shown: list[dict[str, Any]] = Field(description="The first of them, each with the ids that say where.")


class VerifyReport(BaseModel):
    """What `payments verify` found."""

    model_config = ConfigDict(json_schema_extra={"examples": [VERIFY_REPORT_EXAMPLE]})

    version: str = Field(description="Of the service that verified.")
    started_at: datetime
    finished_at: datetime
    is_sound: bool = Field(description="There is no breach.")
    payments_checked: int
    idempotency_keys_checked: int
    oldest_due_s: dict[str, float] = Field(description="By table: for how long the oldest row has been due; 0 = none.")
    invariants: list[Invariant]
    breaches_total: int
    breaches: list[Breaches]


class ProblemError(BaseModel):
    """One wrong place."""

    pointer: str
    detail: str


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: Code
    instance: str
    correlation_id: str
    detail: str | None = None
    errors: list[ProblemError] | None = None
    payment_id: str | None = None
