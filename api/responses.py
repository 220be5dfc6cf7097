"""Answers as bytes: documents are built once and written by orjson, without a second pass through models."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi.responses import Response


def document(
    content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), status, headers, media_type)
