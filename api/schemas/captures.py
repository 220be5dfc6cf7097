"""The body of a capture."""

from pydantic import ConfigDict, Field

from api.schemas.fields import AmountOfPart, RequestModel, without_null
from api.schemas.simulation import CaptureSteering


class CaptureRequest(RequestModel):
    """A request to capture what is authorized. It may have no members, and the body may be left out."""

    model_config = ConfigDict(
        json_schema_extra=without_null({}, {"amount": 1200}, {"simulation": {"outcomes": ["capture_declined"]}})
    )

    amount: AmountOfPart = None
    simulation: CaptureSteering | None = Field(
        default=None, description="What the calls of the capture to the gateway do."
    )
