"""Verification of tokens with the public keys at JWT_JWKS_URL (JWK Set, RFC 7517).

Only asymmetric algorithms are accepted, each key only with its own: a public key is never used as a shared secret.
"""

import contextlib
from collections.abc import Callable
from http import HTTPStatus
from time import time

import jwt
import structlog
from jwt import PyJWK, PyJWKSet

from api.auth.tokens import TOKENS_REMEMBERED_MAX, VerifiedToken, invalid_token, verify_token
from api.bounded_cache import BoundedCache
from api.problems import Problem
from api.single_flight import SingleFlight
from shared.errors import UpstreamUnavailable
from shared.upstream.client import UpstreamClient, parse_json

log = structlog.get_logger(__name__)

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
# Key ids that are remembered as missing.
MISSING_REMEMBERED_MAX = 1000
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
        self._keys: list[PyJWK] = []
        # Key ids that tokens named and that the last fetches did not find.
        self._missing: BoundedCache[str | None, None] = BoundedCache(MISSING_REMEMBERED_MAX)
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
        verified = _verify_with_any(token, await self._keys_for(token))
        # The tokens that a key has signed must not stay valid for longer than the key.
        self._verified.remember(token, (verified, min(verified.expires_at, self._fetched_at + self._cache_s)))
        return verified

    async def close(self) -> None:
        """Cancel a fetch that still runs, and return when it has ended."""
        await self._flight.close()

    async def _keys_for(self, token: str) -> list[PyJWK]:
        """Return the keys that may have signed the token, at least one."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise invalid_token() from error
        key_id, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in ALGORITHMS or not isinstance(key_id, str | None):
            raise invalid_token()
        await self._refresh(key_id)
        if self._clock() - self._fetched_at > self._cache_s * STALE_FACTOR:
            raise UpstreamUnavailable("The public keys are too old and cannot be fetched again.")
        keys = [key for key in self._find(key_id) if key.algorithm_name == algorithm]
        if keys:
            return keys
        if self._last_fetch_failed:
            raise UpstreamUnavailable("The public keys cannot be fetched.")
        if not self._find(key_id) and key_id not in self._missing:
            # The key may be new. Its token must not be refused before the keys may be fetched again.
            raise UpstreamUnavailable("The public keys have been fetched a moment ago, without the key of this token.")
        raise invalid_token()

    def _find(self, key_id: str | None) -> list[PyJWK]:
        """Return the keys with this id; all keys for a token that names none."""
        return [key for key in self._keys if key_id is None or key.key_id == key_id]

    async def _refresh(self, key_id: str | None) -> None:
        """Fetch the keys if they are old or the wanted one is missing. If the fetch fails, the old keys stay."""
        if self._wants_refresh(key_id):
            await self._flight.do(None, self._replace_keys)
            if not self._find(key_id):
                self._missing.remember(key_id, None)

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
        is_due = now - self._fetched_at >= self._cache_s or not self._find(key_id)
        return is_due and (not self._keys or now - self._tried_at >= min(MISSING_KEY_REFETCH_S, self._cache_s))

    async def _fetch(self) -> list[PyJWK]:
        reply = await self._service.ask("GET", "")
        document = parse_json(reply.body) if reply.status == HTTPStatus.OK else None
        try:
            keys = PyJWKSet.from_dict(document).keys if isinstance(document, dict) else []
        except jwt.PyJWTError as error:
            log.warning("jwks.unusable", error=type(error).__name__)
            keys = []
        usable = [key for key in keys if _is_usable(key)]
        if not usable:
            raise UpstreamUnavailable("There are no usable keys at JWT_JWKS_URL.")
        return usable


def _verify_with_any(token: str, keys: list[PyJWK]) -> VerifiedToken:
    """Return the content of a token that one of the keys has signed. Raises Problem (invalid_token).

    Key sets exist whose keys have no id, or share one (RFC 7517, 4.5).
    """
    for key in keys[:-1]:
        with contextlib.suppress(Problem):
            return verify_token(token, key, key.algorithm_name)
    return verify_token(token, keys[-1], keys[-1].algorithm_name)


def _is_usable(key: PyJWK) -> bool:
    return key.algorithm_name in ALGORITHMS and key.public_key_use in {None, "sig"}
