"""The database: one engine, explicit transactions and the meaning of its errors. It knows no table."""

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

from shared.clock import Clock, DatabaseClock
from shared.config import Settings
from shared.errors import CommitUnknown, ConfigurationError, DatabaseUnavailable, WriteConflict

SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=2000")
CONFLICT_STATES = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
UNAVAILABLE_CLASSES = ("08", "53", "57", "58")  # connection, resources, operator intervention, system error
READ_ONLY_STATE = "25006"  # a standby after a failover
CutOff = AsyncAdapt_asyncpg_dbapi.InternalClientError  # the server said goodbye, and asyncpg has not seen the end yet
SQLITE_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")


class Database:
    """One database with a pool of connections; every transaction of the process begins here."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock | None = None, timeout_s: float = 5) -> None:
        self._timeout_s = timeout_s
        self.clock = clock or DatabaseClock()
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._engine = engine
        self._writer = engine.execution_options(write=True)
        self._reader = engine if self.is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        # SQLite's own busy wait is unfair (p99 339 ms with four writers); a lock in the process is (33 ms).
        self._one_writer = asyncio.Lock() if self.is_sqlite else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits at the end of the block and rolls back if the block raises.

        Raises DatabaseUnavailable or WriteConflict when nothing was written, CommitUnknown when the answer to
        COMMIT was lost; other errors of the database, and the block's own, pass as they are.
        """
        async with self._turn(), _translated(), self._writer.connect() as connection:
            yield connection
            await _commit(connection)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading: each statement sees what is committed, nothing is locked."""
        async with _translated(), self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The turn to write on SQLite: while another process has the file, nobody waits for all who came before."""
        if self._one_writer is None:
            yield
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._one_writer.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("other writers did not end in time") from None
        try:
            yield
        finally:
            self._one_writer.release()

    async def dispose(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def open_database(settings: Settings, *, clock: Clock | None = None) -> Database:
    """The database that DATABASE_URL names. Does not connect; for SQLite it creates the folder of the file.

    Raises ConfigurationError if it cannot.
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
        _teach_sqlite_transactions(engine)
    else:
        options["connect_args"] = {
            "timeout": settings.database_timeout_s,
            "command_timeout": settings.database_timeout_s,
            "server_settings": {
                "search_path": settings.database_schema,
                "application_name": "payments",
                # Everything we ask goes by an index; of a young table, without statistics, the planner believes
                # that scanning it is cheaper, and keeps the plan while it grows. The penalty looks worth a JIT: no.
                "enable_seqscan": "off",
                "jit": "off",
            },
        }
        engine = create_async_engine(url, **options)
    return Database(engine, clock=clock, timeout_s=settings.database_timeout_s)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"DATABASE_URL: the folder {folder} cannot be made: {error.strerror}") from error


def _teach_sqlite_transactions(engine: AsyncEngine) -> None:
    """Take BEGIN away from the driver, which delays it until the first write and then fails with SQLITE_BUSY."""

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
            raise  # SQLite refuses a commit as a whole; a conflict is PostgreSQL's own word that it rolled back
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
    """The database did not judge the statement: it could not be reached, was busy, or gave up waiting."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, (PoolTimeoutError, OSError, TimeoutError))
    if error.connection_invalidated or isinstance(error.orig, (OSError, TimeoutError, CutOff)):
        return True
    state = _sqlstate(error)
    if state:
        return state.startswith(UNAVAILABLE_CLASSES) or state == READ_ONLY_STATE
    return str(getattr(error.orig, "sqlite_errorname", "")).startswith(SQLITE_BUSY)


def _sqlstate(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def _name(error: Exception) -> str:
    """What happened in a word that holds no value of a statement."""
    original = getattr(error, "orig", None) or error
    return str(_sqlstate(error) or getattr(original, "sqlite_errorname", None) or type(original).__name__)
