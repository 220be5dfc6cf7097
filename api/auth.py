"""Who is asking: bearer tokens (JWT, RFC 7519) verified here, with one pinned algorithm. Nothing else grants a role."""

import re
from dataclasses import dataclass
from enum import StrEnum
from time import time
from typing import Annotated, Any

import jwt
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import Code, Problem
from shared.payments.find import Visible

ADMIN_ROLES = frozenset({"admin", "payment_admin", "super_admin"})
SERVICE_ROLE = "service"
REMEMBERED_MAX = 10_000  # verifying costs a seventh of a request
USER_ID = re.compile(r"[\x21-\x7e]{1,64}")


class Role(StrEnum):
    """What somebody may do, from least to most."""

    USER = "user"
    SERVICE = "service"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody with a valid token."""

    user_id: str
    role: Role

    @property
    def actor(self) -> str:
        """How histories name them: `user:1`, `service:orders`, `admin:7`."""
        return f"{self.role}:{self.user_id}"

    @property
    def visible(self) -> Visible:
        """The payments they may see."""
        match self.role:
            case Role.USER:
                return Visible(user_id=self.user_id)
            case Role.SERVICE:
                return Visible(created_by=self.actor)
            case Role.ADMIN:
                return Visible()


class Authenticator:
    """Verifies tokens with the platform's shared secret, and remembers those it has verified until they expire."""

    def __init__(self, *, secret: str, algorithm: str) -> None:
        self._secret = secret
        self._algorithm = algorithm
        self._verified: dict[str, tuple[Principal, float]] = {}

    def principal(self, token: str) -> Principal:
        """Whose token it is. Raises Problem(invalid_token), which says no more than that it is not valid."""
        known = self._verified.get(token)
        if known is not None and time() < known[1]:
            return known[0]
        claims = self._claims(token)
        principal = Principal(_user_id(claims), _role(claims))
        if len(self._verified) >= REMEMBERED_MAX:
            self._verified.clear()
        self._verified[token] = principal, float(claims["exp"])
        return principal

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a valid access token. Raises Problem."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[self._algorithm],
                # User ids may be numbers, in `sub` too; no audience is set; the auth service's clock may be ahead.
                options={
                    "require": ["exp"],
                    "verify_sub": False,
                    "verify_jti": False,
                    "verify_iat": False,
                    "verify_aud": False,
                },
            )
        except (jwt.PyJWTError, ValueError, RecursionError, OverflowError) as error:
            raise Problem(Code.INVALID_TOKEN, "The token is not valid.") from error
        if claims.get("type", "access") != "access":
            raise Problem(Code.INVALID_TOKEN, "This is not an access token.")
        return claims


def _user_id(claims: dict[str, Any]) -> str:
    named = {_as_text(claims[name]) for name in ("user_id", "sub") if claims.get(name) is not None}
    if len(named) != 1:
        raise Problem(Code.INVALID_TOKEN, "The token must name one user, in user_id or sub.")
    user_id = named.pop()
    if not USER_ID.fullmatch(user_id):
        raise Problem(Code.INVALID_TOKEN, "The token's user is not valid.")
    return user_id


def _as_text(value: Any) -> str:
    is_name = isinstance(value, (int, str)) and not isinstance(value, bool)
    return str(value) if is_name else ""


def _role(claims: dict[str, Any]) -> Role:
    claimed = [claims.get("role"), *_listed(claims.get("roles"))]
    roles = {role for role in claimed if isinstance(role, str)}
    if roles & ADMIN_ROLES:
        return Role.ADMIN
    return Role.SERVICE if SERVICE_ROLE in roles else Role.USER


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


bearer = HTTPBearer(auto_error=False, description="An access token of the auth service, or of `payments token`.")


async def authenticated(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Principal:
    """The principal of a request; 401 without a valid token."""
    if credentials is None:
        raise Problem(Code.INVALID_TOKEN, "Send the token as: Authorization: Bearer <token>.")
    authenticator: Authenticator = request.app.state.authenticator
    return authenticator.principal(credentials.credentials)


async def privileged(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """The principal, if it is a service or an admin; 403 otherwise."""
    if principal.role == Role.USER:
        raise Problem(Code.FORBIDDEN, "This is for services and admins.")
    return principal


Authenticated = Annotated[Principal, Depends(authenticated)]
Privileged = Annotated[Principal, Depends(privileged)]
