"""Who is asking: bearer tokens (JWT, RFC 7519) verified here, with one pinned algorithm. Nothing else grants a role."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import time
from typing import Annotated, Any, Protocol

import jwt
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from jwt import PyJWK
from jwt.types import Options

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


@dataclass(frozen=True, slots=True)
class Verified:
    """What a token says whose signature was verified here."""

    principal: Principal
    has_role: bool  # it claims one, known to us or not: people's tokens of the auth service have none
    expires_at: float  # unix seconds


class Authenticator:
    """Verifies tokens with the platform's shared secret, and remembers those it has verified until they expire."""

    def __init__(self, *, secret: str, algorithm: str) -> None:
        self._secret = secret
        self._algorithm = algorithm
        self._verified: dict[str, Verified] = {}

    def principal(self, token: str) -> Principal:
        """Whose token it is. Raises Problem(invalid_token), which says no more than that it is not valid."""
        return self.verified(token).principal

    def verified(self, token: str) -> Verified:
        """What the token says. Raises like `principal`."""
        known = self._verified.get(token)
        if known is not None and time() < known.expires_at:
            return known
        verified = read(token, self._secret, self._algorithm)
        if len(self._verified) >= REMEMBERED_MAX:
            self._verified.clear()
        self._verified[token] = verified
        return verified


def read(token: str, key: str | PyJWK, algorithm: str) -> Verified:
    """What an access token says that `key` has signed with `algorithm` and that is valid now. Raises Problem."""
    claims = _claims(token, key=key, algorithms=[algorithm])
    return Verified(Principal(user_id_of(claims), _role(claims)), bool(_roles(claims)), float(claims["exp"]))


def expiry_of(token: str) -> float:
    """When a token ends that somebody else has to verify; unix seconds. Raises Problem if nobody could accept it.

    Nothing else that it claims may be believed.
    """
    claims = _claims(token, options=UNSIGNED)
    try:
        if str(jwt.get_unverified_header(token).get("alg")).lower() == "none":
            raise refusal("The token is not valid.")
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise refusal("The token is not valid.") from error
    return float(claims["exp"])


def refusal(detail: str) -> Problem:
    """A 401 that says no more than it must."""
    return Problem(Code.INVALID_TOKEN, detail)


# User ids may be numbers, in `sub` too; no audience is set; the auth service's clock may be ahead.
OPTIONS: Options = {
    "require": ["exp"],
    "verify_sub": False,
    "verify_jti": False,
    "verify_iat": False,
    "verify_aud": False,
}
UNSIGNED: Options = {**OPTIONS, "verify_signature": False, "verify_exp": True, "verify_nbf": True}


def _claims(
    token: str, *, key: str | PyJWK = "", algorithms: Sequence[str] = (), options: Options = OPTIONS
) -> dict[str, Any]:
    """The claims of an access token that is valid now. Raises Problem."""
    try:
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=list(algorithms), options=options)
        is_finite = math.isfinite(float(claims["exp"]))
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise refusal("The token is not valid.") from error
    if not is_finite:
        raise refusal("The token is not valid.")
    if claims.get("type", "access") != "access":
        raise refusal("This is not an access token.")
    return claims


def user_id_of(claims: dict[str, Any]) -> str:
    """The user that claims name, or an answer of the auth service. Raises Problem if that is not exactly one."""
    named = {_as_text(claims[name]) for name in ("user_id", "sub") if claims.get(name) is not None}
    if len(named) != 1:
        raise refusal("The token must name one user, in user_id or sub.")
    user_id = named.pop()
    if not USER_ID.fullmatch(user_id):
        raise refusal("The token's user is not valid.")
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


class Door(Protocol):
    """Whoever decides about a token; `api.doorkeeper` has the one there is."""

    async def principal(self, token: str) -> Principal:
        """Whose token it is. Raises Problem."""
        ...


type Verdict = Principal | Problem

VERDICT = "payments.verdict"  # where a request's scope has it


async def decide(door: Door, token: str) -> Verdict:
    """Whose token it is, or why nobody's."""
    try:
        return await door.principal(token)
    except Problem as problem:
        return problem


class Bearer(HTTPBearer):
    """The scheme that the description names, and the dependency that answers with the principal, in one."""

    async def __call__(self, request: Request) -> Principal:  # type: ignore[override]  # what it is a dependency for
        """The principal of a request; 401 without a valid token."""
        credentials = await super().__call__(request)
        if credentials is None:
            raise refusal("Send the token as: Authorization: Bearer <token>.")
        verdict: Verdict | None = request.scope.get(VERDICT)  # of who had to know before: nobody is asked twice
        if verdict is None:
            verdict = await decide(request.app.state.doorkeeper, credentials.credentials)
        if isinstance(verdict, Problem):
            raise verdict
        return verdict


authenticated = Bearer(
    auto_error=False,
    scheme_name="HTTPBearer",
    description="An access token of the auth service, or of `payments token`.",
)


async def privileged(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """The principal, if it is a service or an admin; 403 otherwise."""
    if principal.role == Role.USER:
        raise Problem(Code.FORBIDDEN, "This is for services and admins.")
    return principal


async def administrative(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """The principal, if it is an admin; 403 otherwise."""
    if principal.role != Role.ADMIN:
        raise Problem(Code.FORBIDDEN, "This is for admins.")
    return principal


Authenticated = Annotated[Principal, Depends(authenticated)]
Privileged = Annotated[Principal, Depends(privileged)]
Administrative = Annotated[Principal, Depends(administrative)]
