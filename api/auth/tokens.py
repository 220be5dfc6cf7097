"""Access tokens (JWT, RFC 7519), verified with one pinned algorithm. Only a claim that was verified grants a role."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from time import time
from typing import Any

import jwt
from jwt import PyJWK
from jwt.types import Options

from api.auth.principal import ADMIN_ROLES, SERVICE_ROLE, Principal, Role
from api.bounded_cache import BoundedCache
from api.problems import Code, Problem
from shared.ids import USER_ID

# Verified tokens that a process remembers: verifying one costs a seventh of a request.
TOKENS_REMEMBERED_MAX = 10_000
_USER_ID = re.compile(USER_ID)


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """The content of a token whose signature was verified here.

    `has_role` is true if the token claims a role, even one that this service does not know: the tokens that the auth
    service issues to people claim none. `expires_at` is in Unix seconds.
    """

    principal: Principal
    has_role: bool
    expires_at: float


class SharedSecretVerifier:
    """Verifies tokens with the platform's shared secret, and remembers those it has verified until they expire."""

    def __init__(self, *, secret: str, algorithm: str) -> None:
        self._secret = secret
        self._algorithm = algorithm
        self._verified: BoundedCache[str, VerifiedToken] = BoundedCache(TOKENS_REMEMBERED_MAX)

    def verified(self, token: str) -> VerifiedToken:
        """Return the content of the token. Raises Problem (invalid_token), whose text never repeats the token."""
        known = self._verified.get(token)
        if known is not None and time() < known.expires_at:
            return known
        verified = verify_token(token, self._secret, self._algorithm)
        self._verified.remember(token, verified)
        return verified


def verify_token(token: str, key: str | PyJWK, algorithm: str) -> VerifiedToken:
    """Verify an access token, and return its content: `key` has signed it with `algorithm`, and it is valid now.

    Raises Problem (invalid_token).
    """
    claims = _claims(token, key=key, algorithms=[algorithm])
    return VerifiedToken(Principal(user_id_of(claims), _role(claims)), bool(_roles(claims)), float(claims["exp"]))


def expiry_of(token: str) -> float:
    """Return the expiry (Unix seconds) in a token whose signature the auth service has to verify.

    No other claim of the token may be trusted. Raises Problem (invalid_token) for a token that cannot be accepted
    whatever its signature: it is malformed, expired, not signed at all, or not an access token.
    """
    claims = _claims(token, options=UNSIGNED)
    try:
        if str(jwt.get_unverified_header(token).get("alg")).lower() == "none":
            raise invalid_token()
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise invalid_token() from error
    return float(claims["exp"])


def invalid_token(detail: str = "The token is not valid.") -> Problem:
    """Return a 401 (invalid_token). Its `detail` must not repeat the token or anything in it."""
    return Problem(Code.INVALID_TOKEN, detail)


# User ids may be numbers, also in `sub`. The tokens have no audience. The clock of the auth service may be ahead.
OPTIONS: Options = {
    "require": ["exp"],
    "verify_sub": False,
    "verify_jti": False,
    "verify_iat": False,
    "verify_aud": False,
    # `_claims` checks `nbf`: PyJWT's leeway would also let expired tokens pass.
    "verify_nbf": False,
}
UNSIGNED: Options = {**OPTIONS, "verify_signature": False, "verify_exp": True}
# Seconds that the clock of the issuer may be ahead of ours (RFC 7519, 4.1.5).
NOT_BEFORE_LEEWAY_S = 5


def _claims(
    token: str, *, key: str | PyJWK = "", algorithms: Sequence[str] = (), options: Options = OPTIONS
) -> dict[str, Any]:
    """Return the claims of an access token that is valid now. Raises Problem (invalid_token)."""
    try:
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=list(algorithms), options=options)
        is_valid = math.isfinite(float(claims["exp"])) and int(claims.get("nbf", 0)) <= time() + NOT_BEFORE_LEEWAY_S
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise invalid_token() from error
    if not is_valid:
        raise invalid_token()
    if claims.get("type", "access") != "access":
        raise invalid_token("This is not an access token.")
    return claims


def user_id_of(claims: dict[str, Any]) -> str:
    """Return the user id in the claims of a token, or in the answer of the auth service.

    Raises Problem (invalid_token) unless they name exactly one user, by a valid id.
    """
    named = {_as_text(claims[name]) for name in ("user_id", "sub") if claims.get(name) is not None}
    if len(named) != 1:
        raise invalid_token("The token must name one user, in user_id or sub.")
    user_id = named.pop()
    if not _USER_ID.fullmatch(user_id):
        raise invalid_token("The token's user is not valid.")
    return user_id


def _as_text(value: Any) -> str:
    is_name = isinstance(value, (int, str)) and not isinstance(value, bool)
    return str(value) if is_name else ""


def _role(claims: dict[str, Any]) -> Role:
    roles = _roles(claims)
    if roles & ADMIN_ROLES:
        return Role.ADMIN
    return Role.SERVICE if SERVICE_ROLE in roles else Role.USER


def _roles(claims: dict[str, Any]) -> set[str]:
    claimed = [claims.get("role"), *_listed(claims.get("roles"))]
    return {role for role in claimed if isinstance(role, str) and role}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
