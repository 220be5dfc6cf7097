"""Whether a database answers: for the readiness of the API and of a worker."""

import asyncio

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from shared.database.engine import Database
from shared.errors import PaymentsError

log = structlog.get_logger(__name__)

# Seconds that the database has to answer.
CHECK_TIMEOUT_S = 2.0


async def database_answers(database: Database) -> bool:
    """Return whether the database answers a query in time. Why it does not is logged."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S), database.read() as connection:
            await connection.execute(text("SELECT 1"))
    except (PaymentsError, SQLAlchemyError, TimeoutError) as error:
        log.warning("health.database_failed", error=type(error).__name__)
        return False
    return True
