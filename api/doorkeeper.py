"""Who is let in, as AUTH_MODE says: by the signature, by the auth service's word, or by both.

Whoever cannot be asked lets nobody in. Roles come from claims whose signature was verified here, and from nowhere else.
"""

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from api.auth import Authenticator, Principal, Role, Verified, expiry_of, refusal
from api.errors import RETRY_AFTER_S, Code, Problem
from api.jwks import PublicKeys
from api.remote_auth import RemoteAuth
from shared.breaker import Breaker
from shared.config import Settings
from shared.errors import NeighbourUnreachable
from shared.neighbour import Neighbour


class Doorkeeper:
    """Turns a bearer token into a principal; asks its neighbours within `running` only."""

    def __init__(self, settings: Settings) -> None:
        self._mode = settings.effective_auth_mode
        self._secret = Authenticator(
            secret=settings.jwt_secret_key.get_secret_value(), algorithm=settings.jwt_algorithm
        )
        self._neighbours: list[Neighbour] = []
        self._public_keys: PublicKeys | None = None
        self._remote: RemoteAuth | None = None
        if settings.jwt_jwks_url is not None:
            service = self._neighbour("jwks", settings.jwt_jwks_url, settings)
            self._public_keys = PublicKeys(service, cache_s=settings.jwt_jwks_cache_s)
        if self._mode != "local" and settings.auth_service_url is not None:
            service = self._neighbour("auth_service", settings.auth_service_url, settings)
            self._remote = RemoteAuth(service, cache_s=settings.auth_cache_s)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep connections to the neighbours."""
        async with AsyncExitStack() as stack:
            for neighbour in self._neighbours:
                await stack.enter_async_context(neighbour)
            yield

    async def principal(self, token: str) -> Principal:
        """Whose token it is. Raises Problem: invalid_token, or unavailable where nobody could be asked."""
        try:
            if self._remote is None:
                return (await self._verified(token)).principal
            if self._mode == "remote":
                return await self._known_remotely(self._remote, token)
            return await self._known_here_and_there(self._remote, token)
        except NeighbourUnreachable as error:
            wait_s = max(RETRY_AFTER_S, math.ceil(error.retry_after_s))
            raise Problem(
                Code.UNAVAILABLE, "The token cannot be checked right now.", headers={"Retry-After": str(wait_s)}
            ) from error

    async def _verified(self, token: str) -> Verified:
        if self._public_keys is None:
            return self._secret.verified(token)
        return await self._public_keys.verified(token)

    async def _known_here_and_there(self, remote: RemoteAuth, token: str) -> Principal:
        verified = await self._verified(token)
        if verified.has_role:  # a machine's: the auth service knows people only
            return verified.principal
        user_id = await remote.user_of(token, expires_at=verified.expires_at)
        if user_id != verified.principal.user_id:
            raise refusal("The auth service does not accept the token.")
        return verified.principal

    async def _known_remotely(self, remote: RemoteAuth, token: str) -> Principal:
        user_id = await remote.user_of(token, expires_at=expiry_of(token))
        if user_id is None:
            raise refusal("The auth service does not accept the token.")
        return Principal(user_id, Role.USER)

    def _neighbour(self, name: str, url: str, settings: Settings) -> Neighbour:
        breaker = Breaker(name, failures_max=settings.breaker_failures, open_s=settings.breaker_open_s)
        neighbour = Neighbour(
            name,
            url,
            timeout_s=settings.auth_timeout_s,
            connections_max=settings.auth_connections_max,
            breaker=breaker,
        )
        self._neighbours.append(neighbour)
        return neighbour
