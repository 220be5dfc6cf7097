"""`payments verify`: sound work is never reported, whatever its state and at every moment."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, func, select, update

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import deliveries, gateway_ledger, payments, webhook_endpoints
from shared.ids import new_id
from shared.payments.events import emit_order_conflicts
from shared.runtime import Runtime
from shared.verify.breaches import BreachKind
from tests.support.api_client import RunningApi, added, order
from tests.support.settling import APPROVED
from tests.support.verified import (
    LONG_AGO,
    NOW,
    World,
    accept,
    bind,
    build,
    look,
    of_delivery,
    record_entry,
    settle,
)
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    return await build(database, settings)


async def test_an_empty_database_is_sound(database: Database) -> None:
    found = await look(database)
    assert (found.is_sound, found.payments, found.keys) == (True, 0, 0)
    assert found.oldest_due_s == {"payments": 0, "refunds": 0, "deliveries": 0}
    assert found.oldest_unclaimed_s == {"payments": 0, "refunds": 0, "deliveries": 0}


@pytest.mark.parametrize("range_size", [1, 4, 5, 6, 1000])
async def test_every_payment_and_key_is_looked_at_once(database: Database, world: World, range_size: int) -> None:
    found = await look(database, range_size=range_size)
    assert (found.totals, found.payments, found.keys) == ({}, 5, 5)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"created_at": NOW, "updated_at": NOW}, id="registered in the same moment"),
        pytest.param({"updated_at": NOW + timedelta(minutes=5)}, id="changed later"),
        pytest.param({"updated_at": NOW - timedelta(seconds=30)}, id="changed a moment before"),
        pytest.param({"enabled": False}, id="disabled"),
        pytest.param({"deleted_at": LONG_AGO, "enabled": False}, id="deleted"),
        pytest.param({"event_types": ["payment.order_conflict"]}, id="of another type"),
    ],
)
async def test_an_endpoint_that_may_not_have_matched_is_no_breach(
    database: Database, world: World, changes: dict[str, Any]
) -> None:
    async with database.transaction() as connection:
        await connection.execute(delete(deliveries).where(of_delivery(world, "endpoint")))
        await connection.execute(
            update(webhook_endpoints).where(webhook_endpoints.c.id == world.endpoint).values(**changes)
        )
        await connection.execute(delete(deliveries).where(deliveries.c.endpoint_id == world.endpoint))
    assert (await look(database)).totals == {}


async def test_a_key_that_found_a_known_card_names_nothing_and_is_no_breach(database: Database) -> None:
    async with database.transaction() as connection:
        await bind(connection, "user:1 POST /payment-methods", new_id())
    assert (await look(database)).totals == {}


async def test_a_conflict_event_beside_a_completion_is_no_breach(database: Database, world: World) -> None:
    async with database.transaction() as connection:
        await emit_order_conflicts(connection, [world.completed], now=NOW)
    assert (await look(database)).totals == {}


async def test_a_payment_completed_before_the_first_order_update_is_no_breach(
    database: Database, settings: Settings
) -> None:
    earlier = LONG_AGO - timedelta(hours=1)
    early = await accept(database, at=earlier)
    async with database.transaction() as connection:
        await settle(connection, early, APPROVED, at=earlier, confirms_order=False)
        await record_entry(connection, early.id, "sale", 1)
    assert (await look(database, confirms_orders=True)).totals == {}
    await build(database, settings)
    assert (await look(database, confirms_orders=True)).totals == {}
    before = earlier - timedelta(seconds=1)
    assert (await look(database, confirms_orders=False, orders_since=before)).totals == {}
    assert (await look(database, orders_since=before)).totals == {BreachKind.MISSING_ORDER_DELIVERY: 1}


@pytest.mark.parametrize("status", ["delivered", "exhausted", "cancelled"])
async def test_an_order_update_that_was_delivered_or_failed_with_a_reason_is_no_breach(
    database: Database, world: World, status: str
) -> None:
    error = None if status == "delivered" else "the order was cancelled"
    ended = {"status": status, "last_error": error, "due_at": None}
    async with database.transaction() as connection:
        await connection.execute(update(deliveries).where(of_delivery(world, "order")).values(**ended))
    assert (await look(database, orders_since=LONG_AGO)).totals == {}


@pytest.mark.parametrize("kind", ["authorize", "sale"])
async def test_what_was_voided_may_have_failed(database: Database, world: World, kind: str) -> None:
    of_failed = gateway_ledger.c.payment_id == world.failed
    async with database.transaction() as connection:
        await connection.execute(update(gateway_ledger).where(of_failed).values(kind=kind))
        await record_entry(connection, world.failed, "void", 2)
    assert (await look(database)).totals == {}


async def test_what_is_due_within_the_limit_is_no_breach_and_its_age_is_reported(
    database: Database, world: World
) -> None:
    at = datetime.now(UTC) - timedelta(seconds=20)
    async with database.transaction() as connection:
        await connection.execute(update(payments).where(payments.c.id == world.pending).values(due_at=at))
    found = await look(database, due_max_s=30)
    assert found.totals == {}
    assert 20 <= found.oldest_due_s["payments"] < 30
    assert (await look(database, due_max_s=10)).totals == {BreachKind.PAYMENT_OVERDUE: 1}


async def test_what_its_request_wants_to_stay_pending_is_no_breach(database: Database, world: World) -> None:
    asked = update(payments).where(payments.c.id == world.pending)
    waits: dict[str, Any] = {"outcomes": [], "delay_ms": None, "pending_ms": 86_400_000}
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    async with database.transaction() as connection:
        await connection.execute(asked.values(created_at=LONG_AGO, due_at=tomorrow, steering=waits))
    found = await look(database)
    assert (found.totals, found.oldest_unclaimed_s["payments"]) == ({}, 0)
    async with database.transaction() as connection:
        await connection.execute(asked.values(steering={**waits, "pending_ms": None}))
    assert (await look(database)).totals == {BreachKind.PAYMENT_UNCLAIMED: 1}


async def test_a_service_at_work_is_sound_at_every_moment(
    running_api: RunningApi, runtime: Runtime, user: httpx.AsyncClient, service: httpx.AsyncClient
) -> None:
    """Payments are accepted, charged, settled, cancelled and delivered while one scan follows the other."""
    (await service.post("/webhook-endpoints", json={"name": "shop", "url": "http://127.0.0.1:9/"})).raise_for_status()
    method = await added(user)
    paid = scans = 0

    async def pay(number: int) -> None:
        body = order(method, callback_url="http://127.0.0.1:9/")
        answer = await user.post("/payments", json=body, headers={"Idempotency-Key": f"k{number}"})
        if number % 5 == 0:
            await user.post(f"/payments/{answer.json()['id']}/cancel")

    async def pay_many() -> None:
        nonlocal paid
        # On a busy machine the scans take longer than the payments: there must be some beside the other.
        while paid < 60 or scans <= 3:
            await asyncio.gather(*(pay(number) for number in range(paid, paid + 20)))
            paid += 20

    async def have_ended() -> bool:
        async with runtime.database.read() as connection:
            still_open = select(func.count()).select_from(payments).where(payments.c.due_at.is_not(None))
            return (await connection.execute(still_open)).scalar_one() == 0

    async with working(runtime):
        paying = asyncio.create_task(pay_many())
        while not (paying.done() and await have_ended()):
            found = await look(runtime.database, range_size=50, confirms_orders=False)
            assert found.totals == {}, found.shown
            scans += 1
        await paying
    assert scans > 3
    assert (await look(runtime.database, confirms_orders=False)).payments == paid
