"""Opens connections to PostgreSQL, directly or through a pooler, with what every transaction of this service needs.

A pooler such as PgBouncer may give each transaction another connection to the server, and may reset a connection in
between. So nothing may be left in one: no setting of a session, no prepared statement. This module recognises a pooler
by itself: the process id that it announced is not that of the server's process. Behind one, every transaction brings
its settings along, and statements have no name.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import asyncpg
import structlog

from shared.config.database_url import SYSTEM_AUTHORITIES, PostgresTarget
from shared.database.failures import meaning_of
from shared.errors import DatabaseRefused, DatabaseUnavailable

log = structlog.get_logger(__name__)

# Statements whose plans a direct connection keeps.
STATEMENTS_CACHED = 100
# Seconds that closing a connection may take. One that was dropped silently never answers.
CLOSE_S = 0.25
# The server ends a statement, and a transaction that does nothing, after this many times DATABASE_TIMEOUT_S. The
# client has given up long before. Without that, a transaction whose connection was dropped silently would keep its
# locks for hours.
SERVER_PATIENCE = 2
# And a whole transaction after so many times. If a connection is dropped between the messages of one statement, the
# server has done it and waits for the rest of them: that is no idle transaction, and no statement that takes long.
TRANSACTION_PATIENCE = 6
# The version of PostgreSQL that has `transaction_timeout`.
TRANSACTION_TIMEOUT_SINCE = 17
# Seconds without traffic until the kernel asks whether the other side is still there, and between two such questions.
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 30, 5, 3


class ServiceConnection(asyncpg.Connection):
    """A connection to the server itself."""

    # The statement that follows BEGIN.
    settings_of_transaction = ""

    async def close(self, *, timeout: float | None = None) -> None:
        """Close within CLOSE_S seconds, or drop the connection."""
        # asyncpg has dropped it when it raises this.
        with contextlib.suppress(TimeoutError):
            await super().close(timeout=CLOSE_S if timeout is None else min(timeout, CLOSE_S))


class PooledConnection(ServiceConnection):
    """A connection to a pooler: a transaction brings its settings along, in the same message as its BEGIN."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """See asyncpg. BEGIN, which asyncpg sends through here, also makes the settings."""
        if not args and query.startswith("BEGIN"):
            query = f"{query.rstrip(';')}; {self.settings_of_transaction}"
        return await super().execute(query, *args, timeout=timeout)


class Connector:
    """Opens connections to one server or pooler.

    `timeout_s` bounds a connection's start and each statement; None means that statements may take as long as they do.
    """

    def __init__(self, target: PostgresTarget, *, schema: str, connect_s: float, timeout_s: float | None) -> None:
        self._target = target
        self.schema = schema
        self._timeout_s = timeout_s
        self._connect_s = target.numbers.get("connect_timeout") or connect_s
        patience_ms = 0 if timeout_s is None else round(timeout_s * 1000 * SERVER_PATIENCE)
        self._settings = {
            "search_path": schema,
            # Every query of ours has an index. Without the statistics of a young table the planner takes a sequential
            # scan for cheaper, and keeps that plan while the table grows.
            "enable_seqscan": "off",
            # With that setting a plan may look so expensive that PostgreSQL would compile it (JIT).
            "jit": "off",
            "statement_timeout": str(patience_ms),
            "idle_in_transaction_session_timeout": str(patience_ms),
        }
        # None until the first connection.
        self.is_pooled: bool | None = None

    async def connect(self) -> ServiceConnection:
        """Open a connection.

        Raises DatabaseRefused if the server or the pooler says no, and DatabaseUnavailable if it cannot be reached.
        """
        try:
            async with asyncio.timeout(self._connect_s):
                return await self._connect()
        except Exception as error:
            raise meaning_of(error) or DatabaseRefused(f"{type(error).__name__}: {error}") from error

    async def _connect(self) -> ServiceConnection:
        # Until it is known, a pooler is assumed: then nothing is left behind in it.
        is_pooled = self.is_pooled is not False
        while True:
            connection = await self._open(is_pooled=is_pooled)
            try:
                if await self._is_pooled(connection) == is_pooled:
                    await self._note(connection, is_pooled=is_pooled)
                    return connection
            except BaseException:
                connection.terminate()
                raise
            connection.terminate()
            is_pooled = not is_pooled

    async def _note(self, connection: ServiceConnection, *, is_pooled: bool) -> None:
        """Remember what is in between. A pooler that shares connections between statements refuses BEGIN."""
        if is_pooled and not self.is_pooled:
            await connection.execute("BEGIN")
            await connection.execute("ROLLBACK")
            log.info("database.behind_pooler", database=str(self._target))
        self.is_pooled = is_pooled

    async def _open(self, *, is_pooled: bool) -> ServiceConnection:
        target = self._target
        # The words of the URL, which the stubs of asyncpg want as literals.
        arguments: dict[str, Any] = dict(target.arguments)
        connection: ServiceConnection = await asyncpg.connect(
            **arguments,
            dsn=f"postgresql://?{urlencode(_tls_parameters(target.tls))}",
            ssl=_system_context(target.tls),
            host=list(target.hosts) or None,
            port=list(target.ports) or None,
            database=target.database,
            server_settings=dict(target.server_settings),
            timeout=self._connect_s,
            command_timeout=self._timeout_s,
            statement_cache_size=0 if is_pooled else STATEMENTS_CACHED,
            connection_class=PooledConnection if is_pooled else ServiceConnection,
        )
        connection.settings_of_transaction = f"SELECT {self._setting(connection, is_local=True)}"
        self._keep_alive(connection)
        return connection

    async def _is_pooled(self, connection: ServiceConnection) -> bool:
        """Return whether a pooler is in between. If none is, make the settings for the whole session.

        Both is one statement without a name, which is sent as one message: behind a pooler nothing is left by it.
        """
        is_direct = f"pg_catalog.pg_backend_pid() = {connection.get_server_pid()}"
        return (
            await connection.execute(f"SELECT {self._setting(connection, is_local=False)} WHERE {is_direct}")
            == "SELECT 0"
        )

    def _setting(self, connection: ServiceConnection, *, is_local: bool) -> str:
        settings = dict(self._settings)
        if connection.get_server_version().major >= TRANSACTION_TIMEOUT_SINCE:
            settings["transaction_timeout"] = str(round((self._timeout_s or 0) * 1000 * TRANSACTION_PATIENCE))
        calls = (f"pg_catalog.set_config('{name}', '{value}', {is_local})" for name, value in settings.items())
        return ", ".join(calls)

    def _keep_alive(self, connection: ServiceConnection) -> None:
        """Let the kernel notice a connection that was dropped silently; a pool that waits for it would never."""
        # asyncpg gives no other way to its socket.
        tcp = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # noqa: SLF001
        numbers = self._target.numbers
        if tcp is None or tcp.family == socket.AF_UNIX or numbers.get("keepalives") == 0:
            return
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        user_timeout_ms = round((self._timeout_s or 0) * 1000 * SERVER_PATIENCE)
        for option, value in (
            ("TCP_KEEPIDLE", numbers.get("keepalives_idle") or KEEPALIVE_IDLE_S),
            ("TCP_KEEPINTVL", numbers.get("keepalives_interval") or KEEPALIVE_INTERVAL_S),
            ("TCP_KEEPCNT", numbers.get("keepalives_count") or KEEPALIVE_COUNT),
            ("TCP_USER_TIMEOUT", numbers.get("tcp_user_timeout", user_timeout_ms)),
        ):
            # Not every operating system has all of them.
            if hasattr(socket, option) and value:
                tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def ping(connection: asyncpg.Connection, *, timeout_s: float) -> None:
    """Ask the server for an answer. Raises DatabaseUnavailable if none comes in time."""
    try:
        await connection.execute("SELECT 1", timeout=timeout_s)
    except Exception as error:
        raise meaning_of(error) or DatabaseUnavailable(type(error).__name__) from error


def _tls_parameters(tls: Mapping[str, str]) -> dict[str, str]:
    return {} if tls.get("sslrootcert") == SYSTEM_AUTHORITIES else dict(tls)


def _system_context(tls: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return a context with the authorities of the operating system, if they are wanted; asyncpg knows only files."""
    if tls.get("sslrootcert") != SYSTEM_AUTHORITIES:
        return None
    context = ssl.create_default_context()
    if "sslcert" in tls:
        context.load_cert_chain(tls["sslcert"], tls.get("sslkey"), lambda: tls.get("sslpassword", ""))
    return context
