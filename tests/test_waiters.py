"""The waiters behind long polls, with Redis and without: what ends a wait, and how many there may be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from uuid import UUID

import pytest
from redis.asyncio import Redis

from api.long_poll import POLL_INTERVAL_S, LongPolls
from shared.broker.client import SETTLED_CHANNEL, Broker, open_broker
from shared.database.engine import Database
from shared.payments.find import find_many
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, accepted, added, order, paid
from tests.support.long_polls import Failing
from tests.support.scripted_databases import Scripted
from tests.support.servers import ValkeyServer, free_port
from tests.support.settling import APPROVED, DECLINED, claimed, settled
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]


@asynccontextmanager
async def running_polls(database: Database, broker: Broker, *, capacity: int = 100) -> AsyncIterator[LongPolls]:
    long_polls = LongPolls(database, broker, capacity=capacity)
    running = asyncio.create_task(long_polls.run())
    try:
        yield long_polls
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()


async def subscribed(redis_url: str) -> None:
    """Return as soon as there is a subscription to settled payments."""
    client = Redis.from_url(redis_url)

    async def subscriptions() -> int:
        [(_channel, count)] = await client.pubsub_numsub(SETTLED_CHANNEL)
        return int(count)

    _: int = await eventually(subscriptions)
    await client.aclose()


async def test_a_message_ends_a_wait_sooner_than_the_next_look(runtime: Runtime, running_api: RunningApi) -> None:
    user = running_api.user()
    rounds, elapsed_s = 6, 0.0
    async with running_polls(runtime.database, runtime.broker) as long_polls:
        await subscribed(running_api.settings.redis_url or "")
        for _ in range(rounds):
            payment = await paid(user)
            async with long_polls.subscribe(UUID(payment["id"]), find_many) as waiter:
                assert waiter is not None
                await settled(runtime.database, payment["id"], APPROVED)
                began = monotonic()
                assert await runtime.broker.notify_settled([UUID(payment["id"])])
                ended = await asyncio.wait_for(waiter, 10)
                elapsed_s += monotonic() - began
            assert ended is not None
            assert ended.status == "COMPLETED"
    assert (
        elapsed_s < (rounds - 1) * POLL_INTERVAL_S * 0.8
    )  # looks alone would take a second for each round but the first


async def test_without_redis_a_look_a_second_finds_what_has_ended(runtime: Runtime, running_api: RunningApi) -> None:
    nowhere = open_broker(f"redis://127.0.0.1:{free_port()}/0")
    payment = await paid(running_api.user())
    async with (
        running_polls(runtime.database, nowhere) as long_polls,
        long_polls.subscribe(UUID(payment["id"]), find_many) as waiter,
    ):
        assert waiter is not None
        await settled(runtime.database, payment["id"], DECLINED)
        ended = await asyncio.wait_for(waiter, POLL_INTERVAL_S + 5)
        assert ended is not None
        assert ended.status == "FAILED"
    await nowhere.close()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_long_polls_survive_redis_and_subscribe_again(
    runtime: Runtime, running_api: RunningApi, tmp_path: Path
) -> None:
    user = running_api.user()
    with ValkeyServer(tmp_path / "valkey") as valkey:
        broker = open_broker(valkey.url)
        async with running_polls(runtime.database, broker) as long_polls:
            await subscribed(valkey.url)
            valkey.kill()
            payment = await paid(user)
            async with long_polls.subscribe(UUID(payment["id"]), find_many) as waiter:
                await settled(runtime.database, payment["id"], APPROVED)
                assert waiter is not None
                assert await asyncio.wait_for(waiter, 10) is not None
            valkey.start()
            await subscribed(valkey.url)
        await broker.close()


async def test_strange_messages_on_the_channel_are_ignored(
    runtime: Runtime, running_api: RunningApi, redis_url: str
) -> None:
    payment = await paid(running_api.user())
    async with (
        Redis.from_url(redis_url) as stranger,
        running_polls(runtime.database, runtime.broker) as long_polls,
        long_polls.subscribe(UUID(payment["id"]), find_many) as waiter,
    ):
        await subscribed(redis_url)
        for message in (b"", b"x", b"\xff", b"1", b"null", b"{}", b'["x"]', b"[1, null]", b'{"a": 1}', b"[[]]"):
            await stranger.publish(SETTLED_CHANNEL, message)
        await settled(runtime.database, payment["id"], APPROVED)
        await runtime.broker.notify_settled([UUID(payment["id"])])
        assert waiter is not None
        assert await asyncio.wait_for(waiter, 10) is not None


async def test_one_query_serves_all_whose_payments_settled_together(runtime: Runtime, running_api: RunningApi) -> None:
    user = running_api.user()
    method_id = await added(user)
    ids = [UUID((await accepted(user, order(method_id)))["id"]) for _ in range(10)]
    for payment_id in ids:
        await settled(runtime.database, str(payment_id), APPROVED)
    counting = Scripted(runtime.database)
    async with AsyncExitStack() as stack:
        long_polls = await stack.enter_async_context(running_polls(counting, runtime.broker))
        await subscribed(running_api.settings.redis_url or "")
        all_waiters = [
            await stack.enter_async_context(long_polls.subscribe(payment_id, find_many))
            for payment_id in ids
            for _ in range(5)
        ]
        await runtime.broker.notify_settled(ids)
        ended = await asyncio.gather(*(waiter for waiter in all_waiters if waiter))
        assert len(ended) == 50
        assert counting.reads <= 2  # a look of the second may have come between


async def test_a_payment_that_has_not_ended_ends_no_wait(runtime: Runtime, running_api: RunningApi) -> None:
    payment = await paid(running_api.user())
    counting = Scripted(runtime.database)
    async with (
        running_polls(counting, runtime.broker) as long_polls,
        long_polls.subscribe(UUID(payment["id"]), find_many) as waiter,
    ):
        await subscribed(running_api.settings.redis_url or "")
        await claimed(runtime.database, payment["id"])
        await runtime.broker.notify_settled([UUID(payment["id"])])
        await eventually(lambda: counting.reads)
        assert waiter is not None
        assert not waiter.done()


async def test_there_is_capacity_again_when_a_waiter_leaves(runtime: Runtime, running_api: RunningApi) -> None:
    payment_id = UUID((await paid(running_api.user()))["id"])
    long_polls = LongPolls(runtime.database, runtime.broker, capacity=1)
    async with long_polls.subscribe(payment_id, find_many) as first:
        assert first is not None
        async with long_polls.subscribe(payment_id, find_many) as second:
            assert second is None
    async with long_polls.subscribe(payment_id, find_many) as third:
        assert third is not None
    # A payment whose last waiter has left would be read every second, for ever, and nothing else would show it.
    assert long_polls._subscriptions == {}


async def test_long_polls_outlive_a_database_that_is_away(runtime: Runtime, running_api: RunningApi) -> None:
    payment = await paid(running_api.user())
    await settled(runtime.database, payment["id"], APPROVED)
    failing = Failing(runtime.database)
    async with (
        running_polls(failing, runtime.broker) as long_polls,
        long_polls.subscribe(UUID(payment["id"]), find_many) as waiter,
    ):
        await eventually(lambda: failing.reads)
        failing.is_failing = False
        assert waiter is not None
        assert await asyncio.wait_for(waiter, 10) is not None


async def test_at_shutdown_every_wait_ends_and_none_begins(runtime: Runtime) -> None:
    long_polls = LongPolls(runtime.database, runtime.broker, capacity=10)
    payment_id = UUID("0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00")
    async with long_polls.subscribe(payment_id, find_many) as waiter:
        assert waiter is not None
        long_polls.cancel_all()
        assert await waiter is None
        async with long_polls.subscribe(payment_id, find_many) as late:
            assert late is None
