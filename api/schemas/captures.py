"""The body of a capture."""

from pydantic import ConfigDict

from api.schemas.fields import AmountOfPart, RequestModel, without_null


class CaptureRequest(RequestModel):
    """A request to capture what is authorized. It may have no members, and the body may be left out."""

    model_config = ConfigDict(json_schema_extra=without_null({}, {"amount": 1200}))

    amount: AmountOfPart = None
