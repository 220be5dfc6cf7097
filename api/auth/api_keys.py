"""Authentication by API key: finds the principal of a key, and notes when each key was used last.

No key stays in memory, in a log or in the database: everything is done with its keyed hash.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from math import inf
from time import monotonic
from typing import NamedTuple
from uuid import UUID

import structlog

from api.auth.principal import Principal, Role
from api.auth.tokens import invalid_token
from api.bounded_cache import BoundedCache
from api.single_flight import SingleFlight
from shared.api_keys import KEY_FORM, ApiKey, find_key, record_uses
from shared.database.engine import Database
from shared.errors import CommitUnknown, DatabaseUnavailable
from shared.keyring import Keyring

log = structlog.get_logger(__name__)

# Seconds for which a key that was found is not looked up again. After a revocation it works no longer than that.
CACHE_S = 5.0
KEYS_REMEMBERED_MAX = 10_000
# Lookups at once. Made-up keys take no more than these connections from the requests of others.
LOOKUPS_MAX = 2
# Seconds between two writes of `last_used_at`, which is exact to a minute.
RECORD_EVERY_S = 30.0

UNKNOWN = "The API key is not known."
REVOKED = "This API key was revoked. Ask an admin for a new one."
EXPIRED = "This API key has expired. Ask an admin for a new one."


class _Found(NamedTuple):
    """What the table says about a key, and until when (monotonic, in seconds) that is reused."""

    principal: Principal
    refusal: str | None
    until: float


class ApiKeys:
    """The API keys of the table. A key that was found is known for `CACHE_S` seconds, and no longer than it is valid.

    Requests that need the same key at the same time share one lookup.
    """

    def __init__(self, database: Database, keyring: Keyring, *, clock: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock
        # By hash. Keys that are not in the table are not kept: they could push out the others.
        self._found: BoundedCache[str, _Found] = BoundedCache(KEYS_REMEMBERED_MAX)
        self._flight: SingleFlight[str, _Found | None] = SingleFlight()
        self._lookups = asyncio.Semaphore(LOOKUPS_MAX)
        # The last use (monotonic, in seconds) of each key since it was stored last.
        self._uses: dict[UUID, float] = {}

    async def principal(self, key: str) -> Principal:
        """Return the principal of a key.

        Raises Problem (invalid_token) for a key that is unknown, expired or revoked, and DatabaseUnavailable if that
        cannot be found out.
        """
        if not KEY_FORM.fullmatch(key):
            raise invalid_token(UNKNOWN)
        return await self.principal_of_hash(self._keyring.api_key_hash(key))

    async def principal_of_hash(self, key_hash: str) -> Principal:
        """Return the principal of the key with this hash. Raises as `principal` does."""
        found = self._found.get(key_hash)
        if found is None or self._clock() >= found.until:
            found = await self._flight.do(key_hash, lambda: self._look_up(key_hash))
        if found is None:
            raise invalid_token(UNKNOWN)
        if found.refusal is not None:
            raise invalid_token(found.refusal)
        if found.principal.api_key_id is not None:
            self._uses[found.principal.api_key_id] = self._clock()
        return found.principal

    def forget(self, key_id: UUID) -> None:
        """Look the key up again at its next use: this process has revoked it."""
        for key_hash in [name for name, found in self._found.items() if found.principal.api_key_id == key_id]:
            del self._found[key_hash]

    async def run(self) -> None:
        """Store the uses of keys every `RECORD_EVERY_S` seconds until cancelled."""
        while True:
            await asyncio.sleep(RECORD_EVERY_S)
            await self.record_uses()

    async def record_uses(self) -> None:
        """Store when keys were used last, all in one transaction. If that fails, the next call does it."""
        uses = dict(self._uses)
        if not uses:
            return
        try:
            async with self._database.transaction() as connection:
                await self._database.clock.now(connection)
                epoch = self._database.clock.real_now() - timedelta(seconds=self._clock())
                moments = {key_id: epoch + timedelta(seconds=used_at) for key_id, used_at in uses.items()}
                await record_uses(connection, moments)
        except (DatabaseUnavailable, CommitUnknown) as error:
            # Safe: the uses are kept, and storing them twice changes nothing.
            log.warning("api_key.uses_not_recorded", error=str(error))
            return
        for key_id, used_at in uses.items():
            # A use that came meanwhile is still to be stored.
            if self._uses.get(key_id) == used_at:
                del self._uses[key_id]

    async def close(self) -> None:
        """Cancel the lookups that still run, and store the last uses."""
        await self._flight.close()
        await self.record_uses()

    async def _look_up(self, key_hash: str) -> _Found | None:
        async with self._lookups:
            asked_at = self._clock()
            async with self._database.read() as connection:
                key = await find_key(connection, key_hash)
                if key is None:
                    return None
                await self._database.clock.now(connection)
        # Keys end by real time, whatever service time is.
        found = _judged(key, self._database.clock.real_now(), asked_at)
        self._found.remember(key_hash, found)
        return found


def _judged(key: ApiKey, now: datetime, asked_at: float) -> _Found:
    """Return what holds for a key that was looked up at `asked_at` (monotonic), when the database said `now`."""
    principal = Principal(key.name, Role(key.role.value), api_key_id=key.id)
    left_s = (key.expires_at - now).total_seconds() if key.expires_at else inf
    if key.revoked_at is None and left_s > 0:
        return _Found(principal, None, asked_at + min(CACHE_S, left_s))
    reason, refusal = ("revoked", REVOKED) if key.revoked_at else ("expired", EXPIRED)
    log.warning("api_key.refused", api_key_id=str(key.id), principal=principal.actor, reason=reason)
    return _Found(principal, refusal, asked_at + CACHE_S)
