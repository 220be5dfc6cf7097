"""Identifiers: UUIDv7 (RFC 9562), so that newer ids sort after older ones. They are names, never secrets."""

import secrets
from collections.abc import Callable
from uuid import UUID

from uuid_utils.compat import uuid7

new_id: Callable[[], UUID] = uuid7
"""A new UUIDv7; ids made by one process never sort out of order."""


def parse_id(text: str) -> UUID | None:
    """The id that `text` spells in the canonical 36-character form, or None: nothing else ever was an id of ours."""
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text.lower() else None


def new_secret_bytes() -> bytes:
    """32 bytes from the system's random source."""
    return secrets.token_bytes(32)
