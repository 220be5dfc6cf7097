"""What HTTP says of an error: problem documents (RFC 9457) with a stable `code`. The only place with status codes."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import quote

import structlog
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match

from api.responses import document
from shared import errors
from shared.lifecycle import MethodType
from shared.logs import hidden

log = structlog.get_logger(__name__)

PROBLEM_TYPE = "application/problem+json"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
RETRY_AFTER_S = 1
ERRORS_MAX = 50  # wrong places named in one answer: a body of 64 KiB has room for thousands
NAME_CHARS_MAX = 64  # of a client's own member names in a pointer


class Code(StrEnum):
    """The stable codes; a closed set."""

    MALFORMED_REQUEST = "malformed_request"
    INVALID_TOKEN = "invalid_token"  # noqa: S105 - the name of an error
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    PAYMENT_IN_PROGRESS = "payment_in_progress"
    ORDER_ALREADY_PAID = "order_already_paid"
    PAYMENT_NOT_CANCELLABLE = "payment_not_cancellable"
    DELIVERY_IN_PROGRESS = "delivery_in_progress"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    VALIDATION_ERROR = "validation_error"
    PAYMENT_METHOD_UNUSABLE = "payment_method_unusable"
    PAYMENT_METHOD_LIMIT = "payment_method_limit"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    CALLBACK_URL_REFUSED = "callback_url_refused"
    RATE_LIMITED = "rate_limited"
    INTERNAL_ERROR = "internal_error"
    UNAVAILABLE = "unavailable"
    OVERLOADED = "overloaded"
    OUTCOME_UNKNOWN = "outcome_unknown"


class Kind(NamedTuple):
    """The status of a code, and its title: the same for every occurrence."""

    status: int
    title: str


KINDS: dict[Code, Kind] = {
    Code.MALFORMED_REQUEST: Kind(400, "The request cannot be read"),
    Code.INVALID_TOKEN: Kind(401, "The bearer token is missing or not valid"),
    Code.FORBIDDEN: Kind(403, "This role may not do that"),
    Code.NOT_FOUND: Kind(404, "There is nothing here that you may see"),
    Code.METHOD_NOT_ALLOWED: Kind(405, "This address does not take that method"),
    Code.PAYMENT_IN_PROGRESS: Kind(409, "The order has a payment in progress"),
    Code.ORDER_ALREADY_PAID: Kind(409, "The order is already paid"),
    Code.PAYMENT_NOT_CANCELLABLE: Kind(409, "The payment can no longer be cancelled"),
    Code.DELIVERY_IN_PROGRESS: Kind(409, "The delivery is being sent right now"),
    Code.BODY_TOO_LARGE: Kind(413, "The body is too large"),
    Code.UNSUPPORTED_MEDIA_TYPE: Kind(415, "The body must be application/json"),
    Code.VALIDATION_ERROR: Kind(422, "The request has a value that is not allowed"),
    Code.PAYMENT_METHOD_UNUSABLE: Kind(422, "The payment method cannot be used"),
    Code.PAYMENT_METHOD_LIMIT: Kind(422, "The user has as many payment methods as allowed"),
    Code.IDEMPOTENCY_KEY_REUSED: Kind(422, "The idempotency key belongs to another request"),
    Code.CALLBACK_URL_REFUSED: Kind(422, "No webhook is sent to that address"),
    Code.RATE_LIMITED: Kind(429, "Too many requests"),
    Code.INTERNAL_ERROR: Kind(500, "This is a defect of the service"),
    Code.UNAVAILABLE: Kind(503, "The service cannot do this right now"),
    Code.OVERLOADED: Kind(503, "The service has too much to do"),
    Code.OUTCOME_UNKNOWN: Kind(503, "Nobody knows whether this was done: repeat it with the same idempotency key"),
}


class Problem(Exception):
    """An answer that is an error; `errors` name wrong places (JSON pointer), `members` are extensions (RFC 9457)."""

    def __init__(
        self,
        code: Code,
        detail: str | None = None,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}
        self.members = members or {}


def invalid(pointer: str, detail: str) -> Problem:
    """A 422 that names one field."""
    return Problem(Code.VALIDATION_ERROR, errors=[{"pointer": pointer, "detail": detail}])


def render(problem: Problem, *, path: str, correlation_id: str) -> Response:
    """The problem document."""
    kind = KINDS[problem.code]
    headers = dict(problem.headers)
    if kind.status == 401:  # noqa: PLR2004
        headers["WWW-Authenticate"] = "Bearer"
    if kind.status in {429, 503}:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": kind.title,
        "status": kind.status,
        "code": problem.code.value,
        "instance": quote(hidden(path)),  # of a path that the client made up
        "correlation_id": correlation_id,
        **problem.members,
    }
    if problem.detail:
        body["detail"] = problem.detail
    if problem.errors:
        body["errors"] = list(problem.errors)
    return document(body, status=kind.status, headers=headers, media_type=PROBLEM_TYPE)


CODES: dict[type[errors.PaymentsError], Code] = {
    errors.PaymentInProgress: Code.PAYMENT_IN_PROGRESS,
    errors.OrderAlreadyPaid: Code.ORDER_ALREADY_PAID,
    errors.PaymentMethodUnusable: Code.PAYMENT_METHOD_UNUSABLE,
    errors.PaymentMethodLimit: Code.PAYMENT_METHOD_LIMIT,
    errors.IdempotencyKeyReused: Code.IDEMPOTENCY_KEY_REUSED,
    errors.UrlRefused: Code.CALLBACK_URL_REFUSED,
    errors.DeliveryInProgress: Code.DELIVERY_IN_PROGRESS,
    errors.EndpointDisabled: Code.VALIDATION_ERROR,
    errors.ValueRefused: Code.VALIDATION_ERROR,
    errors.Overloaded: Code.OVERLOADED,
    errors.DatabaseUnavailable: Code.UNAVAILABLE,
    errors.WriteConflict: Code.UNAVAILABLE,
    errors.CommitUnknown: Code.OUTCOME_UNKNOWN,
    errors.NeighbourUnreachable: Code.UNAVAILABLE,
}
POINTERS: dict[type[errors.PaymentsError], str] = {
    errors.PaymentMethodUnusable: "/payment_method_id",
    errors.IdempotencyKeyReused: "/header/Idempotency-Key",
}


def as_problem(error: errors.PaymentsError) -> Problem:
    """What a client is told of an error of ours: of a refusal its words, of everything else only the code."""
    code = CODES.get(type(error))
    if code is None:
        log.error("http.unexpected_error", exc_info=error)
        return Problem(Code.INTERNAL_ERROR)
    detail = str(error) if isinstance(error, errors.Refused) else None
    pointer = POINTERS.get(type(error))
    payment_id = getattr(error, "payment_id", None)
    return Problem(
        code,
        detail,
        errors=[{"pointer": pointer, "detail": str(error)}] if pointer else (),
        members={"payment_id": str(payment_id)} if payment_id else None,
    )


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(Problem, _on_problem)  # type: ignore[arg-type]  # Starlette knows only Exception
    app.add_exception_handler(errors.PaymentsError, _on_payments_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _on_validation_error)  # type: ignore[arg-type]
    app.add_exception_handler(StarletteHTTPException, _on_http_exception)  # type: ignore[arg-type]


def _answer(request: Request, problem: Problem) -> Response:
    return render(problem, path=request.scope["path"], correlation_id=request.scope["correlation_id"])


async def _on_problem(request: Request, problem: Problem) -> Response:
    return _answer(request, problem)


async def _on_payments_error(request: Request, error: errors.PaymentsError) -> Response:
    return _answer(request, as_problem(error))


async def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    """Names the places; never repeats the input, which may hold a card number."""
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        return _answer(request, Problem(Code.MALFORMED_REQUEST, "The body is not valid JSON."))
    if isinstance(error.body, bytes):  # FastAPI hands a body of another type on unread
        return _answer(request, Problem(Code.UNSUPPORTED_MEDIA_TYPE))
    problems = [_place(item) for item in found[:ERRORS_MAX]]
    return _answer(request, Problem(Code.VALIDATION_ERROR, errors=problems))


def _place(item: Mapping[str, Any]) -> dict[str, str]:
    """One wrong place, as a client knows it: pydantic's words for a wrong `type` of a method would repeat it."""
    if item["type"].startswith("union_tag_"):
        return {"pointer": _pointer((*item["loc"], "type")), "detail": f"must be one of {', '.join(MethodType)}"}
    return {"pointer": _pointer(item["loc"]), "detail": _reason(item["msg"])}


def _pointer(place: tuple[str | int, ...]) -> str:
    """The JSON pointer (RFC 6901) of a place; for what is not in the body it begins with where that is."""
    where, *rest = place
    if where != "body":
        rest = [where, *rest]
    elif len(rest) > 1 and rest[0] in tuple(MethodType):  # pydantic names the model that `type` chose
        rest = rest[1:]
    return "".join(f"/{_name(part).replace('~', '~0').replace('/', '~1')}" for part in rest)


def _name(part: str | int) -> str:
    """A member's name: short, and never a card number that somebody put there."""
    return hidden(str(part))[:NAME_CHARS_MAX].encode("utf-8", "replace").decode()


def _reason(message: str) -> str:
    reason = message.removeprefix("Value error, ").removeprefix("Input ")
    return reason.encode("utf-8", "replace").decode()


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    code = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED, 413: Code.BODY_TOO_LARGE}.get(
        error.status_code, Code.MALFORMED_REQUEST
    )
    headers = {"Allow": _allowed(request)} if code is Code.METHOD_NOT_ALLOWED else error.headers
    return _answer(request, Problem(code, headers=headers))


def _allowed(request: Request) -> str:
    """Every method of the address (RFC 9110, 10.2.1): the router tells those of its first route only."""
    routes = request.app.router.routes
    return ", ".join(
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    )
