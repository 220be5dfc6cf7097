"""The carrier and the publisher, with a real Valkey that also dies and hangs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import orjson
import pytest
from arq.constants import job_key_prefix

from shared.ids import new_id
from shared.leases import Ref
from shared.queue import (
    JOB_EXPIRES_S,
    JOB_REFS_MAX,
    PENDING_MAX,
    PUBLISH_TIMEOUT_S,
    SETTLED_CHANNEL,
    Carrier,
    Publisher,
    Queue,
    open_carrier,
)
from tests.messages import jobs_in, refs_in
from tests.servers import ValkeyServer
from tests.waiting import eventually

PROMPT_S = 1.0  # for what takes no time, on a loaded machine


def some_refs(count: int) -> list[Ref]:
    return [Ref(new_id(), number % 3) for number in range(count)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
async def own_carrier(own: ValkeyServer) -> AsyncIterator[Carrier]:
    carrier = open_carrier(own.url)
    yield carrier
    own.resume() if own.is_running else None
    await carrier.close()


# -- what is carried


@pytest.mark.parametrize("queue", list(Queue))
async def test_a_batch_is_one_job_with_ids_and_attempts_and_nothing_else(carrier: Carrier, queue: Queue) -> None:
    refs = some_refs(3)
    assert await carrier.publish(queue, refs)
    assert await jobs_in(carrier, queue) == [refs]
    [job_id] = await carrier.redis.zrange(queue, 0, -1)
    message = orjson.loads(await carrier.redis.get(job_key_prefix + job_id.decode()))
    assert message["f"] == queue.job
    assert message["a"] == [[[str(ref.id), ref.attempt] for ref in refs]]
    assert message["k"] == {}


async def test_a_job_that_nobody_takes_is_gone_after_an_hour(carrier: Carrier) -> None:
    await carrier.publish(Queue.PROCESS, some_refs(1))
    [job_id] = await carrier.redis.zrange(Queue.PROCESS, 0, -1)
    assert 0 < await carrier.redis.ttl(job_key_prefix + job_id.decode()) <= JOB_EXPIRES_S


async def test_what_is_put_back_keeps_its_place_in_the_queue(carrier: Carrier) -> None:
    first, second, rest = some_refs(1), some_refs(1), some_refs(1)
    await carrier.publish(Queue.PROCESS, first)
    [(_, score)] = await carrier.redis.zrange(Queue.PROCESS, 0, -1, withscores=True)
    await eventually(lambda: published_later(carrier, second, score))
    assert await carrier.publish(Queue.PROCESS, rest, score_ms=int(score) - 1)
    assert await jobs_in(carrier, Queue.PROCESS) == [rest, first, second]


async def published_later(carrier: Carrier, refs: list[Ref], score: float) -> bool:
    """Publish, in another millisecond than the job with `score`."""
    now_s, now_us = await carrier.redis.time()
    return now_s * 1000 + now_us // 1000 > score + 1 and await carrier.publish(Queue.PROCESS, refs)


async def test_a_wake_up_is_one_message_with_all_ids(carrier: Carrier) -> None:
    async with carrier.redis.pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe(SETTLED_CHANNEL)
        await eventually(lambda: carrier.redis.pubsub_numsub(SETTLED_CHANNEL))
        ids = [new_id(), new_id()]
        assert await carrier.wake(ids)
        message = await eventually(lambda: subscription.get_message(timeout=1))
    assert message is not None
    assert orjson.loads(message["data"]) == [str(each) for each in ids]


# -- without Redis


async def test_a_dead_redis_costs_nobody_time_and_is_used_again_when_it_is_back(
    own: ValkeyServer, own_carrier: Carrier
) -> None:
    refs = some_refs(2)
    assert await own_carrier.publish(Queue.PROCESS, refs)
    own.kill()
    started = monotonic()
    assert not await own_carrier.publish(Queue.PROCESS, refs)
    assert not await own_carrier.wake([refs[0].id])
    assert not await own_carrier.ping()
    assert monotonic() - started < PROMPT_S
    own.start()
    await eventually(lambda: own_carrier.publish(Queue.PROCESS, refs))
    assert await jobs_in(own_carrier, Queue.PROCESS) == [refs]  # it came back empty


async def test_a_hung_redis_costs_whoever_publishes_its_time_out_once(own: ValkeyServer, own_carrier: Carrier) -> None:
    refs = some_refs(2)
    assert await own_carrier.publish(Queue.PROCESS, refs)
    own.pause()
    started = monotonic()
    for _ in range(1000):
        assert not await own_carrier.publish(Queue.PROCESS, refs)
        assert not await own_carrier.wake([refs[0].id])
    assert monotonic() - started < PUBLISH_TIMEOUT_S + PROMPT_S
    own.resume()
    await eventually(lambda: own_carrier.publish(Queue.PROCESS, refs))


async def test_an_answer_that_comes_too_late_is_nobody_elses(own: ValkeyServer, own_carrier: Carrier) -> None:
    assert await own_carrier.ping()
    for number in range(2):
        own.pause()
        assert not await own_carrier.ping()
        own.resume()
        await own_carrier.redis.set("number", number)
        assert await own_carrier.redis.get("number") == str(number).encode()


@asynccontextmanager
async def stuck_redis() -> AsyncIterator[str]:
    """The URL of a server that falls silent in the middle of a transaction, and from then on for good."""
    ended, silent = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while count := await reader.readline():
            command = [await read_word(reader) for _ in range(int(count[1:]))]
            if command[0] in {b"EXISTS", b"EXEC"}:  # whichever of the two the client sends first
                silent.set()
            if silent.is_set():
                await ended.wait()
                break
            writer.write(b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        try:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            ended.set()


async def read_word(reader: asyncio.StreamReader) -> bytes:
    length = int((await reader.readline())[1:])
    return (await reader.readexactly(length + 2))[:-2].upper()


async def test_a_redis_that_falls_silent_half_way_costs_no_connection() -> None:
    async with stuck_redis() as url:
        carrier = open_carrier(url)
        pool = carrier.redis.connection_pool
        started = monotonic()
        assert not await carrier.publish(Queue.PROCESS, some_refs(1))
        assert monotonic() - started < PUBLISH_TIMEOUT_S + PROMPT_S
        await eventually(lambda: not pool._in_use_connections)
        await carrier.close()


async def test_asking_whether_it_answers_ends_the_pause(own: ValkeyServer, own_carrier: Carrier) -> None:
    own.kill()
    assert not await own_carrier.publish(Queue.PROCESS, some_refs(1))
    own.start()
    assert await own_carrier.ping()
    assert await own_carrier.publish(Queue.PROCESS, some_refs(1))


async def test_opening_a_carrier_needs_no_redis(tmp_path: Path) -> None:
    carrier = open_carrier(f"unix://{tmp_path}/nobody.sock")
    assert not await carrier.ping()
    await carrier.close()


# -- the publisher


async def test_the_publisher_sends_full_batches_to_each_queue_and_one_wake_up(carrier: Carrier) -> None:
    publisher = Publisher(carrier)
    to_process, to_deliver = some_refs(2 * JOB_REFS_MAX + 1), some_refs(3)
    for ref in to_process:
        publisher.publish(Queue.PROCESS, [ref])
    publisher.publish(Queue.DELIVER, to_deliver)
    publisher.wake([new_id(), new_id()])
    assert await publisher.run_once() == len(to_process) + len(to_deliver) + 2
    assert sorted(map(len, await jobs_in(carrier, Queue.PROCESS))) == [1, JOB_REFS_MAX, JOB_REFS_MAX]
    assert sorted(await refs_in(carrier, Queue.PROCESS)) == sorted(to_process)
    assert await refs_in(carrier, Queue.DELIVER) == to_deliver
    assert await publisher.run_once() == 0


async def test_the_publisher_sends_what_arrives_and_before_it_ends_what_is_left(carrier: Carrier) -> None:
    publisher = Publisher(carrier)
    run = asyncio.create_task(publisher.run())
    early, late = some_refs(1), some_refs(1)
    publisher.publish(Queue.PROCESS, early)
    await eventually(lambda: refs_in(carrier, Queue.PROCESS))
    publisher.publish(Queue.PROCESS, late)
    publisher.close()
    async with asyncio.timeout(5):
        await run
    assert sorted(await refs_in(carrier, Queue.PROCESS)) == sorted(early + late)


async def test_a_publisher_without_redis_forgets_and_goes_on(own: ValkeyServer, own_carrier: Carrier) -> None:
    publisher = Publisher(own_carrier)
    run = asyncio.create_task(publisher.run())
    own.kill()
    publisher.publish(Queue.PROCESS, some_refs(500))
    publisher.wake([new_id()])
    await eventually(lambda: not publisher._pending[Queue.PROCESS])
    own.start()
    late = some_refs(1)

    async def came_through() -> bool:
        publisher.publish(Queue.PROCESS, late)
        return bool(await refs_in(own_carrier, Queue.PROCESS))

    await eventually(came_through)
    publisher.close()
    await run
    assert set(await refs_in(own_carrier, Queue.PROCESS)) == set(late)


async def test_what_waits_for_the_publisher_is_bounded(carrier: Carrier) -> None:
    publisher = Publisher(carrier)
    refs = some_refs(PENDING_MAX + 5)
    publisher.publish(Queue.PROCESS, refs)
    assert list(publisher._pending[Queue.PROCESS]) == refs[5:]
