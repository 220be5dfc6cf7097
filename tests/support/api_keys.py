"""API keys in tests: an authenticator with keys of its own, and rows of the table that are read and written."""

from typing import Any

from sqlalchemy import select, update

from api.auth.api_keys import ApiKeys
from api.auth.authenticator import Authenticator
from api.auth.tokens import SharedSecretVerifier
from shared.database.api_key_tables import api_keys
from shared.database.engine import Database
from tests.conftest import TEST_SECRET


def authenticator_of(keys: ApiKeys) -> Authenticator:
    """An authenticator of tokens and of these keys."""
    return Authenticator("local", SharedSecretVerifier(secret=TEST_SECRET, algorithm="HS256"), api_keys=keys)


async def stored_key(database: Database) -> Any:
    """The only row of the table."""
    async with database.read() as connection:
        return (await connection.execute(select(api_keys))).one()


async def change_keys(database: Database, **columns: Any) -> None:
    """Write into every row of the table."""
    async with database.transaction() as connection:
        await connection.execute(update(api_keys).values(**columns))
