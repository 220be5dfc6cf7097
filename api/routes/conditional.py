"""Conditional responses: the ETag of a payment, and 304 if the client has the current version (RFC 9110, 13)."""

from collections.abc import Mapping
from typing import Any

from fastapi.responses import Response

from api.problems import RETRY_AFTER_S
from api.responses import json_response
from api.routes.parameters import Wait
from shared.payments.payment import Payment


def etag_of(payment: Payment) -> str:
    """Return the ETag of the payment: its sequence, which grows by one with every entry in its history."""
    return f'"{payment.sequence}"'


def payment_headers(payment: Payment, wait: Wait | None) -> dict[str, str]:
    """Return the headers of every answer with a payment: its ETag, when to ask again, and what became of the wait."""
    headers = {"ETag": etag_of(payment)}
    if not payment.status.is_settled:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return headers | wait.headers(payment) if wait else headers


def conditional_response(
    payment: Payment, content: Mapping[str, Any], if_none_match: str | None, *, wait: Wait | None
) -> Response:
    """Return `content` with the ETag of `payment`, or 304 if `if_none_match` has it."""
    headers = {"Cache-Control": "private, no-cache"} | payment_headers(payment, wait)
    if if_none_match is not None and _matches(if_none_match, etag_of(payment)):
        return Response(status_code=304, headers=headers)
    return json_response(content, headers=headers)


def _matches(if_none_match: str, etag: str) -> bool:
    # Apache's mod_deflate sends `"3-gzip"` for the `"3"` that it has compressed.
    given = {candidate.strip(" \t").removeprefix("W/").replace('-gzip"', '"') for candidate in if_none_match.split(",")}
    return bool(given & {etag, "*"})
