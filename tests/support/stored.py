"""What the database has stored: every value, for tests that look for what must not be there, and how many rows."""

from sqlalchemy import func, select, text

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


async def row_counts(database: Database) -> dict[str, int]:
    """How many rows each table has, of those that have any."""
    async with database.read() as connection:
        counts = {
            table.name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            for table in metadata.sorted_tables
        }
    return {name: count for name, count in counts.items() if count}
