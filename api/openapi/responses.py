"""What operations declare of their responses: the errors that can happen, and what a success looks like."""

from collections.abc import Iterable
from typing import Any

import orjson

from api.problems import KINDS, PROBLEM_TYPE, Code
from api.schemas.problems import ProblemDocument

# Errors of every operation that needs a token: 422 is, for instance, an unknown query parameter.
EVERYWHERE = (Code.INVALID_TOKEN, Code.VALIDATION_ERROR, Code.RATE_LIMITED, Code.UNAVAILABLE)
# Errors of every operation with a body.
BODY = (Code.MALFORMED_REQUEST, Code.BODY_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE)
# Errors of every operation that takes an idempotency key.
KEYED = (Code.IDEMPOTENCY_KEY_REUSED, Code.OUTCOME_UNKNOWN)

EXAMPLE_ID = "01a21e56-d069-72e6-9f2c-44be0a381c81"

type Responses = dict[int | str, dict[str, Any]]


def problems(*codes: Code) -> Responses:
    """Return the errors that an operation may answer, beside those of every operation: each a problem document."""
    by_status: dict[int, list[Code]] = {}
    # In the order of the closed set.
    for code in Code:
        if code in codes or code in EVERYWHERE:
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
    status: int, description: str, *, example: Any = None, model: Any = None, headers: Iterable[str] = ()
) -> Responses:
    """Return a response that is no error. `model` is for a status beside that of the operation."""
    described: dict[str, Any] = {"description": description}
    if model is not None:
        described["model"] = model
    if example is not None:
        # As text, because FastAPI removes what is null; `api.openapi.document` reads it back.
        described["content"] = {"application/json": {"example": orjson.dumps(example).decode()}}
    if headers:
        described["headers"] = {name: {} for name in headers}
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
        case Code.VALIDATION_ERROR:
            example["errors"] = [{"pointer": "/amount", "detail": "must be between 50 and 100000000 minor units"}]
        case _:
            pass
    return example
