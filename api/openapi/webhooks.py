"""The webhooks of the OpenAPI document: what a receiver is sent, and what its answer means."""

from typing import Any

from api.openapi.examples import CANCELLED, COMPLETED, ENDED_AT, EVENT_ID, FAILED, PENDING
from api.schemas.events import Event
from shared.event_types import EventType

# For each type of event: what happened, and the payment of its example.
EVENTS: dict[EventType, tuple[str, dict[str, Any]]] = {
    EventType.INITIATED: ("A payment was accepted", PENDING),
    EventType.COMPLETED: ("A payment was charged", COMPLETED),
    EventType.FAILED: ("A payment failed", FAILED),
    EventType.CANCELLED: ("A payment was cancelled", CANCELLED),
    EventType.ORDER_CONFLICT: ("A payment was charged, and its order was cancelled meanwhile", COMPLETED),
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
    summary, payment = EVENTS[event_type]
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
                        "id": EVENT_ID,
                        "type": event_type.value,
                        "timestamp": ENDED_AT,
                        "data": {"payment": payment, "sequence": payment["sequence"]},
                    },
                }
            },
        },
        "responses": {
            "2XX": {"description": "The event has been received. Any other answer is a failure, and is sent again."},
            "410": {"description": "No more events are wanted: the endpoint is disabled."},
        },
    }
