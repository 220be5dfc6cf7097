"""Models of the notifications of gateways."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.fields import Moment, RequestModel, without_null
from shared.ids import parse_id

# The longest name of a gateway that is stored.
GATEWAY_CHARS_MAX = 32


def _id(value: Any) -> UUID:
    if isinstance(value, str) and (parsed := parse_id(value)):
        return parsed
    raise ValueError("must be an id such as 01a21e56-d069-72e6-9f2c-44be0a381c81")


type Id = Annotated[UUID, BeforeValidator(_id, json_schema_input_type=UUID)]


_DATA: JsonDict = {"gateway": "paypal_mock", "payment_id": "01a21e56-d069-72e6-9f2c-44be0a381c81"}
_EXAMPLE: JsonDict = {"type": "payment.settled", "timestamp": "2026-11-28T12:00:00.000Z", "data": _DATA}
_EXAMPLE_OF_REFUND: JsonDict = {
    **_EXAMPLE,
    "type": "refund.settled",
    "data": {**_DATA, "refund_id": "01a21e57-0a4b-7d1e-8c55-2f60d1b5a9e3"},
}


class NotificationData(RequestModel):
    """What a gateway has settled."""

    model_config = ConfigDict(json_schema_extra=without_null())

    gateway: Annotated[str, Field(max_length=GATEWAY_CHARS_MAX, description="The gateway that settled it.")]
    payment_id: Annotated[Id, Field(description="The payment.")]
    refund_id: Id | None = Field(default=None, description="The refund of it; in a `refund.settled` only.")


class GatewayNotification(RequestModel):
    """A hint that a gateway has settled something. It does not say how: the service asks the gateway."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE, _EXAMPLE_OF_REFUND]})

    type: Literal["payment.settled", "refund.settled"]
    timestamp: Annotated[Moment, Field(strict=False)]
    data: NotificationData
