"""An idempotency key, and the keys that are bound."""

from sqlalchemy import select

from shared.database.engine import Database
from shared.database.tables import idempotency_keys

KEY = {"Idempotency-Key": "k1"}


async def keys(database: Database) -> list[tuple[str, str]]:
    async with database.read() as connection:
        found = await connection.execute(select(idempotency_keys.c.scope, idempotency_keys.c.key))
        return [(row.scope, row.key) for row in found]
