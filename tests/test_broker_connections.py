"""Connections to Redis that lead nowhere, or to the wrong server: noticed within seconds by every use of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from uuid import UUID

import pytest
import redis
from redis.asyncio import ConnectionPool

from api.edge.redis_counts import RedisCounts
from shared.broker.client import PUBLISH_TIMEOUT_S, Broker, Queue, open_broker
from shared.broker.connections import SOCKET_TIMEOUT_S
from shared.broker.heartbeats import REDIS_TIMEOUT_S, WorkerStatus, alive_workers, send_heartbeat
from shared.broker.subscription import SILENCE_MAX_S
from shared.database.leases import WorkItem
from shared.errors import BrokerUnavailable
from shared.ids import new_id
from tests.support.messages import items_in
from tests.support.redis_proxy import RedisProxy, redis_proxy
from tests.support.servers import ValkeyServer
from tests.support.waiting import eventually
from worker.arq_loop import JobLoop

# Seconds within which everything is well again after a failover.
WELL_AFTER_S = 6.0
PROMPT_S = 1.0
STATUS = WorkerStatus(worker="w", slots=1, in_gateway=0, sending=0, settled=0, settled_per_s=0, uptime_s=1)
# How a server refuses what it is asked while it is not the master, and the commands that bring it there.
STALE = {
    "READONLY": ["REPLICAOF 127.0.0.1 1"],
    "MASTERDOWN": ["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
}


@pytest.fixture
def old(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "old") as server:
        yield server


@pytest.fixture
def new(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "new") as server:
        yield server


@pytest.fixture
async def proxy(old: ValkeyServer) -> AsyncIterator[RedisProxy]:
    async with redis_proxy(old.url) as proxy:
        yield proxy


@asynccontextmanager
async def brokers(url: str) -> AsyncIterator[Broker]:
    broker = open_broker(url)
    try:
        yield broker
    finally:
        await broker.close()


def fail_over(proxy: RedisProxy, old: ValkeyServer, new: ValkeyServer, commands: list[str]) -> None:
    """The name leads to another server from now on, and what was the master refuses; no connection ends."""
    proxy.target = new.url
    with redis.Redis.from_url(old.url) as client:
        for command in commands:
            client.execute_command(*command.split())


def clients_of(server: ValkeyServer) -> int:
    with redis.Redis.from_url(server.url) as client:
        return len(client.client_list()) - 1


@pytest.mark.parametrize("how", list(STALE))
async def test_publications_go_to_the_new_master(
    proxy: RedisProxy, old: ValkeyServer, new: ValkeyServer, how: str
) -> None:
    items = [WorkItem(new_id(), 0)]
    async with brokers(proxy.url) as broker, brokers(new.url) as observer:
        assert all(await asyncio.gather(*(broker.publish(Queue.PROCESS, items) for _ in range(5))))
        fail_over(proxy, old, new, STALE[how])
        assert not await broker.publish(Queue.PROCESS, items)
        await eventually(lambda: broker.publish(Queue.PROCESS, items), WELL_AFTER_S)
        assert await items_in(observer, Queue.PROCESS) == items
        # Not one of the pool's connections is left.
        await eventually(lambda: clients_of(old) == 0)


async def test_a_write_that_is_refused_closes_the_connections_of_every_pool(
    proxy: RedisProxy, old: ValkeyServer, new: ValkeyServer
) -> None:
    """A subscription only reads, so it cannot notice for itself."""
    ids = [new_id()]
    received: list[list[UUID]] = []

    async def listen(broker: Broker) -> None:
        while True:
            with contextlib.suppress(BrokerUnavailable):
                async with broker.subscribe_settled() as subscription:
                    while True:
                        received.append(await subscription.next_ids(timeout_s=PROMPT_S))

    async def arrives() -> bool:
        await observer.notify_settled(ids)
        return ids in received

    async with brokers(proxy.url) as broker, brokers(proxy.url) as reading, brokers(new.url) as observer:
        listening = asyncio.create_task(listen(reading))
        await eventually(lambda: clients_of(old) == 1)
        assert await broker.probe()
        fail_over(proxy, old, new, STALE["READONLY"])
        assert not await broker.probe()
        await eventually(arrives, WELL_AFTER_S)
        await eventually(lambda: clients_of(old) == 0)
        listening.cancel()
        await asyncio.wait([listening])


async def test_heartbeats_and_limits_go_to_the_new_master(
    proxy: RedisProxy, old: ValkeyServer, new: ValkeyServer
) -> None:
    async with brokers(proxy.url) as broker, brokers(proxy.url) as other, brokers(new.url) as observer:
        counts = RedisCounts(other, timeout_s=PROMPT_S)
        running = asyncio.create_task(counts.run())
        assert await send_heartbeat(broker, STATUS)
        assert await counts.increment("user:1", 60) == 1
        fail_over(proxy, old, new, STALE["READONLY"])
        assert not await send_heartbeat(broker, STATUS)
        assert await send_heartbeat(broker, STATUS)
        assert await alive_workers(observer) == [STATUS]
        assert await counts.increment("user:1", 60) == 1
        running.cancel()
        await asyncio.wait([running])


async def test_a_loop_takes_jobs_from_the_new_master(proxy: RedisProxy, old: ValkeyServer, new: ValkeyServer) -> None:
    taken: list[WorkItem] = []

    async def job(items: list[WorkItem], _score_ms: int) -> None:
        taken.extend(items)

    loop = JobLoop(proxy.url, Queue.PROCESS, job, poll_delay_ms=20, gate=lambda: 5)
    running = asyncio.create_task(loop.run())
    async with brokers(proxy.url) as broker:
        first, second = WorkItem(new_id(), 0), WorkItem(new_id(), 0)
        await broker.publish(Queue.PROCESS, [first])
        await eventually(lambda: taken == [first] and loop.is_polling)
        fail_over(proxy, old, new, STALE["READONLY"])
        # As the relay does once a second.
        await eventually(broker.probe, WELL_AFTER_S)
        assert await broker.publish(Queue.PROCESS, [second])
        await eventually(lambda: taken == [first, second], WELL_AFTER_S)
    running.cancel()
    await asyncio.wait([running])


async def test_a_server_that_is_loading_is_left_as_well() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server, brokers(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as broker:
        pool: ConnectionPool = broker.arq_connection.connection_pool
        idle = [await pool.get_connection() for _ in range(3)]
        for connection in idle:
            await pool.release(connection)
        assert not await broker.probe()
        assert [connection.is_connected for connection in idle] == [False] * 3


# -- connections that were dropped without a word


async def test_dropped_connections_cost_one_slow_answer_and_not_one_each(proxy: RedisProxy) -> None:
    async with brokers(proxy.url) as broker:
        await asyncio.gather(*(broker.round_trip(lambda pipe: pipe.ping(), timeout_s=5) for _ in range(15)))
        assert proxy.connections == 15
        proxy.swallow()
        started = monotonic()
        assert not await broker.probe()
        assert monotonic() - started < PUBLISH_TIMEOUT_S + PROMPT_S
        started = monotonic()
        # All at once: each would meet a dead connection of its own.
        answers = await asyncio.gather(*(broker.probe() for _ in range(15)))
        assert all(answers)
        assert monotonic() - started < PROMPT_S


async def test_a_dropped_connection_costs_heartbeats_and_limits_one_answer(proxy: RedisProxy) -> None:
    async with brokers(proxy.url) as broker:
        counts = RedisCounts(broker)
        running = asyncio.create_task(counts.run())
        await asyncio.gather(*(broker.probe() for _ in range(10)))
        assert await counts.increment("user:1", 60) == 1
        proxy.swallow()
        started = monotonic()
        with pytest.raises(BrokerUnavailable):
            await counts.increment("user:1", 60)
        assert await send_heartbeat(broker, STATUS)
        assert monotonic() - started < REDIS_TIMEOUT_S
        running.cancel()
        await asyncio.wait([running])


async def test_a_dropped_subscription_is_noticed_within_seconds(proxy: RedisProxy) -> None:
    async def until_lost() -> None:
        async with broker.subscribe_settled() as subscription:
            proxy.swallow()
            while True:
                await subscription.next_ids(timeout_s=PROMPT_S)

    async with brokers(proxy.url) as broker:
        started = monotonic()
        with pytest.raises(BrokerUnavailable):
            await until_lost()
        assert monotonic() - started < SILENCE_MAX_S + 2 * PROMPT_S


@pytest.mark.slow
async def test_a_quiet_subscription_is_kept(proxy: RedisProxy) -> None:
    async with brokers(proxy.url) as broker, broker.subscribe_settled() as subscription:
        ends_at = monotonic() + 2 * SILENCE_MAX_S
        while monotonic() < ends_at:
            assert await subscription.next_ids(timeout_s=0.2) == []


async def test_a_loop_leaves_a_dropped_connection(proxy: RedisProxy) -> None:
    taken: list[WorkItem] = []

    async def job(items: list[WorkItem], _score_ms: int) -> None:
        taken.extend(items)

    loop = JobLoop(proxy.url, Queue.PROCESS, job, poll_delay_ms=20, gate=lambda: 5)
    running = asyncio.create_task(loop.run())
    await eventually(lambda: loop.is_polling)
    proxy.swallow()
    async with brokers(proxy.url) as broker:
        item = WorkItem(new_id(), 0)
        await eventually(lambda: broker.publish(Queue.PROCESS, [item]))
        await eventually(lambda: taken == [item], SOCKET_TIMEOUT_S + WELL_AFTER_S)
    running.cancel()
    await asyncio.wait([running])
