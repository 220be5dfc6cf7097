"""Models of events: the bodies of webhooks. They only describe what is sent.

Bodies are built by `event_body` in `shared.payments.events`; a test compares them with these models.
"""

from datetime import datetime

from pydantic import BaseModel, Field

from api.schemas.payments import Payment
from api.schemas.refunds import Refund
from shared.event_types import EventType


class EventData(BaseModel):
    """What an event is about."""

    payment: Payment = Field(description="The payment as it was when the event happened.")
    sequence: int = Field(
        description="Of two events of a payment, the one with the higher sequence is newer. Of two with the same one "
        "the event of the refund comes first."
    )
    refund_id: str | None = Field(
        default=None, description="The refund that brought the event; absent from events that no refund brought."
    )
    refund: Refund | None = Field(
        default=None, description="That refund as it was when the event happened; absent where `refund_id` is."
    )


class Event(BaseModel):
    """Something that happened to a payment or a refund of it, with the payload of Standard Webhooks."""

    id: str = Field(description="The same in every delivery of this event.")
    type: EventType
    timestamp: datetime = Field(description="When it happened.")
    data: EventData
