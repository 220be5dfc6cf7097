"""The tickets that a busy worker keeps for the slots that come free next."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from shared.db import Database
from shared.leases import Ref
from shared.queue import Carrier, Queue
from tests.messages import jobs_in
from tests.rows import accepted, read_all, write
from tests.test_process_payments import NOW, ScriptedGateway, working
from tests.waiting import eventually
from worker import hand as hand_module
from worker.hand import Hand

SLOTS = 10  # two tickets fit in the hand beside them
SCORE_MS = 1_000


@pytest.fixture
async def gateway() -> ScriptedGateway:
    """Approves everything once it is opened."""
    return ScriptedGateway()


@pytest.fixture
async def hand(database: Database, gateway: ScriptedGateway, carrier: Carrier) -> AsyncIterator[Hand]:
    """The hand of a processor with ten slots, which runs."""
    async with playing(database, gateway, carrier) as hand:
        yield hand


@asynccontextmanager
async def playing(database: Database, gateway: ScriptedGateway, carrier: Carrier) -> AsyncIterator[Hand]:
    async with working(database, gateway, carrier, concurrency=SLOTS) as hands:
        hand = Hand(hands.processor, carrier, slots=SLOTS)
        run = asyncio.create_task(hand.run())
        try:
            yield hand
        finally:
            hand.close()
            await hands.processor.stop(0)
            async with asyncio.timeout(5):
                await run


async def new_payments(database: Database, count: int) -> list[Ref]:
    return await write(database, *(accepted(NOW) for _ in range(count)))


async def completed(database: Database) -> set[Ref]:
    """The first tickets of the payments that are completed."""
    return {Ref(payment.id, 0) for payment in await read_all(database) if payment.status == "COMPLETED"}


async def scores(carrier: Carrier) -> list[int]:
    found = await carrier.redis.zrange(Queue.PROCESS, 0, -1, withscores=True)
    return [int(score) for _, score in found]


async def test_what_finds_a_slot_is_not_kept(
    database: Database, carrier: Carrier, hand: Hand, gateway: ScriptedGateway
) -> None:
    refs = await new_payments(database, SLOTS)
    await hand.take(refs, SCORE_MS)
    await eventually(lambda: len(gateway.asked) == SLOTS)
    assert await jobs_in(carrier, Queue.PROCESS) == []


async def test_a_few_are_kept_for_the_next_slots_and_the_others_go_back_to_their_place(
    database: Database, carrier: Carrier, hand: Hand, gateway: ScriptedGateway
) -> None:
    refs = await new_payments(database, SLOTS + 5)
    await hand.take(refs, SCORE_MS)
    assert await jobs_in(carrier, Queue.PROCESS) == [refs[SLOTS + 2 :]]
    assert await scores(carrier) == [SCORE_MS]
    gateway.opened.set()

    async def are_the_first_twelve_completed() -> bool:
        return await completed(database) == set(refs[: SLOTS + 2])

    await eventually(are_the_first_twelve_completed)
    assert await jobs_in(carrier, Queue.PROCESS) == [refs[SLOTS + 2 :]]


async def test_a_full_hand_keeps_nothing_more(database: Database, carrier: Carrier, hand: Hand) -> None:
    """Jobs that were picked at the same moment find the hand full: all of theirs goes back."""
    refs = await new_payments(database, SLOTS + 4)
    await hand.take(refs[:SLOTS], SCORE_MS)
    await asyncio.gather(hand.take(refs[SLOTS : SLOTS + 2], SCORE_MS + 1), hand.take(refs[SLOTS + 2 :], SCORE_MS + 2))
    assert await jobs_in(carrier, Queue.PROCESS) == [refs[SLOTS + 2 :]]
    assert await scores(carrier) == [SCORE_MS + 2]


async def test_what_found_no_slot_in_time_goes_back_to_its_place(
    database: Database, carrier: Carrier, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_module, "HELD_S", 0.05)
    refs = await new_payments(database, SLOTS + 2)
    await hand.take(refs, SCORE_MS)

    async def is_back() -> bool:
        return await jobs_in(carrier, Queue.PROCESS) == [refs[SLOTS:]]

    await eventually(is_back)
    assert await scores(carrier) == [SCORE_MS]


class Slow(Carrier):
    """A carrier that publishes nothing until `released` is set."""

    def __init__(self, quick: Carrier) -> None:
        super().__init__(quick.redis)
        self.is_asked = False
        self.released = asyncio.Event()

    async def publish(self, queue: Queue, refs: Sequence[Ref], *, score_ms: int | None = None) -> bool:
        self.is_asked = True
        await self.released.wait()
        return await super().publish(queue, refs, score_ms=score_ms)


async def test_a_ticket_taken_while_others_go_back_goes_back_too_when_the_hand_closes(
    database: Database, carrier: Carrier, gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_module, "HELD_S", 0.05)
    slow = Slow(carrier)
    refs = await new_payments(database, SLOTS + 2)
    async with playing(database, gateway, slow) as hand:
        await hand.take(refs[: SLOTS + 1], SCORE_MS)
        await eventually(lambda: slow.is_asked)
        await hand.take(refs[SLOTS + 1 :], SCORE_MS + 1)
        hand.close()
        slow.released.set()
    assert await jobs_in(carrier, Queue.PROCESS) == [[refs[SLOTS]], [refs[SLOTS + 1]]]


async def test_a_hand_that_closes_puts_back_what_it_has_and_keeps_nothing_more(
    database: Database, carrier: Carrier, gateway: ScriptedGateway
) -> None:
    refs = await new_payments(database, SLOTS + 2)
    async with playing(database, gateway, carrier) as hand:
        await hand.take(refs[: SLOTS + 1], SCORE_MS)
        assert await jobs_in(carrier, Queue.PROCESS) == []
        hand.close()
        await hand.take(refs[SLOTS + 1 :], SCORE_MS + 1)
        assert await jobs_in(carrier, Queue.PROCESS) == [refs[SLOTS + 1 :]]
    assert await jobs_in(carrier, Queue.PROCESS) == [refs[SLOTS : SLOTS + 1], refs[SLOTS + 1 :]]
