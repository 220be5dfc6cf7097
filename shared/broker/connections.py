"""The connections to Redis: opened from REDIS_URL, and given up together when the server behind them has changed.

After a failover the old master is a replica that still answers PING. A write that it refuses is the first sign, so
that sign closes every connection of the process to this address, in all pools; the next ones lead to the new master.
"""

import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from shared.broker.failures import STALE, kind_of
from shared.config.redis_url import Credentials, RedisAddress, Tls, parse_redis_url
from shared.errors import ConfigurationError

CONNECTIONS_MAX = 20
# Seconds after which a server that hangs is treated like one that is dead.
SOCKET_TIMEOUT_S = 2.0
# Seconds that one Sentinel may take to say where the master is; then the next one is asked.
SENTINEL_TIMEOUT_S = 0.5

type FindMaster = Callable[[], Awaitable[tuple[str, int]]]


class Pool(BlockingConnectionPool):
    """A pool whose connections are given up when one of them finds out that its server is no longer the master."""

    def __init__(self, url: str, connection_class: type["_Supervised"], **options: Any) -> None:
        timeout: Any = SOCKET_TIMEOUT_S
        super().__init__(max_connections=CONNECTIONS_MAX, timeout=timeout, connection_class=connection_class, **options)
        self.url = url
        # Counts how often the connections were given up. A connection knows the count at which it was opened.
        self.generation = 0
        self.sentinel: Sentinel | None = None
        _POOLS.add(self)

    def make_connection(self) -> AbstractConnection:
        """See redis-py."""
        connection: _Supervised = super().make_connection()  # type: ignore[no-untyped-call]
        connection.owner = weakref.ref(self)
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """See redis-py. A connection that was given up while it was in use is closed."""
        if isinstance(connection, _Supervised) and connection.generation != self.generation:
            await connection.disconnect(nowait=True)
        await super().release(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """See redis-py. The connections to the Sentinels are closed, too."""
        await super().disconnect(inuse_connections)
        for client in self.sentinel.sentinels if self.sentinel else ():
            await client.aclose()

    async def give_up(self, *, but: AbstractConnection | None = None) -> None:
        """Close all connections at once, but the one that is being read: that one is closed when it is released."""
        self.generation += 1
        for connection in [*self._available_connections, *self._in_use_connections]:
            if connection is not but:
                await connection.disconnect(nowait=True)


_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


class _Supervised(AbstractConnection):
    """A connection that notices when its server is no longer the master."""

    owner: weakref.ref[Pool]
    generation = -1

    async def connect(self) -> None:
        """See redis-py."""
        pool = self.owner()
        if pool is not None and not self.is_connected:
            self.generation = pool.generation
        await super().connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """See redis-py."""
        try:
            return await super().read_response(*args, **options)
        except RedisError as error:
            pool = self.owner()
            # Another connection of the same age may have noticed before.
            if pool is not None and self.generation == pool.generation and kind_of(error) in STALE:
                for each in [each for each in _POOLS if each.url == pool.url]:
                    await each.give_up(but=self)
            raise


class _TcpConnection(_Supervised, Connection):
    pass


class _TlsConnection(_Supervised, SSLConnection):
    pass


class _UnixConnection(_Supervised, UnixDomainSocketConnection):
    pass


class _ToMaster(_Supervised):
    """A connection that asks the Sentinels for its server each time it is opened."""

    def __init__(self, *, find_master: FindMaster, **options: Any) -> None:
        super().__init__(**options)
        self._find_master = find_master

    async def connect(self) -> None:
        """See redis-py. Raises MasterNotFoundError, a ConnectionError, if no Sentinel knows the master."""
        if not self.is_connected:
            self.host, self.port = await self._find_master()
        await super().connect()


class _MasterConnection(_ToMaster, Connection):
    pass


class _TlsMasterConnection(_ToMaster, SSLConnection):
    pass


def open_pool(url: str) -> Pool:
    """Return a pool of connections to the Redis of a REDIS_URL. It connects to nothing yet.

    Raises ConfigurationError, which names REDIS_URL, if the URL is wrong or a certificate cannot be read.
    """
    try:
        address = parse_redis_url(url)
    except ValueError as error:
        raise ConfigurationError(f"REDIS_URL: {error}") from None
    options: dict[str, Any] = {
        **_timeouts(SOCKET_TIMEOUT_S),
        **_login(address.credentials),
        "db": address.database,
        # Saying a name needs one more right, CLIENT SETINFO.
        "lib_name": None,
        "lib_version": None,
    }
    encryption = _encryption(address.tls)
    if address.path is not None:
        return Pool(url, _UnixConnection, path=address.path, **options)
    if address.master is not None:
        return _sentinel_pool(url, address, {**options, **encryption})
    [(host, port)] = address.hosts
    return Pool(url, _TlsConnection if address.tls else _TcpConnection, host=host, port=port, **options, **encryption)


async def close_idle(pool: ConnectionPool) -> None:
    """Close the connections that nothing uses: one did not answer, so that the others may be dead as well."""
    for connection in list(pool._available_connections):  # noqa: SLF001 - the public method waits for each to close
        await connection.disconnect(nowait=True)


def _sentinel_pool(url: str, address: RedisAddress, options: dict[str, Any]) -> Pool:
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        address.hosts,
        sentinel_kwargs={
            **_timeouts(SENTINEL_TIMEOUT_S),
            **_login(address.sentinel_credentials),
            **_encryption(address.tls),
            **({"ssl": True} if address.tls else {}),
        },
    )

    async def find_master() -> tuple[str, int]:
        host, port = await sentinel.discover_master(address.master or "")
        return host, port

    connection_class = _TlsMasterConnection if address.tls else _MasterConnection
    pool = Pool(url, connection_class, find_master=find_master, **options)
    pool.sentinel = sentinel
    return pool


def _timeouts(seconds: float) -> dict[str, Any]:
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds}


def _login(credentials: Credentials) -> dict[str, Any]:
    return {"username": credentials.username, "password": credentials.password}


def _encryption(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    for name, file in (("ssl_ca_certs", tls.ca_certs), ("ssl_certfile", tls.certfile), ("ssl_keyfile", tls.keyfile)):
        if file is not None and not _is_readable(file):
            raise ConfigurationError(f"REDIS_URL: {name} names a file that cannot be read")
    return {
        "ssl_cert_reqs": tls.check.value,
        "ssl_check_hostname": tls.checks_hostname,
        "ssl_ca_certs": tls.ca_certs,
        "ssl_certfile": tls.certfile,
        "ssl_keyfile": tls.keyfile,
    }


def _is_readable(file: str) -> bool:
    try:
        with Path(file).open("rb"):
            return True
    except OSError:
        return False
