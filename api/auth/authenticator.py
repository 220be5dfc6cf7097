"""Authentication of API keys, and of bearer tokens as AUTH_MODE says: by signature, by the auth service, or by both.

If the service that must check a token does not answer, the token is refused with 503. Roles come only from API keys
and from claims whose signature was verified here. An API key is never sent anywhere.
"""

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from api.auth.api_keys import ApiKeys
from api.auth.introspection import Introspection
from api.auth.jwks import PublicKeys
from api.auth.principal import Principal, Role
from api.auth.tokens import SharedSecretVerifier, VerifiedToken, expiry_of, invalid_token
from api.problems import RETRY_AFTER_S, Code, Problem
from shared.api_keys import API_KEY_PREFIX
from shared.config.security import AuthMode
from shared.config.settings import Settings
from shared.errors import DatabaseUnavailable, UpstreamUnavailable
from shared.upstream.breaker import Breaker
from shared.upstream.client import UpstreamClient

NOT_ACCEPTED = "The auth service does not accept the token."


class Authenticator:
    """Finds the principal of a bearer token or an API key. It calls `upstreams` only within `running`.

    API keys are looked up in `api_keys`, in every mode. Signatures are verified with `public_keys` if they are given,
    else with `shared_secret`. Every mode but `local` needs `introspection`.
    """

    def __init__(
        self,
        mode: AuthMode,
        shared_secret: SharedSecretVerifier,
        *,
        api_keys: ApiKeys,
        public_keys: PublicKeys | None = None,
        introspection: Introspection | None = None,
        upstreams: Sequence[UpstreamClient] = (),
    ) -> None:
        self._mode = mode
        self._shared_secret = shared_secret
        self._api_keys = api_keys
        self._public_keys = public_keys
        self._introspection = introspection
        self._upstreams = upstreams

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep connections to the upstream services open for the length of the block. Calls end with it."""
        async with AsyncExitStack() as stack:
            for upstream in self._upstreams:
                await stack.enter_async_context(upstream)
            for caller in (self._public_keys, self._introspection):
                if caller is not None:
                    stack.push_async_callback(caller.close)
            yield

    async def principal(self, token: str) -> Principal:
        """Return the principal of a token or an API key.

        Raises Problem: invalid_token, or unavailable if an upstream service or the database that has to check it does
        not answer.
        """
        try:
            if token.startswith(API_KEY_PREFIX):
                return await self._api_keys.principal(token)
            if self._introspection is None:
                return (await self._verified(token)).principal
            if self._mode == "remote":
                return await self._introspected(self._introspection, token)
            return await self._verified_and_introspected(self._introspection, token)
        except (UpstreamUnavailable, DatabaseUnavailable) as error:
            wait_s = max(RETRY_AFTER_S, math.ceil(getattr(error, "retry_after_s", 0)))
            raise Problem(
                Code.UNAVAILABLE,
                "The token or API key cannot be checked right now. Try again later.",
                headers={"Retry-After": str(wait_s)},
            ) from error

    async def _verified(self, token: str) -> VerifiedToken:
        if self._public_keys is None:
            return self._shared_secret.verified(token)
        return await self._public_keys.verified(token)

    async def _verified_and_introspected(self, introspection: Introspection, token: str) -> Principal:
        verified = await self._verified(token)
        # Tokens with a role belong to machines, and the auth service knows only people.
        if verified.has_role:
            return verified.principal
        user_id = await introspection.user_of(token, expires_at=verified.expires_at)
        if user_id != verified.principal.user_id:
            raise invalid_token(NOT_ACCEPTED)
        return verified.principal

    async def _introspected(self, introspection: Introspection, token: str) -> Principal:
        user_id = await introspection.user_of(token, expires_at=expiry_of(token))
        if user_id is None:
            raise invalid_token(NOT_ACCEPTED)
        return Principal(user_id, Role.USER)


def open_authenticator(settings: Settings, api_keys: ApiKeys) -> Authenticator:
    """Return the authenticator of these settings; connects to nothing yet."""
    mode = settings.effective_auth_mode
    upstreams: list[UpstreamClient] = []

    def upstream(name: str, url: str) -> UpstreamClient:
        client = UpstreamClient(
            name,
            url,
            timeout_s=settings.auth_timeout_s,
            connections_max=settings.auth_connections_max,
            breaker=Breaker(name, failures_max=settings.breaker_failures, open_s=settings.breaker_open_s),
        )
        upstreams.append(client)
        return client

    public_keys, introspection = None, None
    if settings.jwt_jwks_url is not None:
        public_keys = PublicKeys(upstream("jwks", settings.jwt_jwks_url), cache_s=settings.jwt_jwks_cache_s)
    if mode != "local" and settings.auth_service_url is not None:
        service = upstream("auth_service", settings.auth_service_url)
        introspection = Introspection(service, cache_s=settings.auth_cache_s)
    return Authenticator(
        mode,
        SharedSecretVerifier(secret=settings.jwt_secret_key.get_secret_value(), algorithm=settings.jwt_algorithm),
        api_keys=api_keys,
        public_keys=public_keys,
        introspection=introspection,
        upstreams=upstreams,
    )
