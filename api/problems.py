"""Problem documents (RFC 9457): the HTTP form of every error, with a stable `code`.

The status of each code is decided only here. Which error has which code: `api/problem_handlers.py`.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import quote

from fastapi.responses import Response

from api.responses import json_response
from shared.logs import redact

PROBLEM_TYPE = "application/problem+json"
# The least Retry-After of a 429 or 503, in seconds.
RETRY_AFTER_S = 1
# Why a payment method is refused; it continues a sentence that begins with the field.
UNUSABLE_METHOD = "must be an active payment method of the user that has not expired"


class Code(StrEnum):
    """The stable code of an error; a closed set."""

    MALFORMED_REQUEST = "malformed_request"
    INVALID_TOKEN = "invalid_token"  # noqa: S105 - the name of an error
    INVALID_SIGNATURE = "invalid_signature"
    FORBIDDEN = "forbidden"
    SIMULATION_DISABLED = "simulation_disabled"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    PAYMENT_IN_PROGRESS = "payment_in_progress"
    ORDER_ALREADY_PAID = "order_already_paid"
    PAYMENT_NOT_CANCELLABLE = "payment_not_cancellable"
    PAYMENT_NOT_CAPTURABLE = "payment_not_capturable"
    NO_ACTION_REQUIRED = "no_action_required"
    PAYMENT_NOT_REFUNDABLE = "payment_not_refundable"
    REFUND_EXCEEDS_BALANCE = "refund_exceeds_balance"
    REFUND_NOT_CANCELLABLE = "refund_not_cancellable"
    DELIVERY_IN_PROGRESS = "delivery_in_progress"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    VALIDATION_ERROR = "validation_error"
    PAYMENT_METHOD_UNUSABLE = "payment_method_unusable"
    PAYMENT_METHOD_LIMIT = "payment_method_limit"
    SIMULATION_RULE_LIMIT = "simulation_rule_limit"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    CALLBACK_URL_REFUSED = "callback_url_refused"
    RATE_LIMITED = "rate_limited"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL_ERROR = "internal_error"
    UNAVAILABLE = "unavailable"
    OVERLOADED = "overloaded"
    OUTCOME_UNKNOWN = "outcome_unknown"


class Kind(NamedTuple):
    """The HTTP status and the title of a code. The title is the same for every occurrence (RFC 9457, 3.1.3)."""

    status: int
    title: str


KINDS: dict[Code, Kind] = {
    Code.MALFORMED_REQUEST: Kind(400, "The request cannot be read"),
    Code.INVALID_TOKEN: Kind(401, "The bearer token is missing or not valid"),
    Code.INVALID_SIGNATURE: Kind(401, "The signature is missing, wrong, or too old"),
    Code.FORBIDDEN: Kind(403, "The role of this token may not do this"),
    Code.SIMULATION_DISABLED: Kind(403, "Simulation is off in this installation"),
    Code.NOT_FOUND: Kind(404, "There is no such resource, or you may not see it"),
    Code.METHOD_NOT_ALLOWED: Kind(405, "This path does not support the HTTP method"),
    Code.REQUEST_TIMEOUT: Kind(408, "The request did not arrive in time"),
    Code.PAYMENT_IN_PROGRESS: Kind(409, "The order has a payment in progress"),
    Code.ORDER_ALREADY_PAID: Kind(409, "The order is already paid"),
    Code.PAYMENT_NOT_CANCELLABLE: Kind(409, "The payment can no longer be cancelled"),
    Code.PAYMENT_NOT_CAPTURABLE: Kind(409, "The payment cannot be captured"),
    Code.NO_ACTION_REQUIRED: Kind(409, "The payment requires no action of its customer"),
    Code.PAYMENT_NOT_REFUNDABLE: Kind(409, "The payment cannot be refunded"),
    Code.REFUND_EXCEEDS_BALANCE: Kind(409, "The refund exceeds what can be refunded of the payment"),
    Code.REFUND_NOT_CANCELLABLE: Kind(409, "The refund can no longer be cancelled"),
    Code.DELIVERY_IN_PROGRESS: Kind(409, "The delivery is being sent right now"),
    Code.BODY_TOO_LARGE: Kind(413, "The body is too large"),
    Code.UNSUPPORTED_MEDIA_TYPE: Kind(415, "The body must be application/json in UTF-8, without a content coding"),
    Code.VALIDATION_ERROR: Kind(422, "The request has a value that is not allowed"),
    Code.PAYMENT_METHOD_UNUSABLE: Kind(422, "The payment method cannot be used"),
    Code.PAYMENT_METHOD_LIMIT: Kind(422, "The user already has the largest number of payment methods"),
    Code.SIMULATION_RULE_LIMIT: Kind(422, "The installation already has the largest number of rules"),
    Code.IDEMPOTENCY_KEY_REUSED: Kind(422, "The idempotency key was used for another request"),
    Code.CALLBACK_URL_REFUSED: Kind(422, "Webhooks cannot be sent to this URL"),
    Code.RATE_LIMITED: Kind(429, "Too many requests"),
    Code.HEADERS_TOO_LARGE: Kind(431, "The request line and the headers are too large"),
    Code.INTERNAL_ERROR: Kind(500, "An internal error occurred in the service"),
    Code.UNAVAILABLE: Kind(503, "The service, or one that it needs, is not available right now"),
    Code.OVERLOADED: Kind(503, "The service is overloaded"),
    Code.OUTCOME_UNKNOWN: Kind(
        503, "It is not known whether the request was done: repeat it with the same idempotency key"
    ),
}

# How the client of a 401 must authenticate (RFC 9110, 11.6.1).
CHALLENGES = {Code.INVALID_TOKEN: "Bearer", Code.INVALID_SIGNATURE: "Standard-Webhooks"}


class Problem(Exception):
    """An error that is answered with a problem document.

    `errors` are the wrong fields, each made by `fault`. `members` are extension members
    (RFC 9457, 3.2).
    """

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


def found_or_404[T](found: T | None, detail: str | None = None) -> T:
    """Return what was found. Raises Problem (404) if there is nothing."""
    if found is None:
        raise Problem(Code.NOT_FOUND, detail)
    return found


def fault(pointer: str, reason: str, *, name: str | None = None) -> dict[str, str]:
    """Return an entry of `errors`: the pointer, and the whole sentence of which `reason` is all but the field.

    `name` is that of the field, by default the last part of the pointer. The empty pointer is the whole body.
    """
    subject = f'"{name or pointer.rpartition("/")[2]}"' if pointer else "The body"
    return {"pointer": pointer, "detail": f"{subject} {reason.removesuffix('.')}."}


def invalid(pointer: str, reason: str) -> Problem:
    """Return a 422 that names one wrong field. `reason` continues a sentence that begins with the field."""
    return Problem(Code.VALIDATION_ERROR, errors=[fault(pointer, reason)])


def headers_of(problem: Problem) -> dict[str, str]:
    """Return the header fields of every answer with this problem, be it a document or a page."""
    headers = dict(problem.headers)
    if problem.code in CHALLENGES:
        headers["WWW-Authenticate"] = CHALLENGES[problem.code]
    if KINDS[problem.code].status in {429, 503}:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return headers


def render(problem: Problem, *, path: str, correlation_id: str) -> Response:
    """Return the response with the problem document."""
    kind = KINDS[problem.code]
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": kind.title,
        "status": kind.status,
        "code": problem.code.value,
        # The client chose the path, so it may contain anything, even a card number.
        "instance": quote(redact(path)),
        "correlation_id": correlation_id,
        **problem.members,
    }
    if problem.detail:
        body["detail"] = problem.detail
    if problem.errors:
        body["errors"] = list(problem.errors)
    return json_response(body, status=kind.status, headers=headers_of(problem), media_type=PROBLEM_TYPE)
