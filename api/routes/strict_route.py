"""The route class of the API: it checks what FastAPI leaves open, before FastAPI reads parameters and body."""

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from starlette.types import Scope

from api.auth.dependencies import authenticate
from api.problem_handlers import ERRORS_MAX, member_name
from api.problems import Code, Problem
from api.routes.strict_json import NOT_JSON, check_coding, parse_json

# Header lines that may come several times and mean the same as one line with commas (RFC 9110, 5.2).
_LISTS = frozenset({b"prefer", b"if-none-match"})
# Header lines that may come once.
_SINGLE = frozenset({b"idempotency-key", b"content-type", b"content-encoding"})

type Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """A route that refuses repeated headers, unknown or repeated query parameters, and bodies that are not strict JSON.

    It is for operations that need a token, and checks that first: the request of a stranger is not worth any work.
    """

    def get_route_handler(self) -> Handler:
        """See APIRoute."""
        handle = super().get_route_handler()
        fields = get_flat_params(self.dependant)
        parameters = frozenset(field.alias for field in fields if isinstance(field.field_info, Query))
        has_body = self.body_field is not None

        async def handle_strictly(request: Request) -> Response:
            result = await authenticate(request.scope, request.app.state.api.authenticator)
            if isinstance(result, Problem):
                raise result
            _check_header_lines(request.scope)
            if request.scope["query_string"]:
                _check_query(request, parameters)
            return await handle(await _with_body(request) if has_body else request)

        return handle_strictly


class _JsonRequest(Request):
    """A request whose body has been parsed."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


async def _with_body(request: Request) -> Request:
    check_coding(request.headers)
    read = _JsonRequest(request.scope, request.receive)
    body = await read.body()
    if not body:
        raise Problem(Code.MALFORMED_REQUEST, NOT_JSON)
    # FastAPI asks for the value only if the media type is JSON, and the answer is 415 if it is not.
    if "json" in request.headers.get("content-type", "").lower():
        read.parsed = parse_json(body)
    return read


def _check_header_lines(scope: Scope) -> None:
    """Join the lines of a list, and refuse a second line where there may be one. Raises Problem (422)."""
    names = [name for name, _ in scope["headers"] if name in _SINGLE or name in _LISTS]
    if len(names) == len(set(names)):
        return
    twice = {name for name, count in Counter(names).items() if count > 1}
    if single := sorted(name.decode() for name in twice & _SINGLE):
        raise Problem(
            Code.VALIDATION_ERROR, errors=[{"pointer": f"/header/{name}", "detail": "comes twice"} for name in single]
        )
    scope["headers"] = _joined(scope["headers"], twice)


def _joined(headers: list[tuple[bytes, bytes]], names: set[bytes]) -> list[tuple[bytes, bytes]]:
    others = [header for header in headers if header[0] not in names]
    return others + [(name, b", ".join(value for key, value in headers if key == name)) for name in names]


def _check_query(request: Request, parameters: frozenset[str]) -> None:
    """Refuse a parameter that is unknown or comes twice. Raises Problem (422).

    A mistyped filter that is ignored would show the whole list.
    """
    counts = Counter(name for name, _ in request.query_params.multi_items())
    problems = [
        {
            "pointer": f"/query/{member_name(name)}",
            "detail": "comes twice" if name in parameters else "is not a parameter of this operation",
        }
        for name, count in counts.items()
        if count > 1 or name not in parameters
    ]
    if problems:
        raise Problem(Code.VALIDATION_ERROR, errors=problems[:ERRORS_MAX])
