"""The model of a problem document (RFC 9457)."""

from pydantic import BaseModel, Field

from api.problem_handlers import ERRORS_MAX
from api.problems import Code
from api.schemas.fields import Int64


class ProblemError(BaseModel):
    """One wrong field."""

    pointer: str = Field(
        description="A JSON pointer (RFC 6901) into the body, or one that begins with `/path`, `/query` or `/header`."
    )
    detail: str = Field(
        description="What is wrong: a sentence that begins with the quoted field, and never repeats its value."
    )


class ProblemDocument(BaseModel):
    """An error, as a problem document (RFC 9457)."""

    type: str = Field(description="Always `about:blank`; see `code`.")
    title: str = Field(description="A short text for people, the same for every error with this `code`.")
    status: int = Field(description="The HTTP status of the response.")
    code: Code = Field(description="The kind of error, for programs. It is stable.")
    instance: str = Field(description="The path of the request.")
    correlation_id: str = Field(description="The header `X-Correlation-ID` of the response; log lines have it, too.")
    detail: str | None = Field(default=None, description="A text for people about this occurrence of the error.")
    errors: list[ProblemError] | None = Field(default=None, description=f"The wrong fields, at most {ERRORS_MAX}.")
    payment_id: str | None = Field(
        default=None, description="With `payment_in_progress` and `order_already_paid`: the payment that the order has."
    )
    refundable_amount: Int64 | None = Field(
        default=None,
        description="With `refund_exceeds_balance`: what can be refunded now, in minor units.",
    )
