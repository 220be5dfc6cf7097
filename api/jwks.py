"""The public keys at JWT_JWKS_URL (JWK Set, RFC 7517), and tokens verified with them.

Only asymmetric algorithms, each key with its own: a public key is never taken for a shared secret.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from time import time

import jwt
import structlog
from jwt import PyJWK, PyJWKSet

from api.auth import REMEMBERED_MAX, Verified, read, refusal
from shared.errors import NeighbourUnreachable
from shared.neighbour import Neighbour, parsed

log = structlog.get_logger(__name__)

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
LOOK_AGAIN_S = 5.0  # between two looks for a key that is not there: tokens with made-up keys cost one in five seconds
STALE_FACTOR = 12  # how many times their age keys are used on while nobody answers at JWT_JWKS_URL


class PublicKeys:
    """Keys that are looked up again after `cache_s` seconds, and when a token names one that is not among them."""

    def __init__(self, service: Neighbour, *, cache_s: float, clock: Callable[[], float] = time) -> None:
        self._service = service
        self._cache_s = cache_s
        self._clock = clock
        self._keys: dict[str | None, PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._has_failed = False  # the last time it was tried
        self._one_at_a_time = asyncio.Lock()
        self._verified: dict[str, tuple[Verified, float]] = {}

    async def verified(self, token: str) -> Verified:
        """Whose token it is. Raises Problem(invalid_token), or NeighbourUnreachable if there are no keys to tell."""
        known = self._verified.get(token)
        if known is not None and self._clock() < known[1]:
            return known[0]
        key = await self._key_for(token)
        verified = read(token, key, key.algorithm_name)
        if len(self._verified) >= REMEMBERED_MAX:
            self._verified.clear()
        # A key that is withdrawn must not live on in what it has signed.
        self._verified[token] = verified, min(verified.expires_at, self._fetched_at + self._cache_s)
        return verified

    async def _key_for(self, token: str) -> PyJWK:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise refusal("The token is not valid.") from error
        key_id = header.get("kid")
        if header.get("alg") not in ALGORITHMS:
            raise refusal("The token is not valid.")
        await self._refresh(key_id)
        if self._clock() - self._fetched_at > self._cache_s * STALE_FACTOR:
            raise NeighbourUnreachable("there are no public keys that are new enough")
        key = self._find(key_id)
        if key is not None:
            return key
        if self._has_failed:
            raise NeighbourUnreachable("the public keys cannot be looked up")
        raise refusal("The token is not valid.")

    def _find(self, key_id: str | None) -> PyJWK | None:
        """The key of that name; without a name the only one there is."""
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _refresh(self, key_id: str | None) -> None:
        """Look the keys up if they are old or the wanted one is missing; without an answer the old ones stay."""
        if not self._wants_refresh(key_id):
            return
        began = self._clock()
        async with self._one_at_a_time:
            if self._tried_at >= began:  # somebody has looked while we waited
                return
            try:
                self._keys = await self._fetch()
            except NeighbourUnreachable as error:
                self._has_failed = True
                log.warning("jwks.unreachable", error=str(error))
            else:
                self._has_failed = False
                self._fetched_at = self._clock()
            self._tried_at = self._clock()

    def _wants_refresh(self, key_id: str | None) -> bool:
        now = self._clock()
        is_wanting = now - self._fetched_at >= self._cache_s or self._find(key_id) is None
        return is_wanting and (not self._keys or now - self._tried_at >= min(LOOK_AGAIN_S, self._cache_s))

    async def _fetch(self) -> dict[str | None, PyJWK]:
        reply = await self._service.ask("GET", "")
        said = parsed(reply.body) if reply.status == HTTPStatus.OK else None
        try:
            keys = PyJWKSet.from_dict(said).keys if isinstance(said, dict) else []
        except jwt.PyJWTError as error:
            log.warning("jwks.unusable", error=type(error).__name__)
            keys = []
        usable = {key.key_id: key for key in keys if _is_usable(key)}
        if not usable:
            raise NeighbourUnreachable("there are no usable keys at JWT_JWKS_URL")
        return usable


def _is_usable(key: PyJWK) -> bool:
    return key.algorithm_name in ALGORITHMS and key.public_key_use in {None, "sig"}
