"""Token introspection: asks the auth service which user has a token, and keeps the answer for some seconds.

If the auth service does not answer, that is an error and never a refusal. Roles are never taken from its answer.
"""

from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from time import time
from typing import NamedTuple

import structlog

from api.auth.tokens import TOKENS_REMEMBERED_MAX, user_id_of
from api.bounded_cache import BoundedCache
from api.single_flight import SingleFlight
from shared.errors import UpstreamUnavailable
from shared.upstream.client import Reply, UpstreamClient, parse_json

log = structlog.get_logger(__name__)

REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class IntrospectionResult(NamedTuple):
    """The answer of the auth service about a token, and until when (Unix seconds) it is reused."""

    # None: the auth service refuses the token.
    user_id: str | None
    until: float


class Introspection:
    """Asks the auth service about tokens. It keeps a result for up to `cache_s` seconds, never past the token's expiry.

    Callers that ask about the same token at the same time share one call (single flight).
    """

    def __init__(self, service: UpstreamClient, *, cache_s: float, clock: Callable[[], float] = time) -> None:
        self._service = service
        self._cache_s = cache_s
        self._clock = clock
        # The keys are hashes of tokens: no token stays in memory, and the size is bounded however long tokens are.
        self._results: BoundedCache[bytes, IntrospectionResult] = BoundedCache(TOKENS_REMEMBERED_MAX)
        self._flight: SingleFlight[bytes, str | None] = SingleFlight()

    async def user_of(self, token: str, *, expires_at: float) -> str | None:
        """Return the id of the user whose access token this is; None if the auth service refuses the token.

        `expires_at` is the token's expiry in Unix seconds. Raises UpstreamUnavailable if there is no usable answer,
        Problem (invalid_token) if the answer does not name exactly one user.
        """
        key = sha256(token.encode()).digest()
        known = self._results.get(key)
        if known is not None and self._clock() < known.until:
            return known.user_id
        return await self._flight.do(key, lambda: self._ask(key, token, expires_at))

    async def close(self) -> None:
        """Cancel the calls that still run, and return when they have ended."""
        await self._flight.close()

    async def _ask(self, key: bytes, token: str, expires_at: float) -> str | None:
        asked_at = self._clock()
        correlation_id = structlog.contextvars.get_contextvars().get("correlation_id")
        reply = await self._service.ask("GET", "/auth/verify", token=token, correlation_id=correlation_id)
        user_id = None if reply.status in REFUSALS else _verified_user(reply)
        self._results.remember(key, IntrospectionResult(user_id, min(asked_at + self._cache_s, expires_at)))
        return user_id


def _verified_user(reply: Reply) -> str | None:
    """Return the user that a 200 names; None if it says that the token is not valid.

    Raises UpstreamUnavailable for every other answer.
    """
    answer = parse_json(reply.body) if reply.status == HTTPStatus.OK else None
    if not isinstance(answer, dict) or not isinstance(answer.get("valid"), bool):
        log.warning("auth.unexpected_response", status=reply.status)
        raise UpstreamUnavailable("The auth service gave an answer that is not understood.")
    return user_id_of({"user_id": answer.get("user_id")}) if answer["valid"] else None
