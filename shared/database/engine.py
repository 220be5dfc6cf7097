"""The database: one engine, explicit transactions, and what the errors of the drivers mean. It knows no table."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import event
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.config.settings import Settings
from shared.database.clock import Clock, DatabaseClock
from shared.errors import CommitUnknown, ConfigurationError, DatabaseUnavailable, WriteConflict

# With WAL, readers go on beside the writer; with FULL, a commit survives a loss of power.
SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=2000")
# SQLSTATEs, and classes of them, of PostgreSQL (its manual, appendix A).
CONFLICT_STATES = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
UNAVAILABLE_CLASSES = ("08", "53", "57", "58")  # connection, resources, operator intervention, system error
READ_ONLY_STATE = "25006"  # a standby after a failover
# asyncpg raises this if the server is closing a connection and the driver has not noticed the end yet.
ConnectionCutOff = AsyncAdapt_asyncpg_dbapi.InternalClientError
SQLITE_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")


class Database:
    """One database with a pool of connections. Every transaction of the process begins here."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.clock = clock
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._engine = engine
        self._writer = engine.execution_options(write=True)
        self._reader = engine if self.is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        # SQLite's own busy wait is unfair: with four writers its p99 was 339 ms. With a lock in the process it was
        # 33 ms.
        self._one_writer = asyncio.Lock() if self.is_sqlite else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that commits at the end of the block and rolls back if the block raises.

        Raises DatabaseUnavailable or WriteConflict if nothing was written, and CommitUnknown if the answer to COMMIT
        was lost. Other errors of the database, and those of the block, pass unchanged; but an OSError or TimeoutError
        of the block counts as one of the database. On SQLite it waits at most `timeout_s` seconds for the write lock of
        this process, and at most 2 s for that of other processes.
        """
        async with self._write_lock(), _translated(), self._writer.connect() as connection:
            yield connection
            await _commit(connection)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for reading. Statements see only what is committed, and lock nothing.

        Raises DatabaseUnavailable or WriteConflict.
        """
        async with _translated(), self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def _write_lock(self) -> AsyncIterator[None]:
        """Hold the process's write lock for the block, if the database is SQLite.

        Raises DatabaseUnavailable if the lock does not become free in time. Without that limit, while another process
        locks the file, a writer would wait for the timeouts of all writers before it.
        """
        if self._one_writer is None:
            yield
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._one_writer.acquire()
        except TimeoutError:
            raise DatabaseUnavailable(
                f"Other writers did not end within {self._timeout_s:g} s. Try again later."
            ) from None
        try:
            yield
        finally:
            self._one_writer.release()

    async def dispose(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def open_database(settings: Settings, *, clock: Clock | None = None) -> Database:
    """Return the database that DATABASE_URL names. It connects to nothing yet.

    For SQLite it creates the folder of the file. Raises ConfigurationError if that fails.
    """
    url = settings.sqlalchemy_url
    options: dict[str, Any] = {
        "json_serializer": lambda value: orjson.dumps(value).decode(),
        "json_deserializer": orjson.loads,
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "pool_timeout": settings.database_timeout_s,
    }
    if settings.is_sqlite:
        _make_folder(Path(str(url.database)).parent)
        engine = create_async_engine(url, **options)
        _begin_explicitly_on_sqlite(engine)
    else:
        options["connect_args"] = {
            "timeout": settings.database_timeout_s,
            "command_timeout": settings.database_timeout_s,
            "server_settings": {
                "search_path": settings.database_schema,
                "application_name": "payments",
                # Every query of ours has an index. Without the statistics of a young table the planner takes a
                # sequential scan for cheaper, and keeps that plan while the table grows.
                "enable_seqscan": "off",
                # With that setting a plan may look so expensive that PostgreSQL would compile it (JIT).
                "jit": "off",
            },
        }
        engine = create_async_engine(url, **options)
    return Database(engine, clock=clock or DatabaseClock(), timeout_s=settings.database_timeout_s)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"DATABASE_URL: the folder {folder} cannot be made: {error.strerror}") from error


def _begin_explicitly_on_sqlite(engine: AsyncEngine) -> None:
    """Send BEGIN explicitly. The driver delays it until the first write, which then fails with SQLITE_BUSY."""

    @event.listens_for(engine.sync_engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in SQLITE_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


async def _commit(connection: AsyncConnection) -> None:
    try:
        await connection.commit()
    except Exception as error:
        if connection.dialect.name == "sqlite" or _is_conflict(error):
            # The outcome is known: SQLite refuses a commit as a whole, and a conflict means that PostgreSQL has rolled
            # the transaction back.
            raise
        raise CommitUnknown(type(error).__name__) from error


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeoutError, OSError, TimeoutError) as error:
        if _is_conflict(error):
            raise WriteConflict(_name(error)) from error
        if is_unavailable(error):
            raise DatabaseUnavailable(_name(error)) from error
        raise


def _is_conflict(error: Exception) -> bool:
    return _sqlstate(error) in CONFLICT_STATES


def is_unavailable(error: Exception) -> bool:
    """Return whether the database did not carry out the statement: it was unreachable or busy, or a wait timed out."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, (PoolTimeoutError, OSError, TimeoutError))
    if error.connection_invalidated or isinstance(error.orig, (OSError, TimeoutError, ConnectionCutOff)):
        return True
    state = _sqlstate(error)
    if state:
        return state.startswith(UNAVAILABLE_CLASSES) or state == READ_ONLY_STATE
    return str(getattr(error.orig, "sqlite_errorname", "")).startswith(SQLITE_BUSY)


def _sqlstate(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def _name(error: Exception) -> str:
    """Return a name of the error that contains no value of a statement."""
    original = getattr(error, "orig", None) or error
    return str(_sqlstate(error) or getattr(original, "sqlite_errorname", None) or type(original).__name__)
