"""No receiver, owner or name server takes more than its share of a running pool. Counted, never timed."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from time import monotonic
from typing import Any

from aiohttp import web

from shared.config.settings import Settings
from shared.config.values import Service
from shared.database.leases import WorkItem
from shared.webhooks.address_policy import AddressPolicy
from tests.support.delivery_pools import MakeSettings, World, running
from tests.support.receivers import RUNNING, answering, hanging, receiver
from tests.support.resolvers import FixedResolver, HangingResolver
from tests.support.waiting import eventually
from worker.deliveries.pool import DeliveryPool

pytest_plugins = ["tests.support.delivery_fixtures"]


async def callbacks(world: World, url: str, count: int) -> list[WorkItem]:
    """Complete payments with this callback; return the work items of the callbacks."""
    items = await world.pay(count, callback_url=url)
    rows = await world.rows(items)
    return [item for item, row in zip(items, rows, strict=True) if row.kind == "callback"]


async def offer_callbacks(world: World, pool: DeliveryPool, urls: Sequence[str], count: int = 1) -> list[WorkItem]:
    items = [item for url in urls for item in await callbacks(world, url, count)]
    await pool.offer(items)
    return items


async def slow_or_quick(request: web.Request) -> web.StreamResponse:
    """Hang on paths that begin with /slow, and take the rest at once."""
    if request.path.startswith("/slow"):
        await request.app[RUNNING].closing.wait()
    return web.Response()


async def test_a_slow_path_does_not_stop_the_other_paths_of_its_host(world: World, settings: Settings) -> None:
    async with receiver(slow_or_quick) as host, running(world, settings) as pool:
        url = host.url.removesuffix("/hook")
        for number in range(4):
            await world.endpoint(f"{url}/slow{number}")
        to_slow = await world.pay(20)
        await pool.offer(to_slow)
        await eventually(lambda: len(host.requests) == 10)
        quick = await callbacks(world, f"{url}/quick", 20)
        await pool.offer(quick)
        await world.until("delivered", quick)
        assert sum(request.path.startswith("/slow") for request in host.requests) == 10


async def test_one_user_with_many_hanging_hosts_does_not_stop_others(world: World, settings: Settings) -> None:
    resolver = FixedResolver("127.0.0.1")
    async with receiver(hanging()) as dead, receiver() as alive, running(world, settings, resolver=resolver) as pool:
        urls = [f"http://h{number}.example{number % 40}.test:{dead.port}/" for number in range(80)]
        await offer_callbacks(world, pool, urls)
        await eventually(lambda: len(dead.requests) == 40)
        await world.endpoint(alive.url)
        healthy = await world.pay(20)
        await pool.offer(healthy)
        await world.until("delivered", healthy)
        assert (len(dead.requests), pool.queued) == (40, 40)


async def test_names_that_hang_hold_few_lookups_and_delay_no_other_name(world: World, settings: Settings) -> None:
    resolver = HangingResolver("127.0.0.1", hanging=".slow.test")
    async with receiver() as alive, running(world, settings, resolver=resolver) as pool:
        await offer_callbacks(world, pool, [f"http://h{number}.slow.test/" for number in range(80)])
        await eventually(lambda: resolver.pending == 10)
        good = await offer_callbacks(world, pool, [f"http://good{n}.test:{alive.port}/" for n in range(20)])
        await world.until("delivered", good)
        assert resolver.pending_max == 10


# -- receivers that ask for a pause


async def test_too_many_requests_holds_the_endpoint_back_and_not_the_one_delivery(
    world: World, make_settings: MakeSettings
) -> None:
    settings = make_settings(webhook_retry_schedule=(5, 300, 1800, 7200))
    asks = answering(429, headers={"retry-after": "3600"})
    async with receiver(asks) as busy, receiver() as other, running(world, settings) as pool:
        await world.endpoint(busy.url)
        items = await world.pay(300)
        await pool.offer(items)
        rows = await _until_put_off(world, items)
        assert len(busy.requests) <= 5
        assert sum(row.attempts_total for row in rows) == len(busy.requests)
        # Those that were never attempted keep their whole schedule.
        assert {row.retries for row in rows if not row.attempts_total} == {0}
        # What happens later waits, too, and another receiver does not.
        requests = len(busy.requests)
        leased = await world.pay_and_lease(20)
        pool.send_leased(leased, monotonic())
        await _until_put_off(world, [delivery.work_item for delivery in leased])
        callback = await callbacks(world, other.url, 1)
        await pool.offer(callback)
        await world.until("delivered", callback)
        assert len(busy.requests) == requests


async def _until_put_off(world: World, items: Sequence[WorkItem]) -> list[Any]:
    """Wait until all deliveries are due in about an hour, and return the rows."""

    async def rows_if_so() -> list[Any]:
        rows = await world.rows(items)
        put_off = [
            row for row in rows if row.status == "pending" and row.due_at - row.updated_at > timedelta(minutes=59)
        ]
        return rows if len(put_off) == len(items) else []

    return await eventually(rows_if_so)


async def test_a_receiver_that_asked_for_a_pause_is_sent_to_after_it(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_retry_schedule=(0.2, 0.2, 0.2))
    asks = answering(503, headers={"retry-after": "1"})
    async with receiver(asks, answering(200)) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        items = await world.pay(20)
        await pool.offer(items)
        await world.until("delivered", items, pool)
        assert len(shop.requests) == 21


# -- bursts


async def test_what_finds_no_room_comes_back_soon_and_not_when_its_lease_ends(world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings, queue_max=40) as pool:
        await world.endpoint(shop.url)
        offered = await world.pay(40)
        leased = await world.pay_and_lease(40)
        pool.send_leased(leased, monotonic())
        await pool.offer(offered)
        items = [*offered, *(delivery.work_item for delivery in leased)]
        await world.until("delivered", items, pool)
        await eventually(lambda: pool.in_flight == pool.queued == 0)
    assert sorted(request.headers["webhook-id"] for request in shop.requests) == sorted(str(item.id) for item in items)


async def test_a_backlog_that_waits_for_its_share_lets_payments_be_settled_with_leased_deliveries(
    world: World, settings: Settings
) -> None:
    async with receiver(hanging()) as dead, running(world, settings) as pool:
        await world.endpoint(dead.url)
        items = await world.pay(500)
        await pool.offer(items)
        await eventually(lambda: len(dead.requests) == 5)
        assert pool.queued == 495
        assert pool.has_capacity


# -- the order service


async def test_the_order_service_is_closed_to_users_and_open_to_services(
    world: World, make_settings: MakeSettings
) -> None:
    settings = make_settings(webhook_retry_schedule=())
    async with receiver() as orders:
        open_to_services = AddressPolicy((ip_network("127.0.0.0/8"),), frozenset())
        closed = replace(open_to_services, services=(Service("127.0.0.1", orders.port),))
        async with running(world, settings, user_policy=closed) as pool:
            await world.endpoint(orders.url)
            items = await world.pay(3, callback_url=orders.url)
            rows = await world.rows(items)
            by_kind = {
                kind: [item for item, row in zip(items, rows, strict=True) if row.kind == kind]
                for kind in ("endpoint", "callback")
            }
            await pool.offer(by_kind["endpoint"])
            await world.until("delivered", by_kind["endpoint"])
            # The connections of the endpoint are still open, and the callback gets none of them.
            await pool.offer(by_kind["callback"])
            ended = await world.until("exhausted", by_kind["callback"])
    assert {row.last_error for row in ended} == {"the URL leads to an address that deliveries may not reach"}
    assert len(orders.requests) == 3
