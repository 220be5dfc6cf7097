"""The event payment.initiated: written where an endpoint wants it, and nowhere else."""

from typing import Any

import pytest
from sqlalchemy import delete, select, update

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import deliveries, events, webhook_endpoints
from shared.event_types import EVENT_OF_MOVE, WRITTEN_IF_WANTED, EventType
from shared.keyring import open_keyring
from shared.lifecycle import HistoryReason
from shared.payments.events import emit
from shared.payments.history import Move
from shared.payments.payment import Payment
from shared.verify.breaches import BreachKind
from tests.support.receivers import register
from tests.support.rows import accepted, write
from tests.support.verified import LONG_AGO, NOW, look

URL = "https://shop.example/hook"


async def endpoint(database: Database, settings: Settings, **changes: Any) -> None:
    async with database.transaction() as connection:
        made = await register(connection, open_keyring(settings), URL, now=LONG_AGO)
        values = {"event_types": [each.value for each in EventType], **changes}
        await connection.execute(update(webhook_endpoints).where(webhook_endpoints.c.id == made.id).values(**values))


async def accept(database: Database) -> Payment:
    payment = accepted(NOW, callback_url=URL)
    await write(database, payment)
    async with database.transaction() as connection:
        await emit(connection, [Move(payment, None, HistoryReason.ACCEPTED, payment.created_by)], now=NOW)
    return payment


async def types_written(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(select(events.c.type))).scalars())


def test_only_the_beginning_may_go_unwritten() -> None:
    assert {EventType.INITIATED} == WRITTEN_IF_WANTED < set(EVENT_OF_MOVE.values())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(None, id="no endpoint"),
        pytest.param({"event_types": ["payment.completed"]}, id="wants something else"),
        pytest.param({"enabled": False}, id="disabled"),
        pytest.param({"enabled": False, "deleted_at": NOW}, id="deleted"),
    ],
)
async def test_without_an_endpoint_that_wants_it_nothing_is_written_and_nothing_is_missed(
    database: Database, settings: Settings, changes: dict[str, Any] | None
) -> None:
    if changes is not None:
        await endpoint(database, settings, **changes)
    await accept(database)
    assert await types_written(database) == []
    assert (await look(database)).totals == {}


async def test_an_endpoint_that_wants_it_gets_it_and_verify_misses_it_otherwise(
    database: Database, settings: Settings
) -> None:
    await endpoint(database, settings)
    await accept(database)
    assert await types_written(database) == ["payment.initiated"]
    assert (await look(database)).totals == {}
    async with database.transaction() as connection:
        await connection.execute(delete(deliveries))
    assert (await look(database)).totals == {BreachKind.MISSING_ENDPOINT_DELIVERY: 1}
    async with database.transaction() as connection:
        await connection.execute(delete(events))
    assert (await look(database)).totals == {BreachKind.EVENT_MISSING: 1}


async def test_an_endpoint_gets_it_from_its_creation_on(database: Database, settings: Settings) -> None:
    await accept(database)
    await endpoint(database, settings, created_at=NOW, updated_at=NOW)
    later = await accept(database)
    async with database.read() as connection:
        assert list((await connection.execute(select(deliveries.c.payment_id))).scalars()) == [later.id]
    assert (await look(database)).totals == {}
