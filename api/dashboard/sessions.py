"""Sessions of the dashboard: who is signed in, kept in Redis, which may forget it. No token is kept anywhere.

A session is found by the hash of what its cookie says, and what Redis keeps of it has a MAC. So whoever reads Redis
cannot take one over, and whoever writes there cannot make one.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time

import structlog
from pydantic import TypeAdapter
from redis.asyncio.client import Pipeline

from api.auth.api_keys import ApiKeys
from api.auth.authenticator import Authenticator
from api.auth.principal import Principal, Role
from api.auth.tokens import expiry_of
from api.problems import Problem
from shared.api_keys import API_KEY_PREFIX
from shared.broker.client import Broker
from shared.broker.stored import read_stored
from shared.errors import PaymentsError
from shared.keyring import Keyring

log = structlog.get_logger(__name__)

SESSION_S = 12 * 3600
LINK_S = 10 * 60
# Seconds that Redis may take for a session, and Redis with the database for the question whether one has ended.
TIMEOUT_S, HAS_ENDED_TIMEOUT_S = 1.0, 2.0
SESSION_KEY, LINK_KEY = "payments:dashboard:session:", "payments:dashboard:link:"
# The principal of whoever has the link that `payments up` printed.
DEVELOPER = Principal("developer", Role.ADMIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who is signed in until `expires_at` (Unix seconds).

    `form` is the value that every form of theirs sends back. `key_hash` is the hash by which the API key is found that
    they signed in with.
    """

    principal: Principal
    expires_at: float
    form: str = field(repr=False)
    key_hash: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredSession:
    """What Redis keeps of a session: `key` is the key there, so that it is good under no other."""

    key: str
    session: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredLink:
    """What Redis keeps of a link."""

    key: str
    expires_at: float


_SESSION, _LINK = TypeAdapter(_StoredSession), TypeAdapter(_StoredLink)


class Sessions:
    """The sessions of all API processes. Every method raises BrokerUnavailable if Redis does not answer in a second."""

    def __init__(
        self,
        broker: Broker,
        keyring: Keyring,
        authenticator: Authenticator,
        api_keys: ApiKeys,
        *,
        clock: Callable[[], float] = time,
    ) -> None:
        self._broker = broker
        self._keyring = keyring
        self._authenticator = authenticator
        self._api_keys = api_keys
        self._clock = clock

    async def sign_in(self, token: str) -> str:
        """Return the cookie of a new session for the principal of a token or an API key.

        The session ends with the token. Raises Problem as the JSON API does.
        """
        principal = await self._authenticator.principal(token)
        now, key_hash = self._clock(), None
        expires_at = now + SESSION_S
        if token.startswith(API_KEY_PREFIX):
            key_hash = self._keyring.api_key_hash(token)
        else:
            expires_at = min(expires_at, expiry_of(token))
        return await self._open(principal, expires_at, key_hash)

    async def redeem(self, link: str) -> str | None:
        """Return the cookie of a new session of an admin for a link of `issue_link`; None if it was used or is old."""
        key = LINK_KEY + _hash(link)

        def add_commands(pipe: Pipeline) -> None:
            pipe.mget([key])
            pipe.delete(key)

        # Both or none, so that of two requests with one link only one finds it.
        [[stored], _] = await self._broker.round_trip(add_commands, timeout_s=TIMEOUT_S, is_transaction=True)
        found = _unsealed(_LINK, self._keyring, key, stored)
        if found is None or found.expires_at <= self._clock():
            return None
        return await self._open(DEVELOPER, self._clock() + SESSION_S, None)

    async def find(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None if it has ended, or if its API key was revoked or has expired."""
        key = SESSION_KEY + _hash(cookie)
        # A key of another type than a string is none for MGET, and an error for GET.
        [[stored]] = await self._broker.round_trip(lambda pipe: pipe.mget([key]), timeout_s=TIMEOUT_S)
        found = _unsealed(_SESSION, self._keyring, key, stored)
        if found is None or found.session.expires_at <= self._clock():
            return None
        session = found.session
        if session.key_hash is not None:
            try:
                await self._api_keys.principal_of_hash(session.key_hash)
            except Problem:
                return None
        return session

    async def has_ended(self, cookie: str) -> bool:
        """Return whether the session of a cookie has ended; False while nobody can say so within two seconds."""
        try:
            async with asyncio.timeout(HAS_ENDED_TIMEOUT_S):
                return await self.find(cookie) is None
        except (PaymentsError, TimeoutError) as error:
            # Safe: this is asked again in a few seconds, and every page looks the session up for itself.
            log.info("dashboard.session_not_looked_up", error=type(error).__name__)
            return False

    async def sign_out(self, cookie: str) -> None:
        """End the session of a cookie."""
        key = SESSION_KEY + _hash(cookie)
        await self._broker.round_trip(lambda pipe: pipe.delete(key), timeout_s=TIMEOUT_S)

    async def _open(self, principal: Principal, expires_at: float, key_hash: str | None) -> str:
        cookie = new_secret()
        session = Session(principal=principal, expires_at=expires_at, form=new_secret(), key_hash=key_hash)
        lasts_s = max(1, int(expires_at - self._clock()))
        key = SESSION_KEY + _hash(cookie)
        sealed = _sealed(_SESSION, self._keyring, _StoredSession(key=key, session=session))
        await self._broker.round_trip(lambda pipe: pipe.set(key, sealed, ex=lasts_s), timeout_s=TIMEOUT_S)
        return cookie


async def issue_link(broker: Broker, keyring: Keyring) -> str:
    """Return the secret of a link that signs in an admin, once, within ten minutes. Raises BrokerUnavailable."""
    link = new_secret()
    key = LINK_KEY + _hash(link)
    sealed = _sealed(_LINK, keyring, _StoredLink(key=key, expires_at=time() + LINK_S))
    await broker.round_trip(lambda pipe: pipe.set(key, sealed, ex=LINK_S), timeout_s=TIMEOUT_S)
    return link


def new_secret() -> str:
    """Return a new secret of 32 random bytes, as it stands in cookies, forms and links."""
    return secrets.token_urlsafe(32)


def _sealed[T](form: TypeAdapter[T], keyring: Keyring, value: T) -> str:
    return keyring.seal_session(form.dump_json(value))


def _unsealed[T: (_StoredSession, _StoredLink)](
    form: TypeAdapter[T], keyring: Keyring, key: str, stored: bytes | None
) -> T | None:
    """Return what was sealed for `key`; None if nothing is there, or something that this service has not put there."""
    if stored is None:
        return None
    payload = keyring.open_session(stored.decode(errors="replace"))
    found = read_stored(form, payload)
    if payload is None or (found is not None and found.key != key):
        # `read_stored` logs what has another form.
        log.warning("redis.value_refused", wanted=key.rpartition(":")[0], problem="key" if found else "mac")
        return None
    return found


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
