"""What operations declare of their responses: the errors that can happen, and what a success looks like."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from api.problems import KINDS, PROBLEM_TYPE, Code, fault
from api.schemas.problems import ProblemDocument
from shared.errors import Refused
from shared.lifecycle import PaymentStatus
from shared.payments.balance import Balance
from shared.payments.refusals import LivePayment, no_action_required, not_cancellable, not_capturable, order_taken
from shared.refund_lifecycle import RefundStatus
from shared.refunds.refusals import exceeds_balance, not_refundable, refund_not_cancellable
from shared.webhooks.resend import being_sent

# Errors of every operation that needs a token: 422 is, for instance, an unknown query parameter.
EVERYWHERE = (Code.INVALID_TOKEN, Code.VALIDATION_ERROR, Code.RATE_LIMITED, Code.UNAVAILABLE)
# Errors of every operation with a body.
BODY = (Code.MALFORMED_REQUEST, Code.BODY_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE)
# Errors of every operation that takes an idempotency key.
KEYED = (Code.IDEMPOTENCY_KEY_REUSED, Code.OUTCOME_UNKNOWN, Code.OVERLOADED)

# The headers that a response never has, though its operation takes a request header that other responses answer so.
NEVER_SENT = "x-never-sent"
# What an answer never has that was held until there was nothing to wait for: no repeat is such an answer.
NEVER_HELD = ("Retry-After", "Idempotent-Replayed")
# What an operation never answers that does the same for a repeat as for the first request.
NEVER_REPLAYED = ("Idempotent-Replayed",)

EXAMPLE_ID = "01a21e56-d069-72e6-9f2c-44be0a381c81"

_SINCE = datetime(2026, 11, 27, 18, 48, 57, 118_000, UTC)
# The refusal of each 409, in the words that clients get.
CONFLICTS: dict[Code, Refused] = {
    Code.PAYMENT_NOT_CANCELLABLE: not_cancellable(PaymentStatus.COMPLETED, _SINCE),
    Code.PAYMENT_NOT_CAPTURABLE: not_capturable(PaymentStatus.COMPLETED, _SINCE),
    Code.NO_ACTION_REQUIRED: no_action_required(PaymentStatus.COMPLETED, _SINCE),
    Code.PAYMENT_NOT_REFUNDABLE: not_refundable(PaymentStatus.AUTHORIZED, _SINCE),
    Code.REFUND_EXCEEDS_BALANCE: exceeds_balance(
        PaymentStatus.PARTIALLY_REFUNDED, _SINCE, Balance(authorized=1585, captured=1585, refunded=500, reserved=85)
    ),
    Code.REFUND_NOT_CANCELLABLE: refund_not_cancellable(RefundStatus.COMPLETED, _SINCE),
    Code.DELIVERY_IN_PROGRESS: being_sent(_SINCE),
} | {
    code: order_taken("1042", LivePayment(id=UUID(EXAMPLE_ID), status=status, created_by="user:1", since=_SINCE))
    for code, status in (
        (Code.PAYMENT_IN_PROGRESS, PaymentStatus.PROCESSING),
        (Code.ORDER_ALREADY_PAID, PaymentStatus.COMPLETED),
    )
}

type Responses = dict[int | str, dict[str, Any]]


def problems(*codes: Code) -> Responses:
    """Return the errors that an operation may answer, beside those of every operation: each a problem document."""
    return _problems({*codes, *EVERYWHERE})


def problems_of_signed(*codes: Code) -> Responses:
    """Return the errors that an operation may answer whose requests are signed and need no token."""
    return _problems({*codes, *EVERYWHERE, Code.INVALID_SIGNATURE} - {Code.INVALID_TOKEN})


def _problems(codes: AbstractSet[Code]) -> Responses:
    by_status: dict[int, list[Code]] = {}
    # In the order of the closed set.
    for code in Code:
        if code in codes:
            by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        status: {
            "description": ". ".join(KINDS[code].title for code in found) + ".",
            "content": {
                PROBLEM_TYPE: {
                    "schema": {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"},
                    "examples": {code.value: {"value": _example(code)} for code in found},
                }
            },
        }
        for status, found in by_status.items()
    }


def success(
    status: int,
    description: str,
    *,
    example: Any = None,
    model: Any = None,
    headers: Iterable[str] = (),
    never: Sequence[str] = (),
) -> Responses:
    """Return a response that is no error, with `headers`, and without those that it `never` has.

    `model` is for a status beside that of the operation.
    """
    described: dict[str, Any] = {"description": description}
    if model is not None:
        described["model"] = model
    if example is not None:
        # As text, because FastAPI removes what is null; `api.openapi.document` reads it back.
        described["content"] = {"application/json": {"example": orjson.dumps(example).decode()}}
    if headers:
        described["headers"] = {name: {} for name in headers}
    if never:
        # As a member of the document; `api.openapi.document` takes it out.
        described[NEVER_SENT] = list(never)
    return {status: described}


def _example(code: Code) -> dict[str, Any]:
    example: dict[str, Any] = {
        "type": "about:blank",
        "title": KINDS[code].title,
        "status": KINDS[code].status,
        "code": code.value,
        "instance": "/api/v1/payments",
        "correlation_id": "01a21e56-cb79-7032-a2be-03dedf7d81ea",
    }
    match code:
        case Code.PAYMENT_IN_PROGRESS | Code.ORDER_ALREADY_PAID:
            example["payment_id"] = EXAMPLE_ID
        case Code.REFUND_EXCEEDS_BALANCE:
            example["refundable_amount"] = 1000
        case Code.VALIDATION_ERROR:
            example["errors"] = [
                fault("/amount", "must be between 50 and 100000000 minor units"),
                fault("/currency", "must be a string"),
            ]
        case _:
            pass
    if code in CONFLICTS:
        example["detail"] = str(CONFLICTS[code])
    return example
