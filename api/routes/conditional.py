"""Conditional responses: the ETag of an object, and 304 if the client has the current version (RFC 9110, 13)."""

from collections.abc import Mapping
from typing import Any

from fastapi.responses import Response

from api.long_poll import Versioned
from api.problems import RETRY_AFTER_S
from api.responses import json_response
from api.routes.parameters import Wait, etag_of, is_current


def version_headers(found: Versioned, wait: Wait | None = None) -> dict[str, str]:
    """Return the headers of every answer with an object: its ETag, when to ask again, and what became of the wait."""
    headers = {"ETag": etag_of(found)}
    if not found.is_settled:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return headers | wait.headers(found) if wait else headers


def conditional_response(
    found: Versioned, content: Mapping[str, Any], if_none_match: str | None, *, wait: Wait | None
) -> Response:
    """Return `content` with the ETag of the object, or 304 if `if_none_match` has it."""
    headers = {"Cache-Control": "private, no-cache"} | version_headers(found, wait)
    if if_none_match is not None and is_current(if_none_match, found):
        return Response(status_code=304, headers=headers)
    return json_response(content, headers=headers)
