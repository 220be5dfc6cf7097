"""JSON responses that orjson writes at once, without a second pass through pydantic models."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi.responses import Response


def json_response(
    content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    """Return a response with `content` as its JSON body."""
    return Response(orjson.dumps(content), status, headers, media_type)
