"""Long polls: the header that asks for one, and a database that they cannot look into for a while."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from shared.errors import DatabaseUnavailable
from tests.support.scripted_databases import Scripted

WAIT = {"Prefer": "wait=20"}  # far longer than any test takes


class Failing(Scripted):
    """Cannot be read for a while."""

    is_failing = True

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Any]:
        if self.is_failing:
            self.reads += 1
            raise DatabaseUnavailable("away")
        async with super().read() as connection:
            yield connection
