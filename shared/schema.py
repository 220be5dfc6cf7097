"""The database's schema and the code's: migrate one to the other, and refuse to run on an older one.

Migrations are in `alembic/`; they are expand-then-contract, so code that is older than the schema may go on.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from shared.config import Settings
from shared.db import Database, open_database
from shared.errors import SchemaOutdated

VERSION_TABLE = "payments_alembic_version"
MIGRATIONS = Path(__file__).resolve().parent.parent / "alembic"
ADVISORY_LOCK = 8009_2022  # any number of our own: one migration at a time in this database


async def migrate(settings: Settings) -> str:
    """Bring the database to this code's schema; answers the revision it now has.

    Several at once are safe: one migrates, the others wait and find it done.
    """
    database = open_database(settings)
    try:
        if database.is_sqlite:
            async with database.transaction() as connection:
                await connection.begin()  # takes the lock before Alembic, whose state is global to the process
                await connection.run_sync(_upgrade)
        else:
            async with database.transaction() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{settings.database_schema}"'))
                await connection.run_sync(_upgrade)
    finally:
        await database.dispose()
    return head()


async def require_current(database: Database) -> None:
    """Raise SchemaOutdated, naming the command to run, if this code needs a newer schema than the database has."""
    async with database.read() as connection:
        found = await connection.run_sync(revision)
    if found != head() and (found is None or found in known_revisions()):
        raise SchemaOutdated(
            f"the database's schema is at {found or 'nothing'}, this code needs {head()}: run `payments migrate`"
        )


def config() -> Config:
    """Alembic's configuration, without a file."""
    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    return settings


def head() -> str:
    """The newest revision of this code."""
    newest = ScriptDirectory.from_config(config()).get_current_head()
    if newest is None:
        raise SchemaOutdated(f"there are no migrations in {MIGRATIONS}")
    return newest


def known_revisions() -> set[str]:
    """Every revision of this code; the database's may be one of a later version."""
    return {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}


def revision(connection: Connection) -> str | None:
    """The revision that the database is at; None = an empty one."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _upgrade(connection: Connection) -> None:
    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")
