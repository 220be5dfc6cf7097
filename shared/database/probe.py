"""Whether this process can work with its database: not only reach it, but read, write and commit."""

import asyncio

import structlog
from sqlalchemy import bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import metrics
from shared.database.engine import Database
from shared.database.schema import metadata
from shared.errors import DatabaseRefused, DatabaseUnavailable, PaymentsError

log = structlog.get_logger(__name__)

# Seconds that the database has to answer.
PROBE_TIMEOUT_S = 2.0
# The rights that the service needs on a table. Tables that are not named here are read, inserted into and updated.
USUAL_RIGHTS = ("SELECT", "INSERT", "UPDATE")
RIGHTS: dict[str, tuple[str, ...]] = {
    "payment_history": ("SELECT", "INSERT"),
    "gateway_ledger": ("SELECT", "INSERT"),
    "events": ("SELECT", "INSERT"),
    "delivery_attempts": ("SELECT", "INSERT"),
    # To lock the rows that are purged, PostgreSQL wants UPDATE.
    "idempotency_keys": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "simulation_rules": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "simulation_rule_uses": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "verify_reports": ("SELECT", "INSERT", "DELETE"),
}
MISSING_RIGHTS = text(
    """
    SELECT name || ': ' || CASE WHEN found IS NULL THEN 'missing' ELSE right_ END
    FROM unnest(CAST(:names AS text[]), CAST(:rights AS text[])) AS needed (name, right_),
         LATERAL (
             SELECT to_regclass(format('%I.%I', COALESCE(CAST(:schema AS text), current_schema()), name)) AS found
         ) AS tables
    WHERE found IS NULL OR NOT has_table_privilege(found, right_)
    ORDER BY 1 LIMIT 1
    """
)
# An empty message in the log of the server: the smallest thing that a COMMIT has to bring to disk and to standbys.
SMALLEST_WRITE = text("SELECT pg_logical_emit_message(true, 'payments', '')")
READS_ONLY = text("SELECT current_setting('transaction_read_only') = 'on'")
SQLITE_TABLES = text("SELECT name FROM sqlite_master WHERE type = 'table' AND name IN :names").bindparams(
    bindparam("names", expanding=True)
)


async def is_usable(database: Database) -> bool:
    """Return whether the database lets this process do all of its work, and commits it, within PROBE_TIMEOUT_S seconds.

    If not, log why. Nothing is changed in a table.
    """
    problem = await _problem(database)
    metrics.database_ready.set(problem is None)
    if problem is not None:
        log.warning("health.database_failed", error=problem)
    return problem is None


def rights_of(table: str) -> tuple[str, ...]:
    """Return the rights that the service needs on a table."""
    return RIGHTS.get(table, USUAL_RIGHTS)


async def _problem(database: Database) -> str | None:
    """Return what is wrong; None if nothing is."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S), database.transaction() as connection:
            await (_write_sqlite(connection) if database.is_sqlite else _write(connection, database.schema))
    except DatabaseRefused as error:
        return str(error)
    except (PaymentsError, TimeoutError) as error:
        return f"{type(error).__name__} {error}".strip()
    return None


async def _write(connection: AsyncConnection, schema: str | None) -> None:
    """Look for everything that is needed, and write nothing but a message. Raises DatabaseUnavailable."""
    if (await connection.execute(READS_ONLY)).scalar_one():
        raise DatabaseUnavailable("the database reads only")
    needed = [(table.name, right) for table in metadata.sorted_tables for right in rights_of(table.name)]
    parameters = {"schema": schema, "names": [name for name, _ in needed], "rights": [right for _, right in needed]}
    if missing := (await connection.execute(MISSING_RIGHTS, parameters)).scalar_one_or_none():
        raise DatabaseUnavailable(f"a table or a right on it is missing: {missing}")
    await connection.execute(SMALLEST_WRITE)


async def _write_sqlite(connection: AsyncConnection) -> None:
    """Write a number of the file that stays the same. Raises DatabaseUnavailable if a table is missing."""
    names = {table.name for table in metadata.sorted_tables}
    found = set((await connection.execute(SQLITE_TABLES, {"names": list(names)})).scalars())
    if missing := names - found:
        raise DatabaseUnavailable(f"a table is missing: {min(missing)}")
    version = (await connection.exec_driver_sql("PRAGMA user_version")).scalar_one()
    await connection.exec_driver_sql(f"PRAGMA user_version = {int(version)}")
