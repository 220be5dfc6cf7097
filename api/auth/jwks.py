"""Verification of tokens with the public keys at JWT_JWKS_URL (JWK Set, RFC 7517).

Only asymmetric algorithms are accepted, each key only with its own: a public key is never used as a shared secret.
"""

from collections.abc import Callable
from http import HTTPStatus
from time import time

import jwt
import structlog
from jwt import PyJWK, PyJWKSet

from api.auth.tokens import TOKENS_REMEMBERED_MAX, VerifiedToken, invalid_token, verify_token
from api.bounded_cache import BoundedCache
from api.single_flight import SingleFlight
from shared.errors import UpstreamUnavailable
from shared.upstream.client import UpstreamClient, parse_json

log = structlog.get_logger(__name__)

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
# Seconds between two fetches for a key that is missing: tokens that name made-up keys cause no more than that.
MISSING_KEY_REFETCH_S = 5.0
# While JWT_JWKS_URL does not answer, keys are used until they are this many times `cache_s` old.
STALE_FACTOR = 12


class PublicKeys:
    """The public keys. They are fetched again after `cache_s` seconds, and when a token names a key that is missing."""

    def __init__(self, service: UpstreamClient, *, cache_s: float, clock: Callable[[], float] = time) -> None:
        self._service = service
        self._cache_s = cache_s
        self._clock = clock
        self._keys: dict[str | None, PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._last_fetch_failed = False
        self._flight: SingleFlight[None, None] = SingleFlight()
        # The content of each token, and until when (Unix seconds) it is reused.
        self._verified: BoundedCache[str, tuple[VerifiedToken, float]] = BoundedCache(TOKENS_REMEMBERED_MAX)

    async def verified(self, token: str) -> VerifiedToken:
        """Return the content of a token.

        Raises Problem (invalid_token), or UpstreamUnavailable if the keys that are needed cannot be fetched.
        """
        known = self._verified.get(token)
        if known is not None and self._clock() < known[1]:
            return known[0]
        key = await self._key_for(token)
        verified = verify_token(token, key, key.algorithm_name)
        # The tokens that a key has signed must not stay valid for longer than the key.
        self._verified.remember(token, (verified, min(verified.expires_at, self._fetched_at + self._cache_s)))
        return verified

    async def close(self) -> None:
        """Cancel a fetch that still runs, and return when it has ended."""
        await self._flight.close()

    async def _key_for(self, token: str) -> PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise invalid_token() from error
        key_id = header.get("kid")
        if header.get("alg") not in ALGORITHMS:
            raise invalid_token()
        await self._refresh(key_id)
        if self._clock() - self._fetched_at > self._cache_s * STALE_FACTOR:
            raise UpstreamUnavailable("The public keys are too old and cannot be fetched again.")
        key = self._find(key_id)
        if key is not None:
            return key
        if self._last_fetch_failed:
            raise UpstreamUnavailable("The public keys cannot be fetched.")
        raise invalid_token()

    def _find(self, key_id: str | None) -> PyJWK | None:
        """Return the key with this id; without an id, the only key if there is just one."""
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _refresh(self, key_id: str | None) -> None:
        """Fetch the keys if they are old or the wanted one is missing. If the fetch fails, the old keys stay."""
        if self._wants_refresh(key_id):
            await self._flight.do(None, self._replace_keys)

    async def _replace_keys(self) -> None:
        try:
            self._keys = await self._fetch()
        except UpstreamUnavailable as error:
            self._last_fetch_failed = True
            log.warning("jwks.unreachable", error=str(error))
        else:
            self._last_fetch_failed = False
            self._fetched_at = self._clock()
        self._tried_at = self._clock()

    def _wants_refresh(self, key_id: str | None) -> bool:
        now = self._clock()
        is_due = now - self._fetched_at >= self._cache_s or self._find(key_id) is None
        return is_due and (not self._keys or now - self._tried_at >= min(MISSING_KEY_REFETCH_S, self._cache_s))

    async def _fetch(self) -> dict[str | None, PyJWK]:
        reply = await self._service.ask("GET", "")
        document = parse_json(reply.body) if reply.status == HTTPStatus.OK else None
        try:
            keys = PyJWKSet.from_dict(document).keys if isinstance(document, dict) else []
        except jwt.PyJWTError as error:
            log.warning("jwks.unusable", error=type(error).__name__)
            keys = []
        usable = {key.key_id: key for key in keys if _is_usable(key)}
        if not usable:
            raise UpstreamUnavailable("There are no usable keys at JWT_JWKS_URL.")
        return usable


def _is_usable(key: PyJWK) -> bool:
    return key.algorithm_name in ALGORITHMS and key.public_key_use in {None, "sig"}
