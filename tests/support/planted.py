"""Breaches that tests of `payments verify` plant in a sound world, by their kind."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database.engine import Database
from shared.verify.breaches import BreachKind
from tests.support.verified import LONG_AGO, look

type Plant[W] = Callable[[AsyncConnection, W], Awaitable[Any]]


class Plants[W]:
    """Functions that plant a breach of one kind, and no other, in a world."""

    def __init__(self) -> None:
        self.by_kind: dict[BreachKind, list[Plant[W]]] = {}

    def __call__(self, kind: BreachKind) -> Callable[[Plant[W]], Plant[W]]:
        """The decorated function plants a breach of this kind."""

        def add(plant: Plant[W]) -> Plant[W]:
            self.by_kind.setdefault(kind, []).append(plant)
            return plant

        return add

    def parameters(self) -> list[Any]:
        """Return the kind and the plant of each parametrised test."""
        return [
            pytest.param(kind, plant, id=f"{kind}-{number}")
            for kind, plants in self.by_kind.items()
            for number, plant in enumerate(plants)
        ]


async def assert_found_alone[W](database: Database, world: W, kind: BreachKind, plant: Plant[W]) -> None:
    """The world is sound; once the breach is planted, it is found, and nothing else."""
    assert (await look(database, orders_since=LONG_AGO)).totals == {}
    async with database.transaction() as connection:
        await plant(connection, world)
    found = await look(database, orders_since=LONG_AGO)
    assert found.totals == {kind: 1}
    [ids] = found.shown[kind]
    assert ids.keys() & {"payment_id", "key"}
    assert orjson.dumps(ids)
