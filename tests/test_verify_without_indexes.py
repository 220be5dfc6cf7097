"""`payments verify`: what an index makes impossible is found where the index is missing; every kind is planted."""

from datetime import timedelta

import pytest
from sqlalchemy import Index, text

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import deliveries, gateway_ledger, payments
from shared.ids import new_id
from shared.verify.breaches import PROMISES, BreachKind
from shared.verify.kinds import KINDS
from tests.support.verified import NOW, World, accept, build, look, of_delivery, record_entry, repeat_row, without
from tests.support.verified_money import build_money
from tests.test_verify_breaches import add_initiated, plants
from tests.test_verify_money_breaches import money_plants
from tests.test_verify_refund_breaches import refund_plants

ONLY_WITHOUT_AN_INDEX = {
    BreachKind.LIVE_TWICE,
    BreachKind.DELIVERY_REPEATED,
    BreachKind.VOIDED_TWICE,
}


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    return await build(database, settings)


def test_every_kind_of_breach_is_planted_and_explained() -> None:
    planted = {kind for each in (plants, money_plants, refund_plants) for kind in each.by_kind}
    assert planted | ONLY_WITHOUT_AN_INDEX == set(BreachKind) == set(KINDS)
    assert {kind.invariant for kind in KINDS.values()} == set(PROMISES)


async def test_two_live_payments_of_an_order_are_found(database: Database, world: World) -> None:
    [index] = [index for index in payments.indexes if index.name == "uq_payments_live"]
    async with without(database, index):
        await accept(database, order_id=str(world.completed))
        found = await look(database)
        assert found.totals == {BreachKind.LIVE_TWICE: 1}
        [ids] = found.shown[BreachKind.LIVE_TWICE]
        assert (ids["payment_id"], ids["order_id"]) == (str(world.completed), str(world.completed))
        assert ids["other_payment_id"] != ids["payment_id"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("uq_deliveries_endpoint", "endpoint"), ("uq_deliveries_other", "callback"), ("uq_deliveries_other", "order")],
)
async def test_a_second_delivery_to_one_receiver_is_found(
    database: Database, world: World, name: str, kind: str
) -> None:
    [index] = [index for index in deliveries.indexes if index.name == name]
    assert isinstance(index, Index)
    async with without(database, index):
        async with database.transaction() as connection:
            await repeat_row(connection, deliveries, where=of_delivery(world, kind), id=new_id())
        found = await look(database, orders_since=NOW - timedelta(seconds=1))
        assert found.totals == {BreachKind.DELIVERY_REPEATED: 1}


async def test_a_second_event_of_one_move_is_found(database: Database, world: World) -> None:
    # The same table without its constraints.
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE copied AS SELECT * FROM events"))
        await connection.execute(text("ALTER TABLE events RENAME TO strict_events"))
        await connection.execute(text("ALTER TABLE copied RENAME TO events"))
    try:
        async with database.transaction() as connection:
            await add_initiated(connection, world)
        # As an older version writes it, whoever wants it.
        assert (await look(database)).totals == {}
        async with database.transaction() as connection:
            await add_initiated(connection, world)
        assert (await look(database)).totals == {BreachKind.EVENT_REPEATED: 1}
    finally:
        async with database.transaction() as connection:
            await connection.execute(text("DROP TABLE events"))
            await connection.execute(text("ALTER TABLE strict_events RENAME TO events"))


async def test_a_second_void_is_found(database: Database) -> None:
    world = await build_money(database)
    [index] = [index for index in gateway_ledger.indexes if index.name == "uq_gateway_ledger_capture_or_void"]
    async with without(database, index):
        async with database.transaction() as connection:
            await record_entry(connection, world.voided, "void", 9, key="again")
        assert (await look(database)).totals == {BreachKind.VOIDED_TWICE: 1}


async def test_a_capture_beside_a_void_is_found(database: Database) -> None:
    world = await build_money(database)
    [index] = [index for index in gateway_ledger.indexes if index.name == "uq_gateway_ledger_capture_or_void"]
    async with without(database, index):
        async with database.transaction() as connection:
            await record_entry(connection, world.voided, "capture", 9, key="late")
        assert (await look(database)).totals == {BreachKind.MONEY_AFTER_VOID: 1}
