"""The database: one engine with explicit transactions and a pool that drops what is dead. It knows no table."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
import structlog
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from shared.config.settings import Settings
from shared.database.clock import Clock, DatabaseClock
from shared.database.connector import Connector, ping
from shared.database.failures import is_connection_spoilt, is_server_stale, meaning_of
from shared.errors import CommitUnknown, ConfigurationError, DatabaseUnavailable, ValueRefused, WriteConflict

log = structlog.get_logger(__name__)

# With WAL, readers go on beside the writer; with FULL, a commit survives a loss of power.
SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=2000")
# A connection that was idle for so many seconds is asked for an answer before it is used, and has so many for that. So
# connections that were dropped silently cost one wait, and not one each.
PING_AFTER_S, PING_TIMEOUT_S = 5.0, 1.0
# The key of `info` of a pooled connection: the moment of its last use (monotonic, in seconds).
USED_AT = "payments.used_at"


class Database:
    """One database with a pool of connections. Every transaction of the process begins here."""

    # None on SQLite, and for a database that stands in front of another one.
    _connector: Connector | None = None

    def __init__(
        self, engine: AsyncEngine, *, clock: Clock, timeout_s: float, connector: Connector | None = None
    ) -> None:
        self._timeout_s = timeout_s
        self.clock = clock
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._engine = engine
        self._connector = connector
        self._writer = engine.execution_options(write=True)
        self._autocommit = engine if self.is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._snapshots = engine if self.is_sqlite else engine.execution_options(isolation_level="REPEATABLE READ")
        # SQLite's own busy wait is unfair: with four writers its p99 was 339 ms. With a lock in the process it was
        # 33 ms.
        self._one_writer = asyncio.Lock() if self.is_sqlite else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that commits at the end of the block and rolls back if the block raises.

        Raises DatabaseUnavailable (or one of its kinds) or ValueRefused if nothing was written, and CommitUnknown if
        the answer to COMMIT was lost. Errors of the block pass unchanged; but an OSError, TimeoutError, OverflowError
        or UnicodeEncodeError of the block counts as one of the database. On SQLite it waits at most `timeout_s`
        seconds for the write lock of this process, and at most 2 s for that of other processes.
        """
        async with self._write_lock(), _translated(), self._writer.connect() as connection:
            yield connection
            await _commit(connection)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for reading. Statements see only what is committed, and lock nothing.

        Raises DatabaseUnavailable or one of its kinds.
        """
        async with _translated(), self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for reading whose statements all see what was committed before the first of them.

        Keep it short: it holds up the vacuum of PostgreSQL. Raises DatabaseUnavailable or one of its kinds.
        """
        async with _translated(), self._snapshots.connect() as connection:
            yield connection

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection to PostgreSQL whose statements are no part of a transaction.

        Behind a pooler names must be qualified: only a transaction has the settings of this service there.
        Raises DatabaseUnavailable or one of its kinds.
        """
        async with _translated(), self._autocommit.connect() as connection:
            yield connection

    @property
    def schema(self) -> str | None:
        """The schema of our tables; None on SQLite, which has none."""
        return self._connector.schema if self._connector else None

    @property
    def is_pooled(self) -> bool:
        """The last connection that was opened leads to a pooler, and not to the server itself."""
        return self._connector is not None and bool(self._connector.is_pooled)

    @property
    def _reader(self) -> AsyncEngine:
        """A read needs no transaction of its own, unless a pooler makes the settings of a session impossible."""
        is_direct = self._connector is None or self._connector.is_pooled is False
        return self._autocommit if is_direct else self._engine

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


def open_database(settings: Settings, *, clock: Clock | None = None, statement_s: float | None = None) -> Database:
    """Return the database that DATABASE_URL names. It connects to nothing yet.

    A statement on PostgreSQL may take `statement_s` seconds, by default DATABASE_TIMEOUT_S; `inf` sets no limit. For
    SQLite it creates the folder of the file. Raises ConfigurationError if that fails.
    """
    timeout_s = settings.database_timeout_s
    target = settings.postgres
    options: dict[str, Any] = {
        "json_serializer": lambda value: orjson.dumps(value).decode(),
        "json_deserializer": orjson.loads,
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "pool_timeout": timeout_s,
    }
    if target is None:
        url = settings.sqlalchemy_url
        _make_folder(Path(str(url.database)).parent)
        engine, connector = create_async_engine(url, **options), None
        _begin_explicitly_on_sqlite(engine)
    else:
        connector = Connector(
            target,
            schema=settings.database_schema,
            connect_s=timeout_s,
            timeout_s=None if statement_s == inf else statement_s or timeout_s,
        )
        # The connector knows the rest of the URL.
        engine = create_async_engine("postgresql+asyncpg://", **options)
        _connect_with(engine, connector)
        _drop_dead_connections(engine)
    return Database(engine, clock=clock or DatabaseClock(), timeout_s=timeout_s, connector=connector)


def _connect_with(engine: AsyncEngine, connector: Connector) -> None:
    """Let the pool of the engine get its connections from the connector."""

    @event.listens_for(engine.sync_engine, "do_connect")
    def _connect(dialect: Any, _record: Any, _arguments: Any, _parameters: Any) -> Any:
        connection = await_only(connector.connect())

        async def opened() -> Any:
            return connection

        # A statement without a name is sent anew each time, so a pooler may pass it on to any connection.
        stateless = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
        return dialect.loaded_dbapi.connect(async_creator_fn=opened, **(stateless if connector.is_pooled else {}))


def _drop_dead_connections(engine: AsyncEngine) -> None:
    """Ask connections that may be dead for an answer before they are used, and drop those that are of no more use.

    After a connection has not answered in time, every other one that was opened before is asked.
    """
    suspect_until = -inf

    @event.listens_for(engine.sync_engine, "connect")
    @event.listens_for(engine.sync_engine, "checkin")
    def _used(_connection: Any, record: Any) -> None:
        record.info[USED_AT] = monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def _check(connection: Any, record: Any, _proxy: Any) -> None:
        used_at = record.info[USED_AT]
        if used_at > suspect_until and monotonic() - used_at < PING_AFTER_S:
            return
        try:
            connection.run_async(partial(ping, timeout_s=PING_TIMEOUT_S))
        except DatabaseUnavailable as error:
            log.info("database.connections_dropped", error=str(error))
            raise InvalidatePoolError from error

    @event.listens_for(engine.sync_engine, "handle_error")
    def _judge(context: ExceptionContext) -> None:
        nonlocal suspect_until
        error = context.original_exception
        if is_connection_spoilt(error):
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = is_server_stale(error)
            suspect_until = monotonic()


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
        if connection.dialect.name == "sqlite" or isinstance(meaning_of(error), (WriteConflict, ValueRefused)):
            # The outcome is known: SQLite refuses a commit as a whole, and with a conflict or a constraint PostgreSQL
            # has rolled the transaction back.
            raise
        raise CommitUnknown(type(error).__name__) from error


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except Exception as error:
        if (meaning := meaning_of(error)) is not None:
            raise meaning from error
        raise
