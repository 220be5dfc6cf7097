"""The OpenAPI document: every error that an operation may answer is a problem document with its codes."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.paths import PAYMENTS, PREFIX
from api.problems import KINDS, PROBLEM_TYPE, Code
from api.schemas.problems import ProblemDocument

FIRST_ERROR = 400
LIMIT_HEADERS = {
    "Retry-After": ("integer", "Seconds until a request is accepted again."),
    "RateLimit": ("string", "For each limit: `r` requests are left for the `t` seconds until the next window."),
    "RateLimit-Policy": ("string", "For each limit: `q` requests are allowed in a window of `w` seconds."),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of an operation that may answer these errors.

    Every operation may answer 401, 429, and 422, for instance for an unknown query parameter.
    """
    return {
        status: {"model": ProblemDocument, "description": "; ".join(KINDS[code].title for code in _codes(status))}
        for status in (401, 422, 429, *statuses)
    }


def response(status: int, model: Any, description: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of an operation with a second status that is not an error."""
    return {status: {"model": model, "description": description} if model else {"description": description}}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, which is built once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for operations in document["paths"].values():
            for operation in operations.values():
                _drop_unsent(operation["responses"])
                _mark_problems(operation["responses"])
                _name_headers(operation["responses"])
        # FastAPI's own models of a 422, which this API never sends.
        for unused in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema


def _drop_unsent(responses: dict[str, dict[str, Any]]) -> None:
    """Remove the 422 that FastAPI adds to every operation with a parameter: operations that answer one declare it."""
    content = responses.get("422", {}).get("content", {})
    if content.get("application/json", {}).get("schema") == {"$ref": "#/components/schemas/HTTPValidationError"}:
        del responses["422"]


def _mark_problems(responses: dict[str, dict[str, Any]]) -> None:
    """Describe errors as problem documents, each with an example. FastAPI describes them as application/json."""
    for status, response in responses.items():
        if int(status) >= FIRST_ERROR and "content" in response:
            codes = _codes(int(status))
            response["content"] = {
                PROBLEM_TYPE: {
                    "schema": {"$ref": "#/components/schemas/ProblemDocument"},
                    "examples": {code.value: {"value": _example(code)} for code in codes},
                }
            }


def _name_headers(responses: dict[str, dict[str, Any]]) -> None:
    if "429" in responses:
        responses["429"]["headers"] = {
            name: {"description": text, "schema": {"type": kind}} for name, (kind, text) in LIMIT_HEADERS.items()
        }


def _codes(status: int) -> list[Code]:
    return [code for code, kind in KINDS.items() if kind.status == status]


def _example(code: Code) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": KINDS[code].title,
        "status": KINDS[code].status,
        "code": code.value,
        "instance": PREFIX + PAYMENTS,
        "correlation_id": "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00",
    }
