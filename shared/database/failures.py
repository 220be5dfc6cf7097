"""What the errors of a database mean. No other module looks at a SQLSTATE or at a name of SQLite's errors.

The client's value is at fault only where the database says so (classes 22 and 23). Everything else may pass: a wrong
password, a lock, a right that was taken away, a table that a restore has not made yet. A statement that the database
calls wrong is a defect of this service. It is logged as one, and the client may repeat its request all the same.
"""

import sqlite3
import ssl
from time import monotonic

import asyncpg
import structlog
from orjson import JSONEncodeError
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared import metrics
from shared.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    PaymentsError,
    StatementFailed,
    ValueRefused,
    WriteConflict,
)

log = structlog.get_logger(__name__)

# SQLSTATEs, and classes of them, of PostgreSQL (its manual, appendix A).
# Data exceptions and violated constraints.
VALUE_CLASSES = ("22", "23")
# Rolled back for another transaction; or the prepared statement was lost, or its plan is no longer valid.
CONFLICT_STATES = frozenset({"40001", "40P01", "26000", "42P05"})
# The password or its rule, the database, the schema, the right.
REFUSED_STATES = ("28", "3D", "3F", "42501")
# Connection, state of the transaction, rollback, resources, locks, operator, system, configuration, internal; and
# tables, columns, types and functions that are not there while a schema is changed or restored.
PASSING_STATES = (
    "08", "25", "40", "53", "55", "57", "58", "F0", "XX", "42P01", "42703", "42704", "42883",
)  # fmt: skip
LOCK_TIMEOUT_STATE = "55P03"
# A server that reads only, or is going away, is not the one that writes: a new connection may find that one.
STALE_SERVER_STATES = ("25006", "57P", "08")
# The connection's own state is spoilt.
SPOILT_STATES = ("25", "26", "42P05", "XX")
# PgBouncer says everything with the class of connections. These are refusals.
REFUSALS_OF_POOLERS = (
    "unsupported startup parameter", "statement pooling", "authentication failed", "no such database", "no such user",
)  # fmt: skip

SQLITE_VALUE = ("SQLITE_CONSTRAINT", "SQLITE_TOOBIG", "SQLITE_MISMATCH")
SQLITE_REFUSED = ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_PERM", "SQLITE_AUTH")
SQLITE_PASSING = (
    "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY",
    "SQLITE_INTERRUPT", "SQLITE_NOMEM", "SQLITE_PROTOCOL", "SQLITE_SCHEMA", "SQLITE_ABORT",
)  # fmt: skip
SQLITE_MISSING = ("no such table", "no such column")

# A value that the driver cannot encode never reaches the database.
UNENCODABLE = (UnicodeEncodeError, OverflowError, JSONEncodeError)
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, sqlite3.Error)
# asyncpg raises this if the server is closing a connection and the driver has not noticed the end yet.
CUT_OFF = (AsyncAdapt_asyncpg_dbapi.InternalClientError, asyncpg.InternalClientError)
# SQLAlchemy's class has no SQLSTATE.
STALE_PLAN = (AsyncAdapt_asyncpg_dbapi.InvalidCachedStatementError, asyncpg.InvalidCachedStatementError)
# Seconds between two tracebacks of the same defect.
LOG_EVERY_S = 10.0

REFUSAL = "The database refused a value. Change the request before you send it again."

_logged_at: dict[str, float] = {}


def meaning_of(error: Exception) -> PaymentsError | None:
    """Return what the error of a statement or a connection means; None if it is no error of the database.

    A defect of this service is logged here, with its traceback.
    """
    if isinstance(error, PaymentsError):
        return None
    meaning = _meaning_of(error)
    if meaning is not None:
        metrics.database_errors.labels(type(meaning).__name__).inc()
        if isinstance(meaning, StatementFailed):
            _log_defect(error, str(meaning))
    return meaning


def is_server_stale(error: BaseException) -> bool:
    """Return whether connections to the same server are probably of no use either."""
    return (_sqlstate(error) or "").startswith(STALE_SERVER_STATES)


def is_connection_spoilt(error: BaseException) -> bool:
    """Return whether the connection on which this happened must not be used again."""
    state = _sqlstate(error) or ""
    # A TimeoutError is an OSError, too.
    return isinstance(error, OSError) or state.startswith((*STALE_SERVER_STATES, *SPOILT_STATES))


def is_lock_timeout(error: BaseException | None) -> bool:
    """Return whether another transaction held a lock for longer than the statement was to wait."""
    if error is None:
        return False
    original = getattr(error, "orig", None)
    sqlite_name = str(getattr(original, "sqlite_errorname", ""))
    return _sqlstate(error) == LOCK_TIMEOUT_STATE or sqlite_name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _meaning_of(error: Exception) -> PaymentsError | None:
    meaning: PaymentsError | None
    match error:
        case ssl.SSLError() if not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            meaning = DatabaseRefused(f"{type(error).__name__}: {error}")
        case PoolTimeoutError() | PendingRollbackError() | OSError() | TimeoutError():
            meaning = DatabaseUnavailable(type(error).__name__)
        case UnicodeEncodeError() | OverflowError():
            meaning = ValueRefused(REFUSAL)
        case DBAPIError():
            meaning = _meaning_of_driver(error.orig or error, is_cut=error.connection_invalidated)
        case StatementError() if isinstance(error.orig, UNENCODABLE):
            meaning = ValueRefused(REFUSAL)
        case SQLAlchemyError():
            meaning = StatementFailed(_name(error))
        case _:
            meaning = _meaning_of_driver(error, is_cut=False) if isinstance(error, DRIVER_ERRORS) else None
    return meaning


def _meaning_of_driver(error: BaseException, *, is_cut: bool) -> PaymentsError:
    if isinstance(error, (OSError, TimeoutError, *CUT_OFF)):
        return DatabaseUnavailable(type(error).__name__)
    if isinstance(error, STALE_PLAN):
        return WriteConflict(type(error).__name__)
    state = _sqlstate(error)
    if state is not None:
        return _meaning_of_state(error, state)
    if is_cut:
        return DatabaseUnavailable(type(error).__name__)
    return _meaning_of_sqlite(error, str(getattr(error, "sqlite_errorname", "")))


def _meaning_of_state(error: BaseException, state: str) -> PaymentsError:
    text = str(error)
    if state in CONFLICT_STATES:
        return WriteConflict(state)
    if state.startswith(VALUE_CLASSES):
        return ValueRefused(REFUSAL)
    if state.startswith(REFUSED_STATES) or any(words in text for words in REFUSALS_OF_POOLERS):
        # These messages name a user, a database, a table or a parameter, and never a value of a statement.
        return DatabaseRefused(f"{_message(error)} ({state})")
    if state.startswith(PASSING_STATES):
        return DatabaseUnavailable(state)
    return StatementFailed(_name(error))


def _meaning_of_sqlite(error: BaseException, name: str) -> PaymentsError:
    if name.startswith(SQLITE_VALUE):
        return ValueRefused(REFUSAL)
    if name.startswith(SQLITE_REFUSED):
        return DatabaseRefused(f"{error} ({name})")
    if name.startswith(SQLITE_PASSING) or str(error).startswith(SQLITE_MISSING):
        return DatabaseUnavailable(name)
    return StatementFailed(_name(error))


def _sqlstate(error: BaseException) -> str | None:
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None)


def _message(error: BaseException) -> str:
    """Return the message of the server, without the class that SQLAlchemy puts before it."""
    cause = error.__cause__
    return str(cause.args[0]) if isinstance(cause, asyncpg.PostgresError) and cause.args else str(error)


def _name(error: BaseException) -> str:
    """Return a name of the error that contains no value of a statement."""
    original = getattr(error, "orig", None) or error
    return str(_sqlstate(error) or getattr(original, "sqlite_errorname", None) or type(original).__name__)


def _log_defect(error: Exception, name: str) -> None:
    """Log the traceback, but not for every request of a flood."""
    now = monotonic()
    if now - _logged_at.get(name, -LOG_EVERY_S) >= LOG_EVERY_S:
        _logged_at[name] = now
        log.error("database.statement_failed", error=name, exc_info=error)
