"""The claims under which the delivery pool sends: leases made elsewhere, leases that are lost, and a shutdown."""

import asyncio
from time import monotonic

from structlog.testing import capture_logs

from shared.config.settings import Settings
from shared.database.leases import WorkItem
from shared.webhooks.deliveries import claim_deliveries
from tests.support.delivery_pools import World, end_leases, new_pool, running
from tests.support.receivers import answering, hanging, receiver, waiting_for
from tests.support.waiting import eventually
from worker.deliveries.claims import REUSABLE_S

pytest_plugins = ["tests.support.delivery_fixtures"]


async def test_a_leased_delivery_is_sent_without_another_claim(world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings) as pool:
        endpoint = await world.endpoint(shop.url)
        await eventually(lambda: pool.has_capacity)
        leased = await world.pay_and_lease(3)
        pool.send_leased(leased, monotonic())
        rows = await world.until("delivered", [delivery.work_item for delivery in leased])
    assert [(row.lease_version, row.retries, row.attempts_total) for row in rows] == [(1, 1, 1)] * 3
    assert {request.headers["webhook-id"] for request in shop.requests} == {str(row.id) for row in rows}
    for request in shop.requests:
        assert request.verified(endpoint.secret)["type"] == "payment.completed"


async def test_a_delivery_that_was_leased_too_long_ago_is_claimed_anew(world: World, settings: Settings) -> None:
    """It would be signed with a moment that is over, and its lease might end while it is sent."""
    async with receiver() as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        await eventually(lambda: pool.has_capacity)
        leased = await world.pay_and_lease()
        pool.send_leased(leased, monotonic() - REUSABLE_S)
        [row] = await world.until("delivered", [delivery.work_item for delivery in leased])
    assert (row.lease_version, row.retries, row.attempts_total) == (2, 1, 1)
    assert len(shop.requests) == 1


async def test_a_leased_delivery_that_is_never_sent_comes_again_when_its_lease_is_over(
    world: World, settings: Settings
) -> None:
    async with receiver() as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        # The worker that leased it has died.
        [leased] = await world.pay_and_lease(lease_for_s=0)
        [row] = await world.until("delivered", [leased.work_item], pool)
    assert (row.lease_version, row.attempts_total, len(shop.requests)) == (2, 1, 1)


async def test_a_record_after_the_lease_was_lost_changes_nothing(world: World, settings: Settings) -> None:
    released = asyncio.Event()
    async with receiver(waiting_for(released)) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        await eventually(lambda: shop.requests)
        async with world.database.transaction() as connection:
            await end_leases(connection)
            now = await world.database.clock.now(connection)
            assert await claim_deliveries(connection, now, [WorkItem(item.id, 1)], lease_s=30) != [None]
        with capture_logs() as logs:
            released.set()
            await eventually(lambda: pool.in_flight == 0)
    assert [line["event"] for line in logs] == ["delivery.superseded"]
    [row] = await world.rows([item])
    assert (row.status, row.lease_version, row.attempts_total) == ("sending", 2, 0)
    assert await world.attempts(item) == []


async def test_a_crashed_workers_delivery_is_sent_when_its_lease_has_ended(world: World, settings: Settings) -> None:
    async with receiver() as shop:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        async with world.database.transaction() as connection:
            now = await world.database.clock.now(connection)
            await claim_deliveries(connection, now, [item], lease_s=30)
            await end_leases(connection)
        async with running(world, settings) as pool:
            [row] = await world.until("delivered", [item], pool)
    assert (row.lease_version, row.retries) == (2, 1)


async def test_a_shutdown_releases_what_is_being_sent_uncounted(world: World, settings: Settings) -> None:
    async with receiver(hanging()) as shop:
        await world.endpoint(shop.url)
        items = await world.pay(5)
        async with running(world, settings) as pool:
            await pool.offer(items)
            await eventually(lambda: len(shop.requests) == 5)
            await pool.stop(grace_s=0)
            assert pool.in_flight == 0
            assert await pool.offer(items) == 0
        rows = await world.rows(items)
        assert [(row.status, row.retries, row.attempts_total) for row in rows] == [("pending", 0, 0)] * 5
        shop.script[:] = [answering(200)]
        async with running(world, settings) as successor:
            await world.until("delivered", items, successor)


async def test_a_shutdown_releases_leased_deliveries_that_wait(world: World, settings: Settings) -> None:
    async with receiver(hanging()) as shop:
        await world.endpoint(shop.url)
        settings = settings.model_copy(update={"webhook_concurrency": 1})
        async with running(world, settings) as pool:
            await eventually(lambda: pool.has_capacity)
            leased = await world.pay_and_lease(3)
            pool.send_leased(leased[:2], monotonic())
            await eventually(lambda: len(shop.requests) == 1)
            assert pool.has_capacity
            stopping = asyncio.create_task(pool.stop(grace_s=0.1))
            await eventually(lambda: not pool.has_capacity)
            # Its payment was being recorded when the stop came.
            pool.send_leased(leased[2:], monotonic())
            await stopping
        rows = await world.rows([delivery.work_item for delivery in leased])
        assert [(row.status, row.retries) for row in rows] == [("pending", 0)] * 3


async def test_a_shutdown_lets_open_sends_finish_within_the_grace(world: World, settings: Settings) -> None:
    released = asyncio.Event()
    async with receiver(waiting_for(released)) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        await eventually(lambda: shop.requests)
        assert pool.has_capacity
        stopping = asyncio.create_task(pool.stop(grace_s=10))
        await eventually(lambda: not pool.has_capacity)
        released.set()
        await stopping
    [row] = await world.rows([item])
    assert (row.status, row.attempts_total) == ("delivered", 1)


async def test_stopping_a_pool_that_never_ran_returns(world: World, settings: Settings) -> None:
    await new_pool(world.database, world.keyring, settings).stop(grace_s=1)
