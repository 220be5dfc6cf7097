"""Models of the notifications of gateways."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from api.schemas.fields import Moment, RequestModel, without_null

# The longest name of a gateway that is stored.
GATEWAY_CHARS_MAX = 32


class NotificationData(RequestModel):
    """What a gateway has settled."""

    model_config = ConfigDict(json_schema_extra=without_null())

    gateway: Annotated[str, Field(max_length=GATEWAY_CHARS_MAX, description="The gateway that settled it.")]
    payment_id: Annotated[UUID, Field(strict=False, description="The payment.")]
    refund_id: Annotated[UUID, Field(strict=False)] | None = Field(
        default=None, description="The refund of it; in a `refund.settled` only."
    )


class GatewayNotification(RequestModel):
    """A hint that a gateway has settled something. It does not say how: the service asks the gateway."""

    type: Literal["payment.settled", "refund.settled"]
    timestamp: Annotated[Moment, Field(strict=False)]
    data: NotificationData
