"""Identifiers and their forms. Our own are UUIDv7 (RFC 9562): newer ids sort after older ones. No id is a secret."""

import re
import secrets
from collections.abc import Callable
from uuid import UUID

from uuid_utils.compat import uuid7

UUID_VERSION = 7
# The id of a user, from the auth service or from a token: visible ASCII.
USER_ID = r"^[\x21-\x7e]{1,64}$"
# The id of an order of any shop. The order service numbers its orders: see `is_order_number`.
ORDER_ID = r"^[A-Za-z0-9._-]{1,64}$"
# An order id, or the beginning of some.
ORDER_IDS = r"^[A-Za-z0-9._-]{1,64}\*?$"
_ORDER_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
_ORDER_NUMBER_MAX = 2**63 - 1

new_id: Callable[[], UUID] = uuid7
"""Return a new UUIDv7. Ids that one process makes never sort out of order."""


def made_at_s(made_id: UUID) -> float | None:
    """Return when an id was made, in Unix seconds; None if it is no UUIDv7."""
    return (made_id.int >> 80) / 1000 if made_id.version == UUID_VERSION else None


def parse_id(text: str) -> UUID | None:
    """Return the id that `text` spells in the canonical form of 36 characters, in which we show every id; else None."""
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text.lower() else None


def new_secret_bytes() -> bytes:
    """Return 32 bytes from the random source of the system."""
    return secrets.token_bytes(32)


def is_order_number(order_id: str) -> bool:
    """Return whether an order id is one that the order service can have: a positive integer of 64 bits.

    Only its one decimal form counts: 7 and 007 would be two orders to us and one to the order service.
    """
    return _ORDER_NUMBER.fullmatch(order_id) is not None and int(order_id) <= _ORDER_NUMBER_MAX
