"""The loop around arq's, with a real Valkey that dies, hangs and forgets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from arq.constants import job_key_prefix
from structlog.testing import capture_logs

from shared.ids import new_id
from shared.leases import Ref
from shared.queue import Carrier, Queue, open_carrier
from tests.messages import jobs_in
from tests.servers import ValkeyServer
from tests.waiting import eventually
from worker.jobs import JOBS_MAX, JobLoop

BACK_S = 20.0  # for a loop to be at work again; its pauses are at most 5 s


def some_refs(count: int = 2) -> list[Ref]:
    return [Ref(new_id(), number) for number in range(count)]


@dataclass
class Hands:
    """What a loop brought; a job goes on until `opened` is set."""

    got: list[list[Ref]] = field(default_factory=list)
    scores: list[int] = field(default_factory=list)
    finished: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    allowed: int = JOBS_MAX
    trouble: Exception | None = None

    async def take(self, refs: list[Ref], score_ms: int) -> None:
        self.got.append(refs)
        self.scores.append(score_ms)
        await self.opened.wait()
        self.finished += 1
        if self.trouble is not None:
            raise self.trouble

    @property
    def running(self) -> int:
        return len(self.got) - self.finished


@pytest.fixture
def hands() -> Hands:
    hands = Hands()
    hands.opened.set()
    return hands


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
async def own_carrier(own: ValkeyServer) -> AsyncIterator[Carrier]:
    carrier = open_carrier(own.url)
    yield carrier
    await carrier.close()


@asynccontextmanager
async def looping(
    url: str, hands: Hands, *, queue: Queue = Queue.PROCESS, gate: Callable[[], int] | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    loop = JobLoop(url, queue, hands.take, poll_delay_ms=5, gate=gate or (lambda: hands.allowed))
    run = asyncio.create_task(loop.run())
    try:
        yield run
    finally:
        hands.opened.set()
        run.cancel()
        _done, pending = await asyncio.wait([run], timeout=15)
        assert not pending, "the loop does not end"


async def comes_through(carrier: Carrier, hands: Hands) -> list[Ref]:
    """Publish until a job arrives, as the relay would; its tickets."""
    refs = some_refs()

    async def is_there() -> bool:
        await carrier.publish(Queue.PROCESS, refs)
        return refs in hands.got

    await eventually(is_there, timeout_s=BACK_S)
    return refs


async def test_a_job_is_handed_over_with_its_tickets_and_its_place(
    redis_url: str, carrier: Carrier, hands: Hands
) -> None:
    refs = some_refs(100)
    await carrier.publish(Queue.PROCESS, refs, score_ms=1_700_000_000_123)
    async with looping(redis_url, hands):
        await eventually(lambda: hands.got)
    assert hands.got == [refs]
    assert hands.scores == [1_700_000_000_123]


async def test_each_queue_has_a_loop_of_its_own(redis_url: str, carrier: Carrier, hands: Hands) -> None:
    to_process, to_deliver = some_refs(), some_refs()
    await carrier.publish(Queue.PROCESS, to_process)
    await carrier.publish(Queue.DELIVER, to_deliver)
    async with looping(redis_url, hands, queue=Queue.DELIVER):
        await eventually(lambda: hands.got)
        await until_empty(carrier, Queue.DELIVER)
    assert hands.got == [to_deliver]
    assert await jobs_in(carrier, Queue.PROCESS) == [to_process]


async def until_empty(carrier: Carrier, queue: Queue = Queue.PROCESS) -> None:
    async def is_empty() -> bool:
        return not await carrier.redis.zcard(queue)

    await eventually(is_empty)


async def test_a_finished_job_leaves_nothing_behind(redis_url: str, carrier: Carrier, hands: Hands) -> None:
    for _ in range(5):
        await carrier.publish(Queue.PROCESS, some_refs())
    async with looping(redis_url, hands):
        await eventually(lambda: len(hands.got) == 5)
        await until_empty(carrier)
    left = {key.decode() for key in await carrier.redis.keys("*")}
    assert left <= {f"{Queue.PROCESS}:health-check"}


async def test_a_job_of_our_own_that_runs_is_not_asked_about_again(
    redis_url: str, carrier: Carrier, hands: Hands
) -> None:
    looks = 0

    def gate() -> int:
        nonlocal looks
        looks += 1
        return hands.allowed

    hands.opened.clear()
    await carrier.publish(Queue.PROCESS, some_refs())
    await carrier.redis.config_resetstat()
    async with looping(redis_url, hands, gate=gate):
        await eventually(lambda: hands.got)
        began = looks
        await eventually(lambda: looks > began + 5)
        counted = await carrier.redis.info("commandstats")
        assert counted["cmdstat_watch"]["calls"] == 1
        assert counted["cmdstat_zrangebyscore"]["calls"] > 5


async def test_loops_beside_each_other_share_the_jobs(redis_url: str, carrier: Carrier, hands: Hands) -> None:
    jobs = [some_refs(1) for _ in range(60)]
    other = Hands(opened=hands.opened)
    hands.opened.clear()  # who has its hands full leaves the rest to the other, however late that one starts
    async with looping(redis_url, hands), looping(redis_url, other):
        for refs in jobs:
            assert await carrier.publish(Queue.PROCESS, refs)
        await eventually(lambda: hands.got and other.got)
        hands.opened.set()
        await eventually(lambda: len(hands.got) + len(other.got) >= 60)
        await until_empty(carrier)
    assert sorted(hands.got + other.got) == sorted(jobs)


async def test_a_closed_gate_leaves_the_jobs_to_others_and_an_open_one_takes_them(
    redis_url: str, carrier: Carrier, hands: Hands
) -> None:
    other, looks = Hands(opened=hands.opened), 0
    hands.allowed = 0

    def gate() -> int:
        nonlocal looks
        looks += 1
        return hands.allowed

    await carrier.publish(Queue.PROCESS, some_refs())
    async with looping(redis_url, hands, gate=gate):
        await eventually(lambda: looks > 5)
        assert hands.got == []
        async with looping(redis_url, other):
            await eventually(lambda: other.got)
        await carrier.publish(Queue.PROCESS, some_refs())
        hands.allowed = 1
        await eventually(lambda: hands.got)


async def test_never_more_jobs_at_once_than_the_gate_lets_in(redis_url: str, carrier: Carrier) -> None:
    hands, looks = Hands(allowed=3), 0

    def gate() -> int:
        nonlocal looks
        looks += 1
        return hands.allowed

    for _ in range(30):
        await carrier.publish(Queue.PROCESS, some_refs())
    async with looping(redis_url, hands, gate=gate):
        await eventually(lambda: hands.running == 3)
        seen = looks
        await eventually(lambda: looks > seen + 5)
        assert hands.running == 3
        hands.allowed = 1000
        await eventually(lambda: hands.running == JOBS_MAX)
        seen = looks
        await eventually(lambda: looks > seen + 5)
        assert hands.running == JOBS_MAX
        hands.opened.set()
        await eventually(lambda: len(hands.got) == 30)


# -- jobs that are none


async def test_a_job_that_fails_is_logged_once_and_holds_up_nobody(
    redis_url: str, carrier: Carrier, hands: Hands
) -> None:
    hands.trouble = RuntimeError("a bug of ours")
    jobs = [some_refs() for _ in range(3)]
    for refs in jobs:
        await carrier.publish(Queue.PROCESS, refs)
    async with looping(redis_url, hands):
        await eventually(lambda: len(hands.got) == 3)
        await until_empty(carrier)
        assert sorted(hands.got) == sorted(jobs)
        hands.trouble = None
        await comes_through(carrier, hands)


def message(*arguments: Any, function: str = "process_payments", **keywords: Any) -> bytes:
    return orjson.dumps({"t": None, "f": function, "a": arguments, "k": keywords, "et": 1})


POISON = {
    "not JSON": b"not JSON",
    "a list": b"[]",
    "null": b"null",
    "no UUID": message([["no uuid", 0]]),
    "a number as id": message([[5, 0]]),
    "no attempt": message([["01a204c6-b7a9-735c-88a1-8b4cc722f904"]]),
    "a word as attempt": message([["01a204c6-b7a9-735c-88a1-8b4cc722f904", "x"]]),
    "an id alone": message(["01a204c6-b7a9-735c-88a1-8b4cc722f904"]),
    "text": message("text"),
    "a number": message(7),
    "nothing": message(),
    "more than that": message([], surplus=1),
    "of a later version": message([], function="refund_payments"),
    "expired": None,
}


@pytest.mark.parametrize("name", POISON)
async def test_a_message_that_is_none_is_dropped_and_the_loop_goes_on(
    redis_url: str, carrier: Carrier, hands: Hands, name: str
) -> None:
    poison = POISON[name]
    if poison is not None:
        await carrier.redis.set(job_key_prefix + "poison", poison)
    await carrier.redis.zadd(Queue.PROCESS, {"poison": 1})
    with capture_logs() as logs:
        async with looping(redis_url, hands) as run:
            refs = await comes_through(carrier, hands)
            await until_empty(carrier)
            assert not run.done()
    assert hands.got[0] == refs
    assert "jobs.loop_ended" not in {line["event"] for line in logs}


# -- Redis goes away


async def test_a_redis_that_is_not_there_yet_is_waited_for(tmp_path: Path, hands: Hands) -> None:
    own = ValkeyServer(tmp_path / "valkey")
    with capture_logs() as logs:
        async with looping(own.url, hands):
            await eventually(lambda: "jobs.loop_ended" in {line["event"] for line in logs})
            with own:
                carrier = open_carrier(own.url)
                await comes_through(carrier, hands)
                await carrier.close()


async def test_after_a_restart_of_redis_the_loop_is_at_work_again(
    own: ValkeyServer, own_carrier: Carrier, hands: Hands
) -> None:
    async with looping(own.url, hands) as run:
        for _ in range(2):
            await comes_through(own_carrier, hands)
            own.restart()
        await comes_through(own_carrier, hands)
        assert not run.done()


async def test_a_job_that_runs_while_redis_dies_ends_by_itself(own: ValkeyServer, own_carrier: Carrier) -> None:
    hands = Hands()
    async with looping(own.url, hands):
        await own_carrier.publish(Queue.PROCESS, some_refs())
        await eventually(lambda: hands.running == 1)
        with capture_logs() as logs:
            own.kill()
            await eventually(lambda: "jobs.loop_ended" in {line["event"] for line in logs})
            own.start()
        hands.opened.set()
        await eventually(lambda: hands.finished == 1)
        await comes_through(own_carrier, hands)


async def test_a_hung_redis_is_left_and_found_again(own: ValkeyServer, own_carrier: Carrier, hands: Hands) -> None:
    async with looping(own.url, hands):
        await comes_through(own_carrier, hands)
        with capture_logs() as logs:
            own.pause()
            await eventually(lambda: "jobs.loop_ended" in {line["event"] for line in logs}, timeout_s=BACK_S)
            own.resume()
        await comes_through(own_carrier, hands)


async def test_a_redis_that_forgets_everything_in_the_middle_of_a_job_does_no_harm(
    redis_url: str, carrier: Carrier
) -> None:
    hands = Hands()
    with capture_logs() as logs:
        async with looping(redis_url, hands):
            for _ in range(JOBS_MAX + 5):
                await carrier.publish(Queue.PROCESS, some_refs())
            await eventually(lambda: hands.running == JOBS_MAX)
            await carrier.redis.flushall()
            hands.opened.set()
            await comes_through(carrier, hands)
    assert "jobs.loop_ended" not in {line["event"] for line in logs}


# -- the end


async def test_ending_the_loop_lets_the_running_job_end(redis_url: str, carrier: Carrier) -> None:
    hands = Hands()
    async with looping(redis_url, hands) as run:
        await carrier.publish(Queue.PROCESS, some_refs())
        await eventually(lambda: hands.running == 1)
        late = some_refs()
        run.cancel()
        await asyncio.wait([run], timeout=0.05)
        assert not run.done()
        await carrier.publish(Queue.PROCESS, late)
        hands.opened.set()
        await asyncio.wait([run], timeout=10)
    assert run.cancelled()
    assert hands.finished == 1
    assert await jobs_in(carrier, Queue.PROCESS) == [late]


@pytest.mark.parametrize("trouble", ["kill", "pause"])
async def test_ending_the_loop_needs_no_redis(
    own: ValkeyServer, own_carrier: Carrier, hands: Hands, trouble: str
) -> None:
    async with looping(own.url, hands) as run:
        await comes_through(own_carrier, hands)
        getattr(own, trouble)()
        run.cancel()
        _done, pending = await asyncio.wait([run], timeout=10)
        assert not pending


async def test_a_bug_in_the_loop_itself_ends_it(redis_url: str, hands: Hands) -> None:
    """Whoever runs it ends with it: no worker stays that takes nothing."""

    def gate() -> int:
        raise RuntimeError("a bug of ours")

    async with looping(redis_url, hands, gate=gate) as run:
        await asyncio.wait([run], timeout=10)
        assert run.done()
        assert isinstance(run.exception(), RuntimeError)
