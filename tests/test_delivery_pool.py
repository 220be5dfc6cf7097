"""The delivery pool: what it sends, to how many hosts at once, and what it does in trouble; with real receivers."""

import asyncio

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select
from standardwebhooks.webhooks import WebhookVerificationError
from structlog.testing import capture_logs

from shared.config.settings import Settings
from shared.database.leases import WorkItem
from shared.database.tables import events
from shared.ids import new_id
from shared.keyring import new_webhook_secret
from tests.support.delivery_pools import USER_AGENT, MakeSettings, SwitchableDatabase, World, running
from tests.support.receivers import answering, hanging, receiver, waiting_for
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.delivery_fixtures"]

# -- what receivers get


async def test_an_endpoint_gets_exactly_the_events_bytes_signed_with_its_secret(
    world: World, settings: Settings
) -> None:
    async with receiver() as shop, running(world, settings) as pool:
        endpoint = await world.endpoint(shop.url)
        [item] = await world.pay()
        assert await pool.offer([item]) == 1
        [row] = await world.until("delivered", [item])
        [request] = shop.requests
        async with world.database.read() as connection:
            body = (await connection.execute(select(events.c.body).where(events.c.id == row.event_id))).scalar_one()
    assert request.body == body.encode()
    assert request.verified(endpoint.secret)["type"] == "payment.completed"
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["webhook-id"] == str(item.id)
    assert (headers["content-type"], headers["user-agent"]) == ("application/json", USER_AGENT)
    assert headers["x-correlation-id"] == "order-4711"
    assert "accept-encoding" not in headers
    with pytest.raises(WebhookVerificationError):
        request.verified(new_webhook_secret())


async def test_a_callback_is_signed_with_its_owners_secret(world: World, settings: Settings) -> None:
    async with receiver() as client, running(world, settings) as pool:
        [item] = await world.pay(callback_url=client.url)
        await pool.offer([item])
        await world.until("delivered", [item])
        assert client.requests[0].verified(world.keyring.callback_secret("user:1"))["type"] == "payment.completed"


async def test_duplicate_stale_and_unknown_work_items_send_nothing_more(world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [item, other] = await world.pay(2)
        await asyncio.gather(*(pool.offer([item, item, WorkItem(item.id, 5), WorkItem(new_id(), 0)]) for _ in range(5)))
        await pool.offer([other])
        await world.until("delivered", [item, other])
        assert await pool.offer([item, WorkItem(item.id, 1), other]) == 0
        await eventually(lambda: pool.in_flight == pool.queued == 0)
        assert len(shop.requests) == 2
    assert len(await world.attempts(item)) == 1


async def test_two_workers_with_the_same_work_items_send_each_delivery_once(world: World, settings: Settings) -> None:
    async with receiver() as shop, running(world, settings) as one, running(world, settings) as two:
        await world.endpoint(shop.url)
        items = await world.pay(50)
        await asyncio.gather(one.offer(items), two.offer(items[::-1]))
        await world.until("delivered", items)
        await eventually(lambda: one.in_flight == two.in_flight == 0)
        assert sorted(request.headers["webhook-id"] for request in shop.requests) == sorted(
            str(item.id) for item in items
        )


# -- slots


async def test_a_hanging_receiver_delays_no_other(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_concurrency=40, webhook_concurrency_per_host=20)
    async with receiver(hanging()) as dead, receiver() as alive, running(world, settings) as pool:
        await world.endpoint(dead.url)
        to_dead = await world.pay(20)
        to_alive = [item for item in await world.pay(20, callback_url=alive.url) if item not in to_dead]
        callbacks = [row.id for row in await world.rows(to_alive) if row.kind == "callback"]
        await pool.offer([*to_dead, *to_alive])
        await world.until("delivered", [item for item in to_alive if item.id in callbacks])
        await eventually(lambda: len(dead.requests) == pool.in_flight == 2)
        assert pool.queued == 38


async def test_no_host_gets_more_than_its_slots(world: World, make_settings: MakeSettings) -> None:
    released = asyncio.Event()
    settings = make_settings(webhook_concurrency=10, webhook_concurrency_per_host=3)
    async with receiver(answering(200), waiting_for(released)) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [first, *items] = await world.pay(13)
        await pool.offer([first])
        await world.until("delivered", [first])
        await pool.offer(items)
        await eventually(lambda: len(shop.requests) == 4)
        assert (pool.in_flight, pool.queued) == (3, 9)
        released.set()
        await world.until("delivered", items)
        await eventually(lambda: pool.in_flight == 0)
        assert len(shop.requests) == 13


# -- trouble


async def test_a_work_item_that_meets_a_database_outage_is_dropped_and_comes_again(
    world: World, settings: Settings
) -> None:
    database = SwitchableDatabase(world.database)
    async with receiver() as shop, running(world, settings, database=database) as pool:
        await world.endpoint(shop.url)
        [item, other] = await world.pay(2)
        database.is_on = False
        assert await pool.offer([item]) == 0
        database.is_on = True
        await pool.offer([other])
        # After the host was read, and before the claim.
        database.is_on = False
        with capture_logs() as logs:
            await eventually(lambda: pool.in_flight == pool.queued == 0)
        assert [line["event"] for line in logs] == ["group_commit.failed", "delivery.item_dropped"]
        assert shop.requests == []
        database.is_on = True
        assert await pool.offer([item, other]) == 2
        await world.until("delivered", [item, other])


async def test_an_attempt_is_recorded_when_the_database_is_back_and_not_sent_again(
    world: World, settings: Settings
) -> None:
    database, released = SwitchableDatabase(world.database), asyncio.Event()
    async with (
        receiver(waiting_for(released)) as shop,
        running(world, settings, database=database) as pool,
    ):
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        await eventually(lambda: shop.requests)
        with capture_logs() as logs:
            database.is_on = False
            released.set()
            await eventually(lambda: [line for line in logs if line["event"] == "group_commit.failed"])
            assert pool.in_flight == 1
            database.is_on = True
            await world.until("delivered", [item])
        assert len(shop.requests) == 1


async def test_a_bug_in_one_delivery_does_not_end_the_others(world: World, settings: Settings) -> None:
    bugs = [ZeroDivisionError()]

    def draw() -> float:
        if bugs:
            raise bugs.pop()
        return 0.0

    async with receiver() as shop, running(world, settings, jitter=draw) as pool:
        await world.endpoint(shop.url)
        items = await world.pay(3)
        with capture_logs() as logs:
            await pool.offer(items)
            await eventually(lambda: len(shop.requests) == 3 and pool.in_flight == 0)
    assert sorted(row.status for row in await world.rows(items)) == ["delivered", "delivered", "sending"]
    assert [line["event"] for line in logs].count("delivery.crashed") == 1


# -- log and metrics


async def test_log_lines_name_the_delivery_and_hold_no_secret_and_no_body(
    world: World, make_settings: MakeSettings
) -> None:
    settings = make_settings(webhook_retry_schedule=(0.01,))
    async with receiver(answering(500, b"receiver's words")) as shop, running(world, settings) as pool:
        endpoint = await world.endpoint(shop.url)
        [item] = await world.pay()
        with capture_logs() as logs:
            await pool.offer([item])
            [row] = await world.until("exhausted", [item], pool)
            await eventually(lambda: pool.in_flight == 0)  # the line follows the commit
    lines = [line for line in logs if line["event"].startswith("delivery.")]
    assert [line["event"] for line in lines] == ["delivery.failed", "delivery.exhausted"]
    for number, line in enumerate(lines, start=1):
        assert (line["delivery_id"], line["payment_id"]) == (str(item.id), str(row.payment_id))
        assert (line["correlation_id"], line["attempt"], line["status_code"]) == ("order-4711", number, 500)
    said = repr(logs)
    assert endpoint.secret not in said
    assert "receiver's words" not in said
    assert "Zwölf" not in said
    assert "/hook" not in said


async def test_attempts_are_counted_by_outcome(world: World, make_settings: MakeSettings) -> None:
    settings = make_settings(webhook_retry_schedule=(0.01,))
    before = {word: _counted(word) for word in ("delivered", "failed", "exhausted", "gone")}
    async with receiver(answering(500), answering(204)) as shop, running(world, settings) as pool:
        await world.endpoint(shop.url)
        [item] = await world.pay()
        await pool.offer([item])
        await world.until("delivered", [item], pool)
        await eventually(lambda: pool.in_flight == 0)
    assert {word: _counted(word) - count for word, count in before.items()} == {
        "delivered": 1,
        "failed": 1,
        "exhausted": 0,
        "gone": 0,
    }


def _counted(word: str) -> float:
    labels = {"kind": "endpoint", "outcome": word}
    return REGISTRY.get_sample_value("payments_delivery_attempts_total", labels) or 0.0
