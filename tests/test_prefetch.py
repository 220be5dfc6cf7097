"""The prefetch buffer: what a busy worker keeps for the slots that become free next, on both databases."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from shared.broker.client import Broker, Queue
from shared.database.engine import Database
from shared.database.leases import WorkItem
from tests.support.messages import jobs_in
from tests.support.processing import NOW, ScriptedGateway, processing
from tests.support.rows import accepted, read_all, write
from tests.support.waiting import eventually
from worker.prefetch import PrefetchBuffer

# The buffer of a processor with so many slots keeps two items.
SLOTS = 10
SCORE_MS = 1_000


@pytest.fixture
async def gateway() -> ScriptedGateway:
    """Approves everything once it is opened."""
    return ScriptedGateway()


@pytest.fixture
async def prefetch(database: Database, gateway: ScriptedGateway, broker: Broker) -> AsyncIterator[PrefetchBuffer]:
    """The buffer of a processor with ten slots, which runs."""
    async with prefetching(database, gateway, broker) as prefetch:
        yield prefetch


@asynccontextmanager
async def prefetching(database: Database, gateway: ScriptedGateway, broker: Broker) -> AsyncIterator[PrefetchBuffer]:
    async with processing(database, gateway, broker, concurrency=SLOTS) as worker:
        prefetch = PrefetchBuffer(worker.processor, broker, slots=SLOTS)
        run = asyncio.create_task(prefetch.run())
        try:
            yield prefetch
        finally:
            prefetch.close()
            await worker.processor.stop(0)
            async with asyncio.timeout(5):
                await run


async def new_payments(database: Database, count: int) -> list[WorkItem]:
    return await write(database, *(accepted(NOW) for _ in range(count)))


async def completed(database: Database) -> set[WorkItem]:
    """Return the items with which the completed payments were offered first."""
    return {WorkItem(payment.id, 0) for payment in await read_all(database) if payment.status == "COMPLETED"}


async def scores(broker: Broker) -> list[int]:
    found = await broker.arq_connection.zrange(Queue.PROCESS, 0, -1, withscores=True)
    return [int(score) for _, score in found]


async def test_what_finds_a_slot_is_not_kept(
    database: Database, broker: Broker, prefetch: PrefetchBuffer, gateway: ScriptedGateway
) -> None:
    items = await new_payments(database, SLOTS)
    await prefetch.take(items, SCORE_MS)
    await eventually(lambda: len(gateway.asked) == SLOTS)
    assert await jobs_in(broker, Queue.PROCESS) == []


async def test_a_few_are_kept_for_the_next_slots_and_the_others_go_back_to_their_place(
    database: Database, broker: Broker, prefetch: PrefetchBuffer, gateway: ScriptedGateway
) -> None:
    items = await new_payments(database, SLOTS + 5)
    await prefetch.take(items, SCORE_MS)
    assert await jobs_in(broker, Queue.PROCESS) == [items[SLOTS + 2 :]]
    assert await scores(broker) == [SCORE_MS]
    gateway.opened.set()

    async def are_the_first_twelve_completed() -> bool:
        return await completed(database) == set(items[: SLOTS + 2])

    await eventually(are_the_first_twelve_completed)
    assert await jobs_in(broker, Queue.PROCESS) == [items[SLOTS + 2 :]]


async def test_a_full_buffer_keeps_nothing_more(database: Database, broker: Broker, prefetch: PrefetchBuffer) -> None:
    """Jobs that were picked at the same moment find the buffer full: all of their items go back."""
    items = await new_payments(database, SLOTS + 4)
    await prefetch.take(items[:SLOTS], SCORE_MS)
    await asyncio.gather(
        prefetch.take(items[SLOTS : SLOTS + 2], SCORE_MS + 1), prefetch.take(items[SLOTS + 2 :], SCORE_MS + 2)
    )
    assert await jobs_in(broker, Queue.PROCESS) == [items[SLOTS + 2 :]]
    assert await scores(broker) == [SCORE_MS + 2]


async def test_what_found_no_slot_in_time_goes_back_to_its_place(
    database: Database, broker: Broker, prefetch: PrefetchBuffer
) -> None:
    items = await new_payments(database, SLOTS + 2)
    await prefetch.take(items, SCORE_MS)

    async def is_back() -> bool:
        return await jobs_in(broker, Queue.PROCESS) == [items[SLOTS:]]

    await eventually(is_back)
    assert await scores(broker) == [SCORE_MS]


class SlowBroker(Broker):
    """Publishes nothing until `released` is set."""

    def __init__(self, quick: Broker) -> None:
        super().__init__(quick.arq_connection)
        self.is_asked = False
        self.released = asyncio.Event()

    async def publish(self, queue: Queue, items: Sequence[WorkItem], *, score_ms: int | None = None) -> bool:
        self.is_asked = True
        await self.released.wait()
        return await super().publish(queue, items, score_ms=score_ms)


async def test_an_item_taken_while_others_go_back_goes_back_too_when_the_buffer_closes(
    database: Database, broker: Broker, gateway: ScriptedGateway
) -> None:
    slow = SlowBroker(broker)
    items = await new_payments(database, SLOTS + 2)
    async with prefetching(database, gateway, slow) as prefetch:
        await prefetch.take(items[: SLOTS + 1], SCORE_MS)
        await eventually(lambda: slow.is_asked)
        await prefetch.take(items[SLOTS + 1 :], SCORE_MS + 1)
        prefetch.close()
        slow.released.set()
    assert await jobs_in(broker, Queue.PROCESS) == [[items[SLOTS]], [items[SLOTS + 1]]]


async def test_a_buffer_that_closes_puts_back_what_it_has_and_keeps_nothing_more(
    database: Database, broker: Broker, gateway: ScriptedGateway
) -> None:
    items = await new_payments(database, SLOTS + 2)
    async with prefetching(database, gateway, broker) as prefetch:
        await prefetch.take(items[: SLOTS + 1], SCORE_MS)
        assert await jobs_in(broker, Queue.PROCESS) == []
        prefetch.close()
        await prefetch.take(items[SLOTS + 1 :], SCORE_MS + 1)
        assert await jobs_in(broker, Queue.PROCESS) == [items[SLOTS + 1 :]]
    assert await jobs_in(broker, Queue.PROCESS) == [items[SLOTS : SLOTS + 1], items[SLOTS + 1 :]]
