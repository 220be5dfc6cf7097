"""The broker, with a real Valkey that also dies and hangs: what it publishes, and what it costs without Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Self, cast
from uuid import UUID

import orjson
import pytest
from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import ResponseError

from shared.broker.client import (
    BREAKER_OPEN_S,
    JOB_EXPIRES_S,
    PUBLISH_TIMEOUT_S,
    SETTLED_CHANNEL,
    Broker,
    Queue,
    open_broker,
)
from shared.broker.connections import SOCKET_TIMEOUT_S
from shared.broker.subscription import SettledSubscription
from shared.database.leases import WorkItem
from shared.errors import BrokerUnavailable
from shared.ids import new_id
from tests.support.brokers import PROMPT_S, own, own_broker, some_items
from tests.support.messages import jobs_in
from tests.support.servers import ValkeyServer
from tests.support.waiting import eventually

__all__ = ["own", "own_broker"]


class _FailsToClose:
    """A client of Redis whose connection cannot be closed when it is cancelled."""

    def pipeline(self, **_options: bool) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        return

    async def execute(self) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ResponseError("no") from None


async def test_a_cancel_is_none_of_redis_failures() -> None:
    broker = Broker(cast("ArqRedis", _FailsToClose()))
    asking = asyncio.create_task(broker.round_trip(lambda _pipe: None, timeout_s=60))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking], timeout=5)
    assert asking.cancelled()


# -- what is published


@pytest.mark.parametrize("queue", list(Queue))
async def test_a_batch_is_one_job_with_ids_and_lease_versions_and_nothing_else(broker: Broker, queue: Queue) -> None:
    items = some_items(3)
    assert await broker.publish(queue, items)
    assert await jobs_in(broker, queue) == [items]
    [job_id] = await broker.arq_connection.zrange(queue, 0, -1)
    message = orjson.loads(await broker.arq_connection.get(job_key_prefix + job_id.decode()))
    assert message["f"] == queue.job
    assert message["a"] == [[[str(item.id), item.lease_version] for item in items]]
    assert message["k"] == {}


async def test_a_job_that_no_worker_takes_is_gone_after_an_hour(broker: Broker) -> None:
    await broker.publish(Queue.PROCESS, some_items(1))
    [job_id] = await broker.arq_connection.zrange(Queue.PROCESS, 0, -1)
    assert 0 < await broker.arq_connection.ttl(job_key_prefix + job_id.decode()) <= JOB_EXPIRES_S


async def test_what_is_put_back_keeps_its_place_in_the_queue(broker: Broker) -> None:
    first, second, leftover = some_items(1), some_items(1), some_items(1)
    await broker.publish(Queue.PROCESS, first)
    [(_, score)] = await broker.arq_connection.zrange(Queue.PROCESS, 0, -1, withscores=True)
    await eventually(lambda: published_later(broker, second, score))
    assert await broker.publish(Queue.PROCESS, leftover, score_ms=int(score) - 1)
    assert await jobs_in(broker, Queue.PROCESS) == [leftover, first, second]


async def published_later(broker: Broker, items: list[WorkItem], score: float) -> bool:
    """Publish, in another millisecond than the job with `score`."""
    now_s, now_us = await broker.arq_connection.time()
    return now_s * 1000 + now_us // 1000 > score + 1 and await broker.publish(Queue.PROCESS, items)


async def test_a_notification_of_settled_payments_is_one_message_with_all_ids(broker: Broker) -> None:
    async with broker.arq_connection.pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe(SETTLED_CHANNEL)
        await eventually(lambda: broker.arq_connection.pubsub_numsub(SETTLED_CHANNEL))
        ids = [new_id(), new_id()]
        assert await broker.notify_settled(ids)
        message = await eventually(lambda: subscription.get_message(timeout=1))
    assert message is not None
    assert orjson.loads(message["data"]) == [str(each) for each in ids]


async def test_a_subscription_gets_the_ids_of_each_notification_and_none_of_a_foreign_message(broker: Broker) -> None:
    ids = [new_id(), new_id()]
    async with broker.subscribe_settled() as subscription:
        assert await broker.notify_settled(ids)
        for foreign in (b"", b"not JSON", b"7", b'["no id"]', b"null"):
            await broker.arq_connection.publish(SETTLED_CHANNEL, foreign)
        assert await broker.notify_settled(ids[:1])
        received: list[list[UUID]] = []
        async with asyncio.timeout(5):
            while ids[:1] not in received:
                received.append(await subscription.next_ids(timeout_s=PROMPT_S))
    assert [each for each in received if each] == [ids, ids[:1]]


# -- without Redis


async def test_a_dead_redis_costs_no_time_and_is_used_again_when_it_is_back(
    own: ValkeyServer, own_broker: Broker
) -> None:
    items = some_items(2)
    assert await own_broker.publish(Queue.PROCESS, items)
    own.kill()
    started = monotonic()
    assert not await own_broker.publish(Queue.PROCESS, items)
    assert not await own_broker.notify_settled([items[0].id])
    assert not await own_broker.probe()
    assert monotonic() - started < PROMPT_S
    own.start()
    await eventually(lambda: own_broker.publish(Queue.PROCESS, items))
    assert await jobs_in(own_broker, Queue.PROCESS) == [items]  # it came back empty


async def test_a_hung_redis_costs_a_publisher_its_timeout_once(own: ValkeyServer, own_broker: Broker) -> None:
    items = some_items(2)
    assert await own_broker.publish(Queue.PROCESS, items)
    own.pause()
    started = monotonic()
    for _ in range(1000):
        assert not await own_broker.publish(Queue.PROCESS, items)
        assert not await own_broker.notify_settled([items[0].id])
    assert monotonic() - started < PUBLISH_TIMEOUT_S + PROMPT_S
    own.resume()
    await eventually(lambda: own_broker.publish(Queue.PROCESS, items))


async def test_after_the_open_time_all_publications_at_once_go_ahead(own: ValkeyServer, own_broker: Broker) -> None:
    own.kill()
    assert not await own_broker.publish(Queue.PROCESS, some_items(1))
    own.start()
    # A Redis that is healthy but slow: nothing is answered until all have asked.
    own.pause()
    await asyncio.sleep(BREAKER_OPEN_S)
    publications = [asyncio.create_task(own_broker.publish(Queue.PROCESS, some_items(1))) for _ in range(5)]
    await asyncio.sleep(0)
    own.resume()
    assert await asyncio.gather(*publications) == [True] * 5


async def test_a_ping_that_is_not_answered_pauses_publications(own: ValkeyServer, own_broker: Broker) -> None:
    own.pause()
    assert not await own_broker.probe()
    started = monotonic()
    assert not await own_broker.publish(Queue.PROCESS, some_items(1))
    assert monotonic() - started < PROMPT_S


async def until_lost(subscription: SettledSubscription) -> None:
    while True:
        await subscription.next_ids(timeout_s=PROMPT_S)


async def test_a_subscription_ends_with_its_redis(own: ValkeyServer, own_broker: Broker) -> None:
    async def listen() -> None:
        async with asyncio.timeout(5), own_broker.subscribe_settled() as subscription:
            own.kill()
            # The error is ours already within the block.
            with pytest.raises(BrokerUnavailable):
                await until_lost(subscription)

    await listen()
    with pytest.raises(BrokerUnavailable):
        async with own_broker.subscribe_settled():
            pytest.fail("there is no Redis to subscribe at")


@pytest.mark.parametrize("trouble", ["kill", "pause"])
async def test_a_round_trip_that_is_not_answered_in_time_is_refused(
    own: ValkeyServer, own_broker: Broker, trouble: str
) -> None:
    assert await own_broker.round_trip(lambda pipe: pipe.ping(), timeout_s=PROMPT_S) == [True]
    getattr(own, trouble)()
    started = monotonic()
    with pytest.raises(BrokerUnavailable):
        await own_broker.round_trip(lambda pipe: pipe.ping(), timeout_s=0.05)
    assert monotonic() - started < PROMPT_S


async def test_an_answer_that_comes_too_late_is_not_taken_for_another_ones(
    own: ValkeyServer, own_broker: Broker
) -> None:
    assert await own_broker.probe()
    for number in range(2):
        own.pause()
        assert not await own_broker.probe()
        own.resume()
        await own_broker.arq_connection.set("number", number)
        assert await own_broker.arq_connection.get("number") == str(number).encode()


@asynccontextmanager
async def stuck_redis() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The URL of a server that falls silent in the middle of a publication; new connections are silent while it is."""
    ended, silent = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while count := await reader.readline():
            command = [await read_word(reader) for _ in range(int(count[1:]))]
            # Whichever of the two the client sends first.
            if command[0] in {b"EXISTS", b"ZADD"}:
                silent.set()
            if silent.is_set():
                await ended.wait()
                break
            writer.write(b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        try:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", silent
        finally:
            ended.set()


async def read_word(reader: asyncio.StreamReader) -> bytes:
    length = int((await reader.readline())[1:])
    return (await reader.readexactly(length + 2))[:-2].upper()


async def test_a_redis_that_falls_silent_half_way_costs_no_connection() -> None:
    async with stuck_redis() as (url, silent):
        timeouts = {"timeout": PROMPT_S, "socket_timeout": SOCKET_TIMEOUT_S}
        broker = Broker(ArqRedis(BlockingConnectionPool.from_url(url, max_connections=1, **timeouts)))
        try:
            started = monotonic()
            assert not await broker.publish(Queue.PROCESS, some_items(1))
            assert monotonic() - started < PUBLISH_TIMEOUT_S + PROMPT_S
            silent.clear()
            answered = await broker.round_trip(lambda pipe: pipe.ping(), timeout_s=PROMPT_S)
            assert answered, "the only connection is lost"
        finally:
            await broker.close()


async def test_a_ping_that_is_answered_closes_the_breaker(own: ValkeyServer, own_broker: Broker) -> None:
    own.kill()
    assert not await own_broker.publish(Queue.PROCESS, some_items(1))
    own.start()
    assert await own_broker.probe()
    assert await own_broker.publish(Queue.PROCESS, some_items(1))


async def test_opening_a_broker_needs_no_redis(tmp_path: Path) -> None:
    broker = open_broker(f"unix://{tmp_path}/missing.sock")
    assert not await broker.probe()
    await broker.close()
