"""The dependencies of routes that need a principal. They share one authentication per request with the rate limits."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import Scope

from api.auth.authenticator import Authenticator
from api.auth.principal import Principal, Role
from api.auth.tokens import invalid_token
from api.problems import Code, Problem

type AuthResult = Principal | Problem

# The key of the result in the ASGI scope, so that rate limits and route verify the token of a request only once.
_RESULT = "payments.auth_result"


async def authenticate(scope: Scope, authenticator: Authenticator) -> AuthResult:
    """Return the principal of a request, or the problem with its token. The token of a request is verified once."""
    if _RESULT not in scope:
        scope[_RESULT] = await _authenticate(scope, authenticator)
    result: AuthResult = scope[_RESULT]
    return result


def authenticated_scope(scope: Scope, principal: Principal) -> Scope:
    """Return the scope of a request whose principal is known already, whatever its headers say."""
    return {**scope, _RESULT: principal}


def has_bearer_token(scope: Scope) -> bool:
    """Return whether a request has a bearer token, valid or not."""
    return _bearer_token(scope) is not None


def api_key_id_of(scope: Scope) -> UUID | None:
    """Return the id of the API key with which a request was authenticated; None if it was not, or with a token."""
    result = scope.get(_RESULT)
    return result.api_key_id if isinstance(result, Principal) else None


async def _authenticate(scope: Scope, authenticator: Authenticator) -> AuthResult:
    token = _bearer_token(scope)
    if token is None:
        return invalid_token("Send the token or API key as: Authorization: Bearer <token>.")
    try:
        return await authenticator.principal(token)
    except Problem as problem:
        return problem


def _bearer_token(scope: Scope) -> str | None:
    values = Headers(scope=scope).getlist("authorization")
    # Two lines may name two users. No proxy and no log would know which of them is meant.
    scheme, token = get_authorization_scheme_param(values[0] if len(values) == 1 else None)
    return token if scheme.lower() == "bearer" and token else None


class Bearer(HTTPBearer):
    """The security scheme of the OpenAPI document, and the dependency that returns the principal of a request."""

    async def __call__(self, request: Request) -> Principal:  # type: ignore[override]  # it returns the principal
        """Return the principal of a request. Raises Problem, 401 without a valid token."""
        result = await authenticate(request.scope, request.app.state.api.authenticator)
        if isinstance(result, Problem):
            raise result
        return result


authenticated = Bearer(
    auto_error=False,
    scheme_name="HTTPBearer",
    description="An access token (a JWT from the auth service or `payments token`), or the API key of a service or an "
    "admin (`sk_sim_` and 43 more characters, from `POST /api-keys` or `payments keys create`).",
)


async def privileged(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """Return the principal if it is a service or an admin. Raises Problem (403) otherwise."""
    if principal.role == Role.USER:
        raise Problem(Code.FORBIDDEN, "Only services and admins may do this.")
    return principal


async def administrative(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
    """Return the principal if it is an admin. Raises Problem (403) otherwise."""
    if principal.role != Role.ADMIN:
        raise Problem(Code.FORBIDDEN, "Only admins may do this.")
    return principal


Authenticated = Annotated[Principal, Depends(authenticated)]
Privileged = Annotated[Principal, Depends(privileged)]
Administrative = Annotated[Principal, Depends(administrative)]
