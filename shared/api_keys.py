"""API keys of services and admins: create, find, list and revoke them.

The table gets a keyed hash of a key and its first characters, and never the key.
"""

import hmac
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from sqlalchemy import bindparam, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.api_key_tables import api_keys
from shared.database.clock import rfc3339
from shared.ids import new_id, new_secret_bytes
from shared.keyring import Keyring

API_KEY_PREFIX = "sk_sim_"
# The name of a service or an admin, as its histories and endpoints show it.
KEY_NAME = r"^[A-Za-z0-9._-]{1,64}$"
DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
# The digits of the largest number of 32 bytes in base62.
DIGITS_COUNT = 43
KEY_FORM = re.compile(rf"{API_KEY_PREFIX}[0-9A-Za-z]{{{DIGITS_COUNT}}}")
# Characters of a key that are stored and shown, so that its owner recognises it: 4 of its 43 digits.
START_CHARS = len(API_KEY_PREFIX) + 4


class KeyRole(StrEnum):
    """The role of an API key. Users have tokens."""

    SERVICE = "service"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A row of `api_keys`, without the hash."""

    id: UUID
    name: str
    role: KeyRole
    key_start: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """Return the key of a row of the table."""
        shown = {name: value for name, value in row.items() if name != "key_hash"}
        return cls(**{**shown, "role": KeyRole(row["role"])})

    @property
    def principal(self) -> str:
        """The principal that the key stands for, such as `service:orders`."""
        return f"{self.role}:{self.name}"

    def to_json(self) -> dict[str, Any]:
        """Return the key as an admin sees it."""
        return {
            "id": str(self.id),
            "name": self.name,
            "role": self.role.value,
            "key_start": self.key_start,
            "created_by": self.created_by,
            "created_at": rfc3339(self.created_at),
            "expires_at": rfc3339(self.expires_at) if self.expires_at else None,
            "last_used_at": rfc3339(self.last_used_at) if self.last_used_at else None,
        }


def new_api_key() -> str:
    """Return a new key: `sk_sim_` and 32 random bytes in base62."""
    number, digits = int.from_bytes(new_secret_bytes()), ""
    for _ in range(DIGITS_COUNT):
        number, digit = divmod(number, len(DIGITS))
        digits = DIGITS[digit] + digits
    return API_KEY_PREFIX + digits


async def add_key(
    connection: AsyncConnection,
    keyring: Keyring,
    key: str,
    *,
    key_id: UUID | None = None,
    name: str,
    role: KeyRole,
    created_by: str,
    expires_at: datetime | None,
    now: datetime,
) -> ApiKey:
    """Store a new key. Several keys may have the same name and role, so that a new one can replace an old one."""
    row = {
        "id": key_id or new_id(),
        "name": name,
        "role": role,
        "key_hash": keyring.api_key_hash(key),
        "key_start": key[:START_CHARS],
        "created_by": created_by,
        "created_at": now,
        "expires_at": expires_at,
        "last_used_at": None,
        "revoked_at": None,
        "revoked_by": None,
    }
    await connection.execute(insert(api_keys), row)
    return ApiKey.of(row)


async def find_key(connection: AsyncConnection, key_hash: str) -> ApiKey | None:
    """Return the key with this hash, also if it has expired or was revoked; None if there is none."""
    found = await connection.execute(select(api_keys).where(api_keys.c.key_hash == key_hash))
    row = found.mappings().one_or_none()
    # How a database compares, and for how long, is its own affair: equal is what is equal here, in constant time.
    return ApiKey.of(row) if row and hmac.compare_digest(row["key_hash"], key_hash) else None


async def find_unrevoked(connection: AsyncConnection, key_id: UUID) -> ApiKey | None:
    """Return the key with this id; None if there is none or it was revoked."""
    found = await connection.execute(select(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)))
    row = found.mappings().one_or_none()
    return ApiKey.of(row) if row else None


async def unrevoked_keys(
    connection: AsyncConnection, *, limit: int | None = None, before: UUID | None = None
) -> list[ApiKey]:
    """Return the keys that were not revoked, also expired ones, the newest first; with `before`, only older ones."""
    wanted = select(api_keys).where(api_keys.c.revoked_at.is_(None)).order_by(api_keys.c.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(api_keys.c.id < before)
    return [ApiKey.of(row) for row in (await connection.execute(wanted)).mappings()]


async def revoke_key(connection: AsyncConnection, key_id: UUID, *, by: str, now: datetime) -> ApiKey | None:
    """Revoke the key and return it; None if there is none or it was revoked before.

    The row stays, so that a use of the key after its revocation is recognised.
    """
    revoked = await connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now, revoked_by=by)
        .returning(*api_keys.c)
    )
    row = revoked.mappings().one_or_none()
    return ApiKey.of(row) if row else None


async def record_uses(connection: AsyncConnection, uses: Mapping[UUID, datetime]) -> None:
    """Store when keys were used last, unless a later use is stored already."""
    if not uses:
        return
    used_at = bindparam("used_at", type_=api_keys.c.last_used_at.type)
    is_later = or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < used_at)
    statement = update(api_keys).where(api_keys.c.id == bindparam("key_id"), is_later).values(last_used_at=used_at)
    # In the order of the ids, because that is the order of the locks.
    await connection.execute(statement, [{"key_id": key_id, "used_at": uses[key_id]} for key_id in sorted(uses)])
