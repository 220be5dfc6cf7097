"""The OpenAPI document: FastAPI's, with the headers of responses, in the order and the types that clients need."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from api.openapi.responses import NEVER_SENT
from api.openapi.webhooks import describe_webhooks
from api.problems import PROBLEM_TYPE
from api.schemas.events import Event
from api.schemas.fields import remove_null
from api.schemas.problems import ProblemDocument
from api.schemas.rules import INT64_MAX

SCHEMA_REFERENCE = "#/components/schemas/{model}"


class Header(NamedTuple):
    """A header of responses."""

    type: str
    is_always_there: bool
    description: str


HEADERS = {
    "X-Correlation-ID": Header("string", True, "The id of the request in logs: that of the request, or a new one."),
    "Location": Header("string", True, "The path of the object, with `user_id` if the request named a user."),
    "ETag": Header("string", True, "The version of the payment: its `sequence`, in quotes."),
    "Cache-Control": Header("string", True, "`no-store` with a secret, and `private, no-cache` with an ETag."),
    "Vary": Header("string", False, "`Prefer`, if the answer may depend on it."),
    "Preference-Applied": Header("string", False, "`wait=N`, if the preference was honoured."),
    "Idempotent-Replayed": Header("string", False, "`true`, if the key was used before for the same request."),
    "WWW-Authenticate": Header("string", True, "`Bearer`, or `Standard-Webhooks` where gateways sign."),
    "Accept-Encoding": Header("string", False, "`identity`, if the body had a content coding."),
    "Retry-After": Header("integer", False, "Seconds until it is worth asking again."),
    "RateLimit": Header("string", False, "For each limit: `r` requests are left for the next `t` seconds."),
    "RateLimit-Policy": Header("string", False, "For each limit: `q` requests are allowed in `w` seconds."),
}
# The headers of every problem document with a status.
HEADERS_OF_STATUS = {
    401: ("WWW-Authenticate",),
    415: ("Accept-Encoding",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
# The headers of the successes of an operation that takes a request header.
HEADERS_OF_PARAMETER = {
    "Idempotency-Key": ("Idempotent-Replayed",),
    "Prefer": ("Vary", "Preference-Applied", "Retry-After"),
    "If-None-Match": ("ETag", "Cache-Control"),
}
# The headers of every response to a request that counts under a limit, where the installation has one.
HEADERS_OF_LIMITS = ("RateLimit", "RateLimit-Policy")
SENTENCE_END = re.compile(r"\.\s+")


def operation_id(route: APIRoute) -> str:
    """Return the id of an operation, which clients name their functions after: the name of ours."""
    return route.name


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, which is built once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            servers=app.servers,
            tags=app.openapi_tags,
            license_info=app.license_info,
        )
        for operation in _operations(document):
            _split_summary(operation)
            _complete_parameters(operation)
            _complete_responses(operation)
        _complete_components(document["components"])
        document["webhooks"] = describe_webhooks(SCHEMA_REFERENCE)
        _correct_integers(document)
        app.openapi_schema = document
    return app.openapi_schema


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _split_summary(operation: dict[str, Any]) -> None:
    """Make the first sentence of the description the summary. FastAPI's own is the name of our function."""
    first, *rest = SENTENCE_END.split(operation.pop("description"), 1)
    operation["summary"] = first.removesuffix(".").replace("\n", " ")
    if rest:
        operation["description"] = rest[0]


def _complete_parameters(operation: dict[str, Any]) -> None:
    """Describe a parameter as it must be if it is there: it can be left out, but in no way be null.

    A reference stands alone, or else openapi-generator does not follow it. The parameter has the description, too.
    """
    for parameter in operation.get("parameters", ()):
        remove_null(parameter["schema"])
        if "$ref" in parameter["schema"]:
            parameter["schema"] = {"$ref": parameter["schema"]["$ref"]}


def _complete_responses(operation: dict[str, Any]) -> None:
    """Put the responses in order and add their headers. FastAPI's own 422 is never sent."""
    taken = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "header"}
    of_success = [
        name for parameter in HEADERS_OF_PARAMETER if parameter in taken for name in HEADERS_OF_PARAMETER[parameter]
    ]
    operation["responses"] = dict(sorted(operation["responses"].items()))
    is_limited, is_signed = "429" in operation["responses"], "security" not in operation
    for status, response in list(operation["responses"].items()):
        if "HTTPValidationError" in str(response):
            del operation["responses"][status]
            continue
        is_problem = PROBLEM_TYPE in response.get("content", {})
        added = HEADERS_OF_STATUS.get(int(status), ()) if is_problem else of_success
        # A notification that is signed rightly does not count.
        of_limits = HEADERS_OF_LIMITS if is_limited and (is_problem or not is_signed) else ()
        names = dict.fromkeys(["X-Correlation-ID", *response.get("headers", {}), *added, *of_limits])
        never_sent = response.pop(NEVER_SENT, ())
        response["headers"] = {
            name: {"$ref": f"#/components/headers/{name}"} for name in names if name not in never_sent
        }
        shown = response.get("content", {}).get("application/json", {})
        if "example" in shown:
            shown["example"] = orjson.loads(shown["example"])


def _complete_components(components: dict[str, Any]) -> None:
    """Add what our responses refer to, and remove FastAPI's models of a 422 that this API never sends."""
    components["headers"] = {
        name: {
            "description": header.description,
            "required": header.is_always_there,
            "schema": {"type": header.type},
        }
        for name, header in HEADERS.items()
    }
    schemas = components["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for model in (ProblemDocument, Event):
        schema = model.model_json_schema(ref_template=SCHEMA_REFERENCE, mode="serialization")
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    components["schemas"] = dict(sorted(schemas.items()))


def _correct_integers(node: Any) -> None:
    """Write the bounds of integers as integers: FastAPI makes 2^63 - 1 a float, which is another number."""
    match node:
        case {"type": "integer"}:
            for bound in ("minimum", "maximum"):
                if isinstance(node.get(bound), float):
                    # As floats the largest and the smallest integer are one too large.
                    node[bound] = max(-INT64_MAX, min(int(node[bound]), INT64_MAX))
        case dict():
            for value in node.values():
                _correct_integers(value)
        case list():
            for value in node:
                _correct_integers(value)
        case _:
            pass
