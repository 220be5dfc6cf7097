"""The route class of the API: it checks what FastAPI leaves open, before FastAPI reads parameters and body."""

from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.utils import get_flat_params, solve_dependencies
from fastapi.exceptions import RequestValidationError
from fastapi.params import Query
from fastapi.routing import APIRoute
from pydantic_core import PydanticUndefined
from starlette.types import Scope

from api.auth.dependencies import authenticate
from api.auth.principal import Role
from api.faults import refused
from api.problems import Code, Problem
from api.routes.strict_json import NOT_JSON, check_coding, check_media_type, parse_json
from api.schemas.rules import RULES, Rules
from api.state import Api

# Header lines that may come several times and mean the same as one line with commas (RFC 9110, 5.2).
_LISTS = frozenset({b"prefer", b"if-none-match"})
# Header lines that may come once.
_SINGLE = frozenset({b"idempotency-key", b"content-type", b"content-encoding"})

TWICE = "comes twice: send it once"

type Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """A route that refuses repeated headers, unknown or repeated query parameters, and bodies that are not strict JSON.

    It is for operations that need a token, and checks that first: the request of a stranger is not worth any work. One
    answer names all faults of the headers, the query and the body.
    """

    async def admit(self, request: Request) -> bool:
        """Return whether the client is a user, and not a service or an admin. Raises Problem (401) for a stranger."""
        api: Api = request.app.state.api
        principal = await authenticate(request.scope, api.authenticator)
        if isinstance(principal, Problem):
            raise principal
        return principal.role == Role.USER

    def get_route_handler(self) -> Handler:
        """See APIRoute."""
        handle = super().get_route_handler()
        fields = get_flat_params(self.dependant)
        parameters = frozenset(field.alias for field in fields if isinstance(field.field_info, Query))
        has_body = self.body_field is not None
        needs_body = self.body_field is not None and self.body_field.field_info.is_required()

        async def handle_strictly(request: Request) -> Response:
            is_user = await self.admit(request)
            found = _check_header_lines(request.scope)
            if request.scope["query_string"]:
                found += _check_query(request, parameters)
            if has_body:
                request = await _with_body(request, is_required=needs_body)
                RULES.set(Rules(request.app.state.api.runtime, is_user=is_user))
            if not found:
                # The first fault that FastAPI finds is not the last one: see `Rules.now`.
                with suppress(RequestValidationError):
                    return await handle(request)
            if rules := RULES.get():
                RULES.set(replace(rules, now=datetime.now(UTC)))
            raise RequestValidationError(found + await self._faults(request))

        return handle_strictly

    async def _faults(self, request: Request) -> list[dict[str, Any]]:
        """Return the faults that FastAPI finds in the parameters and the body, without running the operation."""
        solved = await solve_dependencies(
            request=request,
            dependant=self.dependant,
            body=await request.json() if self.body_field is not None else None,
            async_exit_stack=request.scope["fastapi_inner_astack"],
            embed_body_fields=self._embed_body_fields,
        )
        return solved.errors


class _JsonRequest(Request):
    """A request whose body has been parsed."""

    # What FastAPI takes for a body that was left out.
    parsed: Any = PydanticUndefined

    async def json(self) -> Any:
        return self.parsed


async def _with_body(request: Request, *, is_required: bool) -> Request:
    check_coding(request.headers)
    read = _JsonRequest(request.scope, request.receive)
    body = await read.body()
    if not body:
        if not is_required:
            return read
        raise Problem(Code.MALFORMED_REQUEST, NOT_JSON)
    check_media_type(request.headers)
    read.parsed = parse_json(body)
    return read


def _check_header_lines(scope: Scope) -> list[dict[str, Any]]:
    """Join the lines of a list, and return the faults of a second line where there may be one."""
    names = [name for name, _ in scope["headers"] if name in _SINGLE or name in _LISTS]
    if len(names) == len(set(names)):
        return []
    twice = {name for name, count in Counter(names).items() if count > 1}
    scope["headers"] = _joined(scope["headers"], twice & _LISTS)
    return [refused(("header", name.decode()), TWICE) for name in sorted(twice & _SINGLE)]


def _joined(headers: list[tuple[bytes, bytes]], names: set[bytes]) -> list[tuple[bytes, bytes]]:
    others = [header for header in headers if header[0] not in names]
    return others + [(name, b", ".join(value for key, value in headers if key == name)) for name in names]


def _check_query(request: Request, parameters: frozenset[str]) -> list[dict[str, Any]]:
    """Return the fault of each parameter that is unknown or comes twice.

    A mistyped filter that is ignored would show the whole list.
    """
    counts = Counter(name for name, _ in request.query_params.multi_items())
    return [
        refused(("query", name), TWICE if name in parameters else "is not a parameter of this operation: leave it out")
        for name, count in counts.items()
        if count > 1 or name not in parameters
    ]
