"""A database that counts its transactions and fails as a script says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.errors import CommitUnknown, DatabaseUnavailable, WriteConflict


class Scripted(Database):
    """A database that counts its transactions and fails as the script says, one word for each transaction.

    `ok` is a transaction; the others are what may become of one: `unavailable` before it begins, `conflict` before it
    commits, `lost` after it has committed, `rolled_back` without having done so; the error does not say which of the
    two it was.
    """

    def __init__(self, inner: Database, *script: str) -> None:
        self.clock = inner.clock
        self.is_sqlite = inner.is_sqlite
        self.script = list(script)
        self.transactions = 0
        self.reads = 0
        self._inner = inner

    @property
    def schema(self) -> str | None:
        return self._inner.schema

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        self.transactions += 1
        word = self.script.pop(0) if self.script else "ok"
        if word == "unavailable":
            raise DatabaseUnavailable(word)
        async with self._inner.transaction() as connection:
            yield connection
            if word == "conflict":
                raise WriteConflict(word)
            if word == "rolled_back":
                raise CommitUnknown(word)
        if word == "lost":
            raise CommitUnknown(word)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        self.reads += 1
        async with self._inner.read() as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        async with self._inner.snapshot() as connection:
            yield connection

    async def dispose(self) -> None:
        """The inner one has its own owner."""
