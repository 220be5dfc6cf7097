"""Endpoints that are changed, disabled or deleted while deliveries to them wait or are being sent."""

import asyncio
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select

from shared.config.settings import Settings
from shared.database.tables import webhook_endpoints
from shared.webhooks.endpoints import change_endpoint, delete_endpoint, find_endpoint
from shared.webhooks.resend import resend
from tests.support.delivery_pools import MakeSettings, World, running
from tests.support.receivers import Behaviour, Endpoint, Receiver, answering, receiver, waiting_for
from tests.support.waiting import eventually
from worker.deliveries.claims import REUSABLE_S

pytest_plugins = ["tests.support.delivery_fixtures"]


async def change(world: World, endpoint: Endpoint, **changes: Any) -> None:
    """Change the endpoint as a PATCH does; with `deleted` as a DELETE does."""
    async with world.database.transaction() as connection:
        now = await world.database.clock.now(connection)
        found = await find_endpoint(connection, endpoint.id, created_by=None)
        assert found is not None
        if changes.pop("deleted", False):
            assert await delete_endpoint(connection, found, now=now)
        else:
            await change_endpoint(connection, found, changes, now=now)


async def is_enabled(world: World, endpoint: Endpoint) -> bool:
    async with world.database.read() as connection:
        found = await connection.execute(
            select(webhook_endpoints.c.enabled).where(webhook_endpoints.c.id == endpoint.id)
        )
        return bool(found.scalar_one())


# -- when a change takes effect


@pytest.mark.parametrize("changes", [{"enabled": False}, {"deleted": True}, {"url": "elsewhere"}])
async def test_a_change_takes_effect_within_half_a_second(
    world: World, make_settings: MakeSettings, changes: dict[str, Any]
) -> None:
    """150 deliveries were leased with their payments and wait for a slot; each takes the receiver 0.2 s."""
    settings = make_settings(webhook_concurrency=200, webhook_concurrency_per_host=10)
    arrivals: list[float] = []

    async def slow(request: Any) -> Any:
        arrivals.append(monotonic())
        await asyncio.sleep(0.2)
        return await answering(200)(request)

    async with receiver(slow) as shop, receiver() as other, running(world, settings) as pool:
        endpoint = await world.endpoint(shop.url)
        await eventually(lambda: pool.has_capacity)
        leased = await world.pay_and_lease(150)
        pool.send_leased(leased, monotonic())
        await eventually(lambda: arrivals)
        await change(world, endpoint, **{"url": other.url} if "url" in changes else changes)
        changed_at = monotonic()
        await eventually(lambda: pool.in_flight == pool.queued == 0)
        # A claim that was made before the change may be sent so much later.
        assert max(arrivals) - changed_at <= REUSABLE_S + 0.7
        assert len(arrivals) < 150
        assert len(other.requests) == (150 - len(arrivals) if "url" in changes else 0)


# -- what the log shows of a delivery whose endpoint was changed meanwhile


@pytest.mark.parametrize("changes", [{"enabled": False}, {"deleted": True}])
@pytest.mark.parametrize(
    ("answer", "status"), [(answering(200, b"thanks"), "delivered"), (answering(500, b"oops"), "cancelled")]
)
async def test_a_delivery_that_was_being_sent_shows_its_attempt(
    world: World, settings: Settings, changes: dict[str, Any], answer: Behaviour, status: str
) -> None:
    released = asyncio.Event()

    async def behave(request: Any) -> Any:
        await released.wait()
        return await answer(request)

    async with receiver(behave) as shop, running(world, settings) as pool:
        endpoint = await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        await eventually(lambda: shop.requests)
        await change(world, endpoint, **changes)
        assert [row.status for row in await world.rows([item])] == ["cancelled"]
        released.set()
        [row] = await world.attempted([item])
    assert (row.status, row.due_at) == (status, None)
    assert (row.delivered_at is not None) == (status == "delivered")
    [attempt] = await world.attempts(item)
    assert (attempt.status_code, attempt.url) == (200 if status == "delivered" else 500, shop.url)
    if status == "cancelled":
        assert row.last_error in {"disabled by its owner", "endpoint deleted"}


async def test_an_attempt_shows_the_url_that_it_went_to(world: World, settings: Settings) -> None:
    async with receiver() as first, receiver() as second, running(world, settings) as pool:
        endpoint = await world.endpoint(first.url)
        [item] = await world.pay()
        await pool.offer([item])
        await world.until("delivered", [item])
        await change(world, endpoint, url=second.url)
        async with world.database.transaction() as connection:
            resent = await resend(connection, await world.database.clock.now(connection), item.id)
        assert resent is not None
        await pool.offer([resent])
        await world.attempted([item], 2)
    assert [attempt.url for attempt in await world.attempts(item)] == [first.url, second.url]


async def test_a_410_of_the_url_before_a_change_does_not_disable_the_endpoint(world: World, settings: Settings) -> None:
    released = asyncio.Event()

    async def gone(request: Any) -> Any:
        await waiting_for(released)(request)
        return await answering(410)(request)

    async with receiver(gone) as old, receiver() as new, running(world, settings) as pool:
        endpoint = await world.endpoint(old.url)
        [item] = await world.pay()
        await pool.offer([item])
        await eventually(lambda: old.requests)
        await change(world, endpoint, url=new.url)
        released.set()
        await world.until("delivered", [item], pool)
        assert await is_enabled(world, endpoint)
        assert [attempt.status_code for attempt in await world.attempts(item)] == [410, 200]
        assert _count(new) == 1


def _count(shop: Receiver) -> int:
    return len(shop.requests)


# -- a changed DATA_KEY


async def test_a_secret_that_cannot_be_decrypted_is_not_retried_by_the_clock(world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings) as pool:
        endpoint = await world.endpoint(shop.url, secret="gAAAAA-of-another-key")
        [item] = await world.pay()
        await pool.offer([item])
        [row] = await world.until("exhausted", [item])
        assert (row.due_at, row.retries) == (None, 1)
        assert row.last_error == ("nothing was sent: the endpoint's secret cannot be decrypted: DATA_KEY has changed")
        assert shop.requests == []
        assert await is_enabled(world, endpoint)
        # The key is back.
        async with world.database.transaction() as connection:
            await connection.execute(
                webhook_endpoints.update()
                .where(webhook_endpoints.c.id == endpoint.id)
                .values(secret=world.keyring.encrypt(endpoint.secret), updated_at=datetime.now(UTC))
            )
            resent = await resend(connection, await world.database.clock.now(connection), item.id)
        assert resent is not None
        await pool.offer([resent])
        await world.until("delivered", [item])
        shop.requests[0].verified(endpoint.secret)
