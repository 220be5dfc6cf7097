"""A PATCH that changes nothing leaves no trace: nobody talks `payments verify` out of a lost delivery with one."""

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import delete, select, update
from typer.testing import CliRunner

from cli.main import app
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import deliveries, payment_methods, webhook_endpoints
from shared.verify.breaches import BreachKind
from tests.support.api_client import MASTERCARD, RunningApi, added, card, pointers
from tests.support.money import charged
from tests.support.processes import environment_of
from tests.support.verified import LONG_AGO, look, record_entry

pytest_plugins = ["tests.support.api_fixtures"]


async def changed_at(database: Database, table: Any, row_id: str) -> datetime:
    """When the row says that it was changed."""
    async with database.read() as connection:
        found = await connection.execute(select(table.c.updated_at).where(table.c.id == UUID(row_id)))
        moment: datetime = found.scalar_one()
    return moment


async def verdict(settings: Settings) -> int:
    """The exit code of `payments verify`, in a thread: it runs a loop of its own."""
    done = await asyncio.to_thread(CliRunner().invoke, app, ["verify"], env=environment_of(settings))
    return done.exit_code


async def lost_delivery(running_api: RunningApi) -> str:
    """The id of an endpoint that has been there for long, and was not told that a payment has completed."""
    admin, database = running_api.admin(), running_api.database
    registered = await admin.post("/webhook-endpoints", json={"name": "shop", "url": "https://shop.example/hook"})
    endpoint_id: str = registered.json()["id"]
    payment = await charged(running_api.user(), database)
    async with database.transaction() as connection:
        await record_entry(connection, UUID(payment["id"]), "sale", 1, amount=payment["amount"])
        old = update(webhook_endpoints).values(created_at=LONG_AGO, updated_at=LONG_AGO)
        await connection.execute(old.where(webhook_endpoints.c.id == UUID(endpoint_id)))
        await connection.execute(delete(deliveries))
    return endpoint_id


async def test_a_lost_delivery_is_found_until_its_endpoint_was_really_changed(
    running_api: RunningApi, settings: Settings, database: Database, admin: httpx.AsyncClient
) -> None:
    endpoint_id = await lost_delivery(running_api)
    assert (await look(database)).totals == {BreachKind.MISSING_ENDPOINT_DELIVERY: 1}
    path = f"/webhook-endpoints/{endpoint_id}"
    shown = (await admin.get(path)).json()
    same = {name: shown[name] for name in ("name", "url", "event_types", "enabled")}
    reordered = {"event_types": [*reversed(shown["event_types"]), *shown["event_types"]]}
    for body in ({}, *({name: value} for name, value in same.items()), same, reordered):
        answer = await admin.patch(path, json=body)
        assert (answer.status_code, answer.json()) == (200, shown), body
    for name in same:
        assert pointers(await admin.patch(path, json={name: None})) == [f"/{name}"]
    assert await changed_at(database, webhook_endpoints, endpoint_id) == LONG_AGO
    assert await verdict(settings) == 1
    # From here on nobody knows whether it wanted the event.
    assert (await admin.patch(path, json={"name": "new"})).status_code == 200
    assert await verdict(settings) == 0


async def test_a_payment_method_that_stays_as_it_is_was_not_changed(
    user: httpx.AsyncClient, database: Database
) -> None:
    other = await added(user, card(MASTERCARD))
    method_id = await added(user, card(display_name="old", is_default=True))
    async with database.transaction() as connection:
        await connection.execute(update(payment_methods).values(updated_at=LONG_AGO))
    shown = (await user.get(f"/payment-methods/{method_id}")).json()
    for body in ({}, {"display_name": "old"}, {"is_default": True}, {"display_name": "old", "is_default": True}):
        answer = await user.patch(f"/payment-methods/{method_id}", json=body)
        assert (answer.status_code, answer.json()) == (200, shown), body
    for wrong, pointer in (({"display_name": None}, "/display_name"), ({"is_default": False}, "/is_default")):
        assert pointers(await user.patch(f"/payment-methods/{method_id}", json=wrong)) == [pointer]
    # Nor was the one that is not the default, and was not before.
    for stays in (method_id, other):
        assert await changed_at(database, payment_methods, stays) == LONG_AGO
