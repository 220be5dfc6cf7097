"""The schema of the database: bring it to the revision of this code, and refuse to run on an older one.

The migrations are in `alembic/`. They are expand-then-contract, so code that is older than the schema may go on.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.errors import SchemaOutdated

VERSION_TABLE = "payments_alembic_version"
CODE = Path(__file__).resolve().parents[2]
# The wheel calls the folder `migrations`, for beside installed packages `alembic` is the library's name.
MIGRATIONS = next((folder for name in ("migrations", "alembic") if (folder := CODE / name).is_dir()), CODE / "alembic")
# The key of the advisory lock that lets one migration at a time run in a database: any number that only we use.
ADVISORY_LOCK = 8009_2022


async def migrate(settings: Settings) -> str:
    """Bring the database to the schema of this code. Return the revision that it then has.

    Several processes may do this at once: one migrates, and the others wait and find nothing left to do.
    Raises ConfigurationError, DatabaseUnavailable or, if the answer to COMMIT was lost, CommitUnknown.
    """
    database = open_database(settings)
    try:
        if database.is_sqlite:
            async with database.transaction() as connection:
                # This takes SQLite's write lock before Alembic begins, whose state is global to the process.
                await connection.begin()
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
    """Raise SchemaOutdated, naming the command to run, if this code needs a newer schema than the database has.

    Raises DatabaseUnavailable if that is not known.
    """
    async with database.read() as connection:
        found = await connection.run_sync(revision)
    if found != head() and (found is None or found in known_revisions()):
        raise SchemaOutdated(
            f"The schema of the database is at {found or 'nothing'}, but this code needs {head()}. "
            "To bring it up to date, run `payments migrate`."
        )


def config() -> Config:
    """Return the configuration of Alembic, which is in no file."""
    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    return settings


def head() -> str:
    """Return the newest revision of this code. Raises SchemaOutdated if there are no migrations."""
    newest = ScriptDirectory.from_config(config()).get_current_head()
    if newest is None:
        raise SchemaOutdated(f"There are no migrations in {MIGRATIONS}. Install the service as a whole.")
    return newest


def known_revisions() -> set[str]:
    """Return every revision of this code. The database may have a later one, of a newer version of the service."""
    return {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}


def revision(connection: Connection) -> str | None:
    """Return the revision that the database is at; None if it has none yet."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _upgrade(connection: Connection) -> None:
    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")
