"""The problem document of every error that an operation raises: our own, and those of validation and routing."""

from typing import Any

import structlog
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.faults import problem_of
from api.paths import shown_path
from api.problems import UNUSABLE_METHOD, Code, Problem, fault, render
from shared import errors

log = structlog.get_logger(__name__)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Wrong fields named in one answer: a body of 64 KiB has room for thousands.
ERRORS_MAX = 50

CODES: dict[type[errors.PaymentsError], Code] = {
    errors.PaymentInProgress: Code.PAYMENT_IN_PROGRESS,
    errors.OrderAlreadyPaid: Code.ORDER_ALREADY_PAID,
    errors.PaymentMethodUnusable: Code.PAYMENT_METHOD_UNUSABLE,
    errors.CaptureMethodUnusable: Code.VALIDATION_ERROR,
    errors.OlderWorkers: Code.UNAVAILABLE,
    errors.PaymentMethodLimit: Code.PAYMENT_METHOD_LIMIT,
    errors.SimulationRuleLimit: Code.SIMULATION_RULE_LIMIT,
    errors.IdempotencyKeyReused: Code.IDEMPOTENCY_KEY_REUSED,
    errors.UrlRefused: Code.CALLBACK_URL_REFUSED,
    errors.PaymentNotCancellable: Code.PAYMENT_NOT_CANCELLABLE,
    errors.PaymentNotCapturable: Code.PAYMENT_NOT_CAPTURABLE,
    errors.NoActionRequired: Code.NO_ACTION_REQUIRED,
    errors.PaymentNotRefundable: Code.PAYMENT_NOT_REFUNDABLE,
    errors.RefundExceedsBalance: Code.REFUND_EXCEEDS_BALANCE,
    errors.RefundNotCancellable: Code.REFUND_NOT_CANCELLABLE,
    errors.DeliveryInProgress: Code.DELIVERY_IN_PROGRESS,
    errors.EndpointDisabled: Code.VALIDATION_ERROR,
    errors.EndpointDeleted: Code.VALIDATION_ERROR,
    errors.ValueRefused: Code.VALIDATION_ERROR,
    errors.Overloaded: Code.OVERLOADED,
    errors.DatabaseUnavailable: Code.UNAVAILABLE,
    errors.WriteConflict: Code.UNAVAILABLE,
    errors.DatabaseRefused: Code.UNAVAILABLE,
    errors.StatementFailed: Code.UNAVAILABLE,
    errors.CommitUnknown: Code.OUTCOME_UNKNOWN,
    errors.UpstreamUnavailable: Code.UNAVAILABLE,
    errors.BrokerUnavailable: Code.UNAVAILABLE,
}
# The wrong field of a refusal, and what continues the sentence that begins with it.
POINTERS: dict[type[errors.PaymentsError], tuple[str, str]] = {
    errors.PaymentMethodUnusable: ("/payment_method_id", UNUSABLE_METHOD),
    errors.CaptureMethodUnusable: ("/capture_method", "must be automatic for a debit card"),
    errors.IdempotencyKeyReused: ("/header/Idempotency-Key", "must not have been used for another request"),
}


def as_problem(error: errors.PaymentsError) -> Problem:
    """Return the problem that a client gets for one of our errors: of a refusal its text, of all others only a code."""
    code = CODES.get(type(error))
    if code is None:
        log.error("http.unexpected_error", exc_info=error)
        return Problem(Code.INTERNAL_ERROR)
    detail = str(error) if isinstance(error, errors.Refused) else None
    field = POINTERS.get(type(error))
    return Problem(code, detail, errors=[fault(*field)] if field else (), members=_members(error))


def _members(error: errors.PaymentsError) -> dict[str, Any]:
    """Return the members that some problem documents have beside the usual ones."""
    match error:
        case errors.PaymentInProgress() | errors.OrderAlreadyPaid() if error.payment_id:
            return {"payment_id": str(error.payment_id)}
        case errors.RefundExceedsBalance():
            return {"refundable_amount": error.refundable_amount}
        case _:
            return {}


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(Problem, _on_problem)  # type: ignore[arg-type]  # Starlette knows only Exception
    app.add_exception_handler(errors.PaymentsError, _on_payments_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _on_validation_error)  # type: ignore[arg-type]
    app.add_exception_handler(StarletteHTTPException, _on_http_exception)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


def _answer(request: Request, problem: Problem) -> Response:
    return render(problem, path=shown_path(request.scope), correlation_id=request.scope["correlation_id"])


async def _on_problem(request: Request, problem: Problem) -> Response:
    return _answer(request, problem)


async def _on_payments_error(request: Request, error: errors.PaymentsError) -> Response:
    return _answer(request, as_problem(error))


async def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    return _answer(request, problem_of(error.errors()[:ERRORS_MAX]))


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    code = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}.get(error.status_code, Code.MALFORMED_REQUEST)
    headers = {"Allow": _allowed(request)} if code is Code.METHOD_NOT_ALLOWED else error.headers
    return _answer(request, Problem(code, headers=headers))


async def _on_disconnect(request: Request, _error: Exception) -> Response:
    # The client has gone before its body was read: nothing was done, and nobody reads the answer.
    return _answer(request, Problem(Code.MALFORMED_REQUEST))


def _allowed(request: Request) -> str:
    """Return every method of the path (RFC 9110, 10.2.1). The router names only those of its first matching route."""
    routes = request.app.router.routes
    methods = [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    # A HEAD is answered wherever a GET is.
    return ", ".join(methods).replace("GET", "GET, HEAD")
