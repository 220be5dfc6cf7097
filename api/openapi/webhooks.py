"""The webhooks of the OpenAPI document: what a receiver is sent, and what its answer means."""

from typing import Any, NamedTuple

from api.openapi import examples
from api.openapi import money_examples as money
from api.schemas.events import Event
from shared.event_types import EventType


class _Example(NamedTuple):
    """What happened, with the payment of an example, and the refund that brought the event, if one did."""

    summary: str
    payment: dict[str, Any]
    refund: dict[str, Any] | None = None


_WHOLE_REFUND = money.REFUND | {"amount": 1585}
EVENTS: dict[EventType, _Example] = {
    EventType.INITIATED: _Example("A payment was accepted", examples.PENDING),
    EventType.REQUIRES_ACTION: _Example(
        "The customer must approve a payment: read it for its `next_action`",
        money.REQUIRES_ACTION | {"next_action": None},
    ),
    EventType.AUTHORIZED: _Example("The gateway holds the funds of a payment", money.AUTHORIZED),
    EventType.CAPTURE_FAILED: _Example("A capture failed, and the payment is AUTHORIZED again", money.CAPTURE_FAILED),
    EventType.COMPLETED: _Example("A payment was charged or captured", examples.COMPLETED),
    EventType.FAILED: _Example("A payment failed", examples.FAILED),
    EventType.CANCELLED: _Example("A payment was cancelled, or its authorization was voided", examples.CANCELLED),
    EventType.PARTIALLY_REFUNDED: _Example("A part of a payment was refunded", money.PARTIALLY_REFUNDED, money.REFUND),
    EventType.REFUNDED: _Example("All of a payment was refunded", money.REFUNDED, _WHOLE_REFUND),
    EventType.ORDER_CONFLICT: _Example(
        "A payment was charged, and its order was cancelled meanwhile", examples.COMPLETED
    ),
    EventType.REFUND_CREATED: _Example(
        "A refund was accepted, and its amount reserved", money.REFUND_REQUESTED, money.REFUND_PENDING
    ),
    EventType.REFUND_COMPLETED: _Example("A refund was paid", money.PARTIALLY_REFUNDED, money.REFUND),
    EventType.REFUND_FAILED: _Example(
        "A refund failed, and its amount may be refunded again",
        money.REFUND_GIVEN_BACK,
        money.REFUND_FAILED,
    ),
    EventType.REFUND_CANCELLED: _Example(
        "A refund was cancelled, and its amount may be refunded again",
        money.REFUND_GIVEN_BACK,
        money.REFUND_CANCELLED,
    ),
}
# Of Standard Webhooks: the name of each header, and what it is.
HEADERS = {
    "webhook-id": "The id of the delivery, the same in every attempt. Use it to recognise a repeat.",
    "webhook-timestamp": "When this attempt was signed, in seconds since 1970.",
    "webhook-signature": "`v1,` and the base64 of an HMAC-SHA256 over id, timestamp and body, joined by dots.",
}


def describe_webhooks(reference: str) -> dict[str, Any]:
    """Return a webhook for each type of event. `reference` is the pattern of a reference to a schema."""
    return {event_type.value: {"post": _operation(event_type, reference)} for event_type in EventType}


def _operation(event_type: EventType, reference: str) -> dict[str, Any]:
    summary, payment, refund = EVENTS[event_type]
    of_refund = {"refund_id": refund["id"], "refund": refund} if refund else {}
    return {
        # No tag of operations: openapi-generator would put these in the place of the operations.
        "tags": ["events"],
        "summary": summary,
        "operationId": f"on_{event_type.value.replace('.', '_')}",
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for name, text in HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": reference.format(model=Event.__name__)},
                    "example": {
                        "id": examples.EVENT_ID,
                        "type": event_type.value,
                        "timestamp": payment["updated_at"],
                        "data": {"payment": payment, "sequence": payment["sequence"], **of_refund},
                    },
                }
            },
        },
        "responses": {
            "2XX": {"description": "The event has been received. Any other answer is a failure, and is sent again."},
            "410": {"description": "No more events are wanted: the endpoint is disabled."},
        },
    }
