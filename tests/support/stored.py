"""Everything that the database has stored, for tests that look for what must not be there."""

from sqlalchemy import text

from shared.database.engine import Database
from shared.database.schema import metadata


async def everything_stored(database: Database) -> str:
    """Every value of every table, as text."""
    async with database.read() as connection:
        rows = [
            tuple(row)
            for table in metadata.sorted_tables
            for row in await connection.execute(text(f"SELECT * FROM {table.name}"))  # noqa: S608
        ]
    return repr(rows)
