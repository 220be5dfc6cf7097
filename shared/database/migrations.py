"""The schema of the database: bring it to the revision of this code, and refuse to run on an older one.

The migrations are in `alembic/`. They are expand-then-contract, so code that is older than the schema may go on.
"""

import asyncio
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, inspect, text
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.engine import Database, open_database
from shared.database.failures import is_lock_timeout
from shared.database.online_indexes import build
from shared.database.schema import metadata
from shared.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable, SchemaOutdated

log = structlog.get_logger(__name__)

VERSION_TABLE = "payments_alembic_version"
CODE = Path(__file__).resolve().parents[2]
# The wheel calls the folder `migrations`, for beside installed packages `alembic` is the library's name.
MIGRATIONS = next((folder for name in ("migrations", "alembic") if (folder := CODE / name).is_dir()), CODE / "alembic")
# The key of the advisory lock that lets one migration at a time run in a database: any number that only we use.
ADVISORY_LOCK = 8009_2022
# Seconds that a statement of a migration waits for a lock: everything else that wants the table waits behind it. Then
# the migration gives way for LOCK_PAUSE_S seconds and begins again. Longer than our own transactions take, and so short
# that a write waits for less than a second even if two such waits follow each other in one migration.
LOCK_WAIT_S = 0.3
LOCK_PAUSE_S = 1.0
LOCK_TIMEOUT = text(f"SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'")
SCHEMAS = text("SELECT nspname FROM pg_namespace WHERE nspname = :schema")


async def migrate(settings: Settings) -> str:
    """Bring the database to the schema of this code. Return the revision that it then has.

    A newer schema that still serves this code is left as it is. Several processes may do this at once: one migrates,
    and the others wait and find nothing left to do. Locks of other processes are waited for, as long as they last; in
    between the migration gives way, so that payments do not queue behind it.
    Raises ConfigurationError, SchemaOutdated, DatabaseUnavailable or, if the answer to COMMIT was lost, CommitUnknown.
    """
    database = open_database(settings, statement_s=inf)
    began_at = monotonic()
    try:
        while True:
            try:
                async with database.transaction() as connection:
                    if (found := await _migrate(database, connection)) is not None:
                        return found
                holder = "another migration"
            except DatabaseUnavailable as error:
                if not is_lock_timeout(error.__cause__):
                    raise
                holder = "another transaction"
            log.info("migrate.waits", waits_for=holder, waited_s=round(monotonic() - began_at, 1))
            await asyncio.sleep(LOCK_PAUSE_S)
    finally:
        await database.dispose()


async def _migrate(database: Database, connection: AsyncConnection) -> str | None:
    """Migrate inside the transaction of the connection. Return the revision, or None while another process migrates."""
    schema = database.schema
    if schema is None:
        # This takes SQLite's write lock before Alembic begins, whose state is global to the process.
        await connection.begin()
    else:
        await connection.execution_options(isolation_level="READ COMMITTED")
        await connection.execute(LOCK_TIMEOUT)
        is_ours = await connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        if not is_ours.scalar_one():
            return None
        if not await _has_schema(connection, schema):
            await connection.execute(text(f'CREATE SCHEMA "{schema}"'))
        await _require_schema(connection, schema)
    found = await connection.run_sync(revision)
    if found is not None and found not in known_revisions():
        await _require_service(connection, found)
        return found
    if schema is not None and found is not None:
        # A SELECT keeps its snapshot until the next statement, and a build waits for snapshots. This one has none.
        await connection.execute(LOCK_TIMEOUT)
        if not await build(database, _online_indexes(found), schema=schema):
            return None
    await connection.run_sync(_upgrade)
    return head()


async def require_current(database: Database) -> None:
    """Raise SchemaOutdated, naming the command to run, if the database does not have the schema that this code needs.

    A newer schema that still serves this code is fine. Raises ConfigurationError if the tables of another schema would
    be used, and DatabaseUnavailable if that is not known.
    """
    async with database.read() as connection:
        if database.schema is not None and await _has_schema(connection, database.schema):
            await _require_schema(connection, database.schema)
        found = await connection.run_sync(revision)
        if found is not None and found not in known_revisions():
            await _require_service(connection, found)
        elif found != head():
            raise SchemaOutdated(
                f"The schema of the database is at {found or 'nothing'}, but this code needs {head()}. "
                "To bring it up to date, run `payments migrate`."
            )


async def _has_schema(connection: AsyncConnection, schema: str) -> bool:
    found = await connection.execute(SCHEMAS, {"schema": schema})
    return found.scalar_one_or_none() is not None


async def _require_schema(connection: AsyncConnection, schema: str) -> None:
    """Raise an error unless unqualified names mean the tables in `schema`."""
    used = (await connection.execute(text("SELECT current_schema()"))).scalar_one()
    if used is None:
        raise DatabaseRefused(f"permission denied for schema {schema}: it needs USAGE")
    if used != schema:
        raise ConfigurationError(
            f"DATABASE_SCHEMA: connections use the schema {used} and not {schema}. A pooler between this service and "
            "the database drops the settings of a session; connect to the database, or use another pooler"
        )


async def _require_service(connection: AsyncConnection, found: str) -> None:
    """Raise SchemaOutdated if a schema of a newer version of the service lacks what this code needs."""
    if misfits := await connection.run_sync(_misfits):
        raise SchemaOutdated(
            f"The schema of the database is at {found}, which is newer than this code ({head()}) and no longer serves "
            f"it: {', '.join(misfits)}. Install the version that made this schema."
        )


def _misfits(connection: Connection) -> list[str]:
    """Return what this code cannot read or write: columns that are missing, and new ones that need a value."""
    inspector = inspect(connection)
    found = []
    for table in metadata.sorted_tables:
        columns = {column["name"]: column for column in _columns(inspector, table.name)}
        ours = {column.name for column in table.columns}
        found += [f"{table.name}.{name} is missing" for name in sorted(ours - columns.keys())]
        found += [
            f"{table.name}.{name} needs a value"
            for name, column in columns.items()
            if name not in ours and not column["nullable"] and column["default"] is None
        ]
    return found


def _columns(inspector: Inspector, table: str) -> list[ReflectedColumn]:
    try:
        return inspector.get_columns(table)
    except NoSuchTableError:
        return []


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


def _online_indexes(found: str) -> dict[str, Any]:
    """Return the indexes that the revisions after this one want to be built online."""
    pending = list(ScriptDirectory.from_config(config()).iterate_revisions("head", found))
    listed = [getattr(script.module, "ONLINE_INDEXES", {}) for script in reversed(pending)]
    return {name: index for indexes in listed for name, index in indexes.items()}


def revision(connection: Connection) -> str | None:
    """Return the revision that the database is at; None if it has none yet."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _upgrade(connection: Connection) -> None:
    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")
