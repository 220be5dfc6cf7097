"""The publisher, which sends what arrives to the broker in full batches and never holds up who gives it work."""

import asyncio
from collections.abc import Sequence

from shared.broker.client import JOB_ITEMS_MAX, Broker, Queue
from shared.broker.publisher import PENDING_MAX, Publisher
from shared.database.leases import WorkItem
from shared.ids import new_id
from tests.support.brokers import own, own_broker, some_items
from tests.support.messages import items_in, jobs_in
from tests.support.servers import ValkeyServer
from tests.support.waiting import eventually

__all__ = ["own", "own_broker"]


async def test_the_publisher_sends_full_batches_to_each_queue_and_one_notification(broker: Broker) -> None:
    publisher = Publisher(broker)
    to_process, to_deliver = some_items(2 * JOB_ITEMS_MAX + 1), some_items(3)
    for item in to_process:
        publisher.publish(Queue.PROCESS, [item])
    publisher.publish(Queue.DELIVER, to_deliver)
    publisher.notify_settled([new_id(), new_id()])
    assert await publisher.run_once() == len(to_process) + len(to_deliver) + 2
    assert sorted(map(len, await jobs_in(broker, Queue.PROCESS))) == [1, JOB_ITEMS_MAX, JOB_ITEMS_MAX]
    assert sorted(await items_in(broker, Queue.PROCESS)) == sorted(to_process)
    assert await items_in(broker, Queue.DELIVER) == to_deliver
    assert await publisher.run_once() == 0


async def test_the_publisher_sends_what_arrives_and_before_it_ends_what_is_left(broker: Broker) -> None:
    publisher = Publisher(broker)
    run = asyncio.create_task(publisher.run())
    early, late = some_items(1), some_items(1)
    publisher.publish(Queue.PROCESS, early)
    await eventually(lambda: items_in(broker, Queue.PROCESS))
    publisher.publish(Queue.PROCESS, late)
    publisher.close()
    async with asyncio.timeout(5):
        await run
    assert sorted(await items_in(broker, Queue.PROCESS)) == sorted(early + late)


class Counting(Broker):
    """A broker that counts the items which it was to publish, whether or not that succeeded."""

    def __init__(self, whole: Broker) -> None:
        super().__init__(whole.arq_connection)
        self.tried = 0

    async def publish(self, queue: Queue, items: Sequence[WorkItem], *, score_ms: int | None = None) -> bool:
        is_published = await super().publish(queue, items, score_ms=score_ms)
        self.tried += len(items)
        return is_published


async def test_a_publisher_without_redis_drops_what_it_has_and_goes_on(own: ValkeyServer, own_broker: Broker) -> None:
    counting = Counting(own_broker)
    publisher = Publisher(counting)
    run = asyncio.create_task(publisher.run())
    own.kill()
    publisher.publish(Queue.PROCESS, some_items(500))
    publisher.notify_settled([new_id()])
    await eventually(lambda: counting.tried == 500)
    own.start()
    late = some_items(1)

    async def came_through() -> bool:
        publisher.publish(Queue.PROCESS, late)
        return bool(await items_in(own_broker, Queue.PROCESS))

    await eventually(came_through)
    publisher.close()
    await run
    assert set(await items_in(own_broker, Queue.PROCESS)) == set(late)


async def test_what_waits_for_the_publisher_is_bounded(broker: Broker) -> None:
    publisher = Publisher(broker)
    items = some_items(PENDING_MAX + 5)
    publisher.publish(Queue.PROCESS, items)
    assert await publisher.run_once() == PENDING_MAX
    assert sorted(await items_in(broker, Queue.PROCESS)) == sorted(items[5:])
