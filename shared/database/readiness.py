"""Readiness of the database, asked by the API and by the worker."""

import asyncio

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from shared.database.engine import Database
from shared.errors import PaymentsError

log = structlog.get_logger(__name__)

# Seconds that the database has to answer.
CHECK_TIMEOUT_S = 2.0


async def is_ready(database: Database) -> bool:
    """Return whether the database answers, within CHECK_TIMEOUT_S seconds."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S), database.read() as connection:
            await connection.execute(text("SELECT 1"))
    except (PaymentsError, SQLAlchemyError, TimeoutError) as error:
        log.warning("health.database_failed", error=type(error).__name__)
        return False
    return True
