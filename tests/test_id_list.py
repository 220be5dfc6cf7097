"""The condition that a column is one of some ids: right on both databases, and one statement for any number of them."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import make_url, select

from shared.database.engine import Database
from shared.database.id_list import id_in
from shared.database.tables import payments
from shared.ids import new_id
from tests.support.rows import accepted, write

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# More than the 32,767 parameters that PostgreSQL takes.
MANY = 40_000


async def test_it_finds_those_and_no_others(database: Database) -> None:
    items = await write(database, *(accepted(NOW) for _ in range(5)))
    ids = [item.id for item in items]
    async with database.read() as connection:

        async def found(wanted: list[UUID]) -> list[UUID]:
            rows = await connection.execute(select(payments.c.id).where(id_in(payments.c.id, wanted)))
            return sorted(rows.scalars())

        assert await found([]) == []
        assert await found(ids[1:3]) == sorted(ids[1:3])
        assert await found([ids[0], ids[0], new_id()]) == [ids[0]]
        assert await found([*ids, *(new_id() for _ in range(MANY))]) == sorted(ids)


async def test_the_ids_may_come_as_a_parameter(database: Database) -> None:
    items = await write(database, *(accepted(NOW) for _ in range(3)))
    async with database.read() as connection:
        found = await connection.execute(
            select(payments.c.id).where(id_in(payments.c.id, "ids")), {"ids": [item.id for item in items[:2]]}
        )
        assert sorted(found.scalars()) == sorted(item.id for item in items[:2])


@pytest.mark.parametrize("url", ["postgresql+asyncpg://", "sqlite+aiosqlite://"])
def test_any_number_of_ids_is_the_same_statement(url: str) -> None:
    dialect = make_url(url).get_dialect()()
    texts = {
        str(
            select(payments.c.id).where(id_in(payments.c.id, [new_id() for _ in range(count)])).compile(dialect=dialect)
        )
        for count in (0, 1, 2, 100)
    }
    assert len(texts) == 1
