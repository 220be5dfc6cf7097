"""Models of webhook endpoints, deliveries and callbacks."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.fields import ChangeModel, Name, RequestModel, Url, change_config
from shared.delivery_lifecycle import DeliveryKind, DeliveryStatus
from shared.event_types import DEFAULT_EVENTS, EventType
from shared.webhooks.attempts import RESPONSE_BYTES_MAX
from shared.webhooks.delivery_log import ATTEMPTS_SHOWN_MAX, BODIES_SHOWN_MAX

type EventTypes = Annotated[
    list[Annotated[EventType, Field(strict=False)]], Field(min_length=1, max_length=len(EventType))
]


class EndpointRequest(RequestModel):
    """A new webhook endpoint: a receiver of the events of all payments."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "order-service", "url": "https://orders.example/hooks/payments"},
                {
                    "name": "bookkeeping",
                    "url": "https://books.example/hooks/payments",
                    "event_types": ["payment.completed"],
                },
            ]
        }
    )

    name: Name = Field(description="A name for people.", examples=["order-service"])
    url: Url = Field(description="Where events are sent by POST.", examples=["https://orders.example/hooks/payments"])
    event_types: EventTypes = Field(
        default_factory=lambda: list(DEFAULT_EVENTS),
        description="The types of events to send. By default those that end a payment: completed, failed, cancelled.",
    )


class EndpointChange(ChangeModel):
    """The changes of a webhook endpoint. Members that are absent change nothing."""

    model_config = change_config({"event_types": ["payment.completed", "payment.failed"], "enabled": True})

    name: Name | None = None
    url: Url | None = None
    event_types: EventTypes | None = None
    enabled: bool | None = Field(
        default=None,
        description="false cancels open deliveries and makes no new ones; true makes them for new events again, not "
        "for those of the time between.",
    )


class Endpoint(BaseModel):
    """A webhook endpoint."""

    id: str
    name: str
    url: str
    event_types: list[EventType]
    enabled: bool = Field(description="Whether events are sent.")
    disabled_reason: str | None = Field(description="Why no events are sent; null while the endpoint is enabled.")
    problem: str | None = Field(
        description="Why nothing can be sent although the endpoint is enabled: `DATA_KEY` has changed, and with it the "
        "key of the secret. Its deliveries end as `exhausted` and can be resent when the key is back. Else null."
    )
    created_by: str = Field(description="The principal that registered it, such as `service:orders`.")
    created_at: datetime
    updated_at: datetime


class EndpointWithSecret(Endpoint):
    """A new webhook endpoint, with the secret that signs its deliveries."""

    secret: str | None = Field(
        default=None,
        description="Verify deliveries with it (Standard Webhooks). It is shown only once: a repeat with the same "
        "idempotency key does not have it.",
    )


class EndpointList(BaseModel):
    """Webhook endpoints, the newest first."""

    webhook_endpoints: list[Endpoint]


class DeliveryAttempt(BaseModel):
    """One request that was sent for a delivery, or was to be sent.

    An attempt repeats its request at once, over a new connection, if an old connection breaks. Both are shown.
    """

    number: int = Field(description="The number of the request, from 1. Resending goes on counting.")
    started_at: datetime
    duration_ms: int = Field(description="Milliseconds until the answer or the error.")
    status_code: int | None = Field(
        description="The HTTP status that was seen; null without an answer. It counts only if the whole header was "
        "valid; otherwise `error` says what was wrong with it."
    )
    error: str | None = Field(description="Why the request failed; null if it succeeded.")
    url: str | None = Field(
        default=None,
        description="Where this request went; null for the order service, and if it was made before 0.2.0. Present "
        "where the `url` of the delivery is.",
    )
    response_body: str | None = Field(
        default=None,
        description=f"The first {RESPONSE_BYTES_MAX:,} bytes of the answer; null except in the latest "
        f"{BODIES_SHOWN_MAX} requests. Present only in the answer with one delivery, for admins, for the creator of "
        "the endpoint and, for a callback, of the payment unless deliveries may reach private networks.",
    )


class Delivery(BaseModel):
    """The delivery of one event to one receiver."""

    id: str = Field(description="Every attempt of a webhook has it as the header `webhook-id`.")
    event_id: str
    event_type: EventType
    payment_id: str
    kind: DeliveryKind = Field(
        description="The receiver: a webhook endpoint, the payment's `callback_url`, or the order service."
    )
    endpoint_id: str | None = Field(description="null unless the receiver is a webhook endpoint.")
    endpoint_name: str | None = Field(description="null unless the receiver is a webhook endpoint.")
    url: str | None = Field(
        default=None,
        description="Where the delivery is sent; null for the order service. Present only for admins, for the creator "
        "of the endpoint and, for a callback, of the payment.",
    )
    status: DeliveryStatus
    tries: int = Field(description="The attempts of the current retry schedule. A resend sets it to 0.")
    next_attempt_at: datetime | None = Field(description="null unless the status is `pending`.")
    last_error: str | None = Field(description="Why the last attempt failed or the delivery was cancelled; else null.")
    created_at: datetime
    updated_at: datetime
    delivered_at: datetime | None = Field(description="When the receiver last accepted it; null before.")
    attempts: list[DeliveryAttempt] = Field(
        description=f"The latest attempts, at most {ATTEMPTS_SHOWN_MAX}, the oldest first."
    )


class PaymentDeliveries(BaseModel):
    """A page of the deliveries of a payment's events, the oldest first."""

    payment_id: str
    deliveries: list[Delivery]
    limit: int = Field(description="The largest number of deliveries on a page.")
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")


class EndpointDeliveries(BaseModel):
    """A page of the deliveries to a webhook endpoint, the newest first."""

    deliveries: list[Delivery]
    limit: int = Field(description="The largest number of deliveries on a page.")
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")


class CallbackSecret(BaseModel):
    """The secret that signs the webhooks to the `callback_url`s of the caller's payments."""

    secret: str = Field(description="Verify the webhooks with it (Standard Webhooks); it begins with `whsec_`.")
