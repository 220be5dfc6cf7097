"""How the operations describe themselves: every error that they may answer is a problem document with its codes."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import KINDS, PROBLEM_TYPE, Code
from api.schemas import ProblemDocument

FIRST_ERROR = 400
LIMIT_HEADERS = {
    "Retry-After": ("integer", "Seconds until a request is let through again."),
    "RateLimit": ("string", "For each limit the requests left (`r`) and the seconds until there are more (`t`)."),
    "RateLimit-Policy": ("string", "For each limit the requests (`q`) in a window of so many seconds (`w`)."),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that may answer these errors, besides 401 and 429."""
    return {
        status: {"model": ProblemDocument, "description": "; ".join(KINDS[code].title for code in _codes(status))}
        for status in (401, 429, *statuses)
    }


def also(status: int, model: Any, description: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation with a second way to succeed."""
    return {status: {"model": model, "description": description} if model else {"description": description}}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for operations in made["paths"].values():
            for operation in operations.values():
                _drop_unsent(operation["responses"])
                _mark_problems(operation["responses"])
                _name_headers(operation["responses"])
        for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of a 422, which we never send
            made["components"]["schemas"].pop(unused, None)
        app.openapi_schema = made
    return app.openapi_schema


def _drop_unsent(responses: dict[str, dict[str, Any]]) -> None:
    """FastAPI adds a 422 of its own to whatever has a parameter; operations that may answer one say so themselves."""
    content = responses.get("422", {}).get("content", {})
    if content.get("application/json", {}).get("schema") == {"$ref": "#/components/schemas/HTTPValidationError"}:
        del responses["422"]


def _mark_problems(responses: dict[str, dict[str, Any]]) -> None:
    """FastAPI describes every model as application/json; errors are problem documents, each with an example."""
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
        "instance": "/api/v1/payments",
        "correlation_id": "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00",
    }
