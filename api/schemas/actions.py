"""The body with which a test answers for a customer."""

from enum import StrEnum

from pydantic import ConfigDict, Field

from api.schemas.fields import RequestModel
from shared.lifecycle import ActionResult


class Answer(StrEnum):
    """What a customer may answer."""

    APPROVE = "approve"
    DECLINE = "decline"


RESULTS = {Answer.APPROVE: ActionResult.APPROVED, Answer.DECLINE: ActionResult.DECLINED}


class ActionRequest(RequestModel):
    """The answer of the customer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"result": "approve"}, {"result": "decline"}]})

    result: Answer = Field(
        strict=False, description="`approve`: the payment goes on at the gateway. `decline`: it fails."
    )
