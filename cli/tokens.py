"""Access tokens as the auth service makes them, for trying things out."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import jwt

from shared.config.settings import Settings
from shared.ids import new_id


class TokenRole(StrEnum):
    """The roles that a token may claim. A token of a user claims none."""

    SERVICE = "service"
    ADMIN = "admin"
    PAYMENT_ADMIN = "payment_admin"
    SUPER_ADMIN = "super_admin"


def mint(settings: Settings, *, user: str, role: str | None, hours: float) -> str:
    """Return an access token for `user` that is valid for `hours` and signed with JWT_SECRET_KEY."""
    now = datetime.now(UTC)
    claims: dict[str, Any] = {
        "user_id": int(user) if user.isdecimal() else user,
        "type": "access",
        "iat": now,
        "exp": now + timedelta(hours=hours),
        "jti": str(new_id()),
    }
    if role is not None:
        claims["role"] = role
    return jwt.encode(claims, settings.jwt_secret_key.get_secret_value(), settings.jwt_algorithm)
