"""What `payments keys` does in the database. It makes no database: a file that is not there is the wrong one."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from cli.errors import refusal_names_the_setting
from shared.api_keys import ApiKey, KeyRole, add_key, new_api_key, revoke_key, unrevoked_keys
from shared.config.settings import Settings, load_settings
from shared.database.engine import open_database
from shared.database.migrations import require_current
from shared.errors import ConfigurationError
from shared.ids import parse_id
from shared.keyring import open_keyring

# The creator of a key that no principal of the API has created.
CREATOR = "cli"

type Work[T] = Callable[[AsyncConnection, datetime], Awaitable[T]]


def create_key(name: str, role: KeyRole, days: float | None) -> tuple[str, ApiKey]:
    """Store a new API key that is valid for `days` (None = without end). Return the key itself and what was stored."""
    settings, key = load_settings(), new_api_key()

    async def add(connection: AsyncConnection, now: datetime) -> ApiKey:
        expires_at = now + timedelta(days=days) if days is not None else None
        keyring = open_keyring(settings)
        return await add_key(
            connection, keyring, key, name=name, role=role, created_by=CREATOR, expires_at=expires_at, now=now
        )

    return key, _run(settings, add)


def all_keys() -> list[ApiKey]:
    """Return the keys that were not revoked, the newest first."""
    return _run(load_settings(), lambda connection, _now: unrevoked_keys(connection))


def revoke(key_id: str) -> ApiKey | None:
    """Revoke a key and return it; None if there is no such key."""

    async def end(connection: AsyncConnection, now: datetime) -> ApiKey | None:
        wanted = parse_id(key_id)
        return await revoke_key(connection, wanted, by=CREATOR, now=now) if wanted else None

    return _run(load_settings(), end)


def _run[T](settings: Settings, work: Work[T]) -> T:
    """Return the result of `work`, done in one transaction.

    Raises ConfigurationError, SchemaOutdated, DatabaseUnavailable or CommitUnknown.
    """
    file = settings.sqlalchemy_url.database
    if settings.is_sqlite and not Path(str(file)).exists():
        raise ConfigurationError(
            f"DATABASE_URL: there is no database {Path(str(file)).absolute()}. Run this where the API runs, or set "
            "DATABASE_URL as it does; `payments migrate` makes a new one."
        )
    return asyncio.run(_in_transaction(settings, work))


async def _in_transaction[T](settings: Settings, work: Work[T]) -> T:
    database = open_database(settings)
    try:
        with refusal_names_the_setting(settings):
            await require_current(database)
            async with database.transaction() as connection:
                await database.clock.now(connection)
                # Keys live in real time, whatever service time is.
                return await work(connection, database.clock.real_now())
    finally:
        await database.dispose()
