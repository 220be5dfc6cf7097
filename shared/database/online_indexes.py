"""Indexes that PostgreSQL builds beside the running service, before the transaction that migrates.

A migration lists them in `ONLINE_INDEXES`: the arguments of `op.create_index`, by name. Its upgrade creates those that
are not there yet: all of them on SQLite and in an empty database.
"""

from collections.abc import Mapping
from time import monotonic
from typing import Any

import structlog
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database

log = structlog.get_logger(__name__)

# A build that was cut off leaves an index that is not valid. The server may still be at work on it: it notices only at
# the end that its client is gone.
STATE = text(
    """
    SELECT i.indisvalid AS is_valid, EXISTS (
        SELECT FROM pg_stat_progress_create_index p
        WHERE p.index_relid = i.indexrelid AND p.datname = current_database()
    ) AS is_being_built
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = :name
    """
)


async def build(database: Database, indexes: Mapping[str, Mapping[str, Any]], *, schema: str) -> bool:
    """Build the indexes that are missing and whose columns exist. No write waits for it.

    Return False if the server is still building one of them for a client that is gone. The caller holds the lock that
    lets one migration at a time run, in a transaction that has no snapshot: a build waits for those that have.
    """
    async with database.autocommit() as connection:
        for name, index in indexes.items():
            if not await connection.run_sync(_has_columns, index, schema):
                continue
            found = (await connection.execute(STATE, {"schema": schema, "name": name})).one_or_none()
            if found is not None and found.is_being_built:
                return False
            if found is None or not found.is_valid:
                await _build(connection, name, index, schema=schema, is_left_over=found is not None)
    return True


async def _build(
    connection: AsyncConnection, name: str, index: Mapping[str, Any], *, schema: str, is_left_over: bool
) -> None:
    began_at = monotonic()
    log.info("migrate.builds_index", index=name, table=index["table_name"])
    if is_left_over:
        await connection.run_sync(_drop, name, index, schema)
    await connection.run_sync(_create, name, index, schema)
    log.info("migrate.index_built", index=name, took_s=round(monotonic() - began_at, 1))


def _has_columns(connection: Connection, index: Mapping[str, Any], schema: str) -> bool:
    inspector = inspect(connection)
    if not inspector.has_table(index["table_name"], schema=schema):
        return False
    columns = {column["name"] for column in inspector.get_columns(index["table_name"], schema=schema)}
    return columns.issuperset(index["columns"])


def _create(connection: Connection, name: str, index: Mapping[str, Any], schema: str) -> None:
    _operations(connection).create_index(name, **index, schema=schema, postgresql_concurrently=True)


def _drop(connection: Connection, name: str, index: Mapping[str, Any], schema: str) -> None:
    _operations(connection).drop_index(name, index["table_name"], schema=schema, postgresql_concurrently=True)


def _operations(connection: Connection) -> Operations:
    return Operations(MigrationContext.configure(connection))
