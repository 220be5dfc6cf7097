"""Single flight: callers that want the same answer at the same time share one call, and a fresh answer is kept."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from api.single_flight import CachedCall, SingleFlight
from tests.support.manual_clock import ManualClock
from tests.support.waiting import eventually


class Trouble(Exception):
    pass


class Source:
    """What is called: counts its calls, and answers with their number when `released` is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.ended = 0
        self.released = asyncio.Event()
        self.called = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        self.called.set()
        await self.released.wait()
        self.ended += 1
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
async def source() -> Source:
    return Source()


@pytest.fixture
async def flight() -> SingleFlight[str, int]:
    return SingleFlight()


async def asking(call: Callable[[], Any], count: int, source: Source) -> list[asyncio.Task[int]]:
    """So many callers that all wait: tasks begin in the order of their creation, and each asks in its first step."""
    callers = [asyncio.create_task(call()) for _ in range(count)]
    await source.called.wait()
    return callers


# -- one call for all who want the same


async def test_callers_at_the_same_time_share_one_call(flight: SingleFlight[str, int], source: Source) -> None:
    callers = await asking(lambda: flight.do("a", source), 20, source)
    source.released.set()
    assert await asyncio.gather(*callers) == [1] * 20
    assert source.calls == 1


async def test_a_caller_that_comes_while_the_call_runs_shares_it(
    flight: SingleFlight[str, int], source: Source
) -> None:
    early = await asking(lambda: flight.do("a", source), 1, source)
    late = asyncio.create_task(flight.do("a", source))
    source.released.set()
    assert await asyncio.gather(*early, late) == [1, 1]


async def test_the_next_caller_after_the_end_calls_anew(flight: SingleFlight[str, int], source: Source) -> None:
    source.released.set()
    assert [await flight.do("a", source) for _ in range(3)] == [1, 2, 3]


async def test_other_keys_have_calls_of_their_own(flight: SingleFlight[str, int]) -> None:
    sources = {key: Source() for key in "abc"}
    callers = [asyncio.create_task(flight.do(key, source)) for key, source in sources.items() for _ in range(5)]
    for source in sources.values():
        await source.called.wait()
    sources["b"].released.set()
    assert await asyncio.gather(*callers[5:10]) == [1] * 5
    assert not any(caller.done() for caller in (*callers[:5], *callers[10:]))
    for source in sources.values():
        source.released.set()
    await asyncio.gather(*callers)
    assert [source.calls for source in sources.values()] == [1, 1, 1]


# -- callers that leave


@pytest.mark.parametrize("leaver", [0, 1], ids=["the caller that began it", "another"])
async def test_a_caller_that_leaves_does_not_end_the_call_of_the_others(
    flight: SingleFlight[str, int], source: Source, leaver: int
) -> None:
    callers = await asking(lambda: flight.do("a", source), 3, source)
    leaving = callers.pop(leaver)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    source.released.set()
    assert await asyncio.gather(*callers) == [1, 1]
    assert source.calls == 1


async def test_a_call_that_all_callers_have_left_goes_on_and_is_there_for_the_next(
    flight: SingleFlight[str, int], source: Source
) -> None:
    callers = await asking(lambda: flight.do("a", source), 3, source)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert all(caller.cancelled() for caller in callers)
    late = asyncio.create_task(flight.do("a", source))
    source.released.set()
    assert await late == 1
    assert source.ended == 1


async def test_an_exception_after_the_last_caller_has_left_is_no_complaint_of_the_event_loop(
    flight: SingleFlight[str, int], source: Source
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    source.error = Trouble()
    [caller] = await asking(lambda: flight.do("a", source), 1, source)
    caller.cancel()
    await asyncio.wait([caller])
    source.released.set()
    await eventually(lambda: source.ended)
    source.error = None
    assert await flight.do("a", source) == 2
    # Asyncio complains of an exception that was not looked at when the last reference to its task goes.
    del caller
    gc.collect()
    assert complaints == []


async def test_close_cancels_the_calls_that_all_callers_have_left_and_waits_for_their_end(
    flight: SingleFlight[str, int],
) -> None:
    called, ended = asyncio.Event(), []

    async def hang() -> int:
        called.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("hang")
        return 1

    caller = asyncio.create_task(flight.do("a", hang))
    await called.wait()
    caller.cancel()
    await asyncio.wait([caller])
    await flight.close()
    assert ended == ["hang"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_close_without_calls_changes_nothing(flight: SingleFlight[str, int], source: Source) -> None:
    await flight.close()
    source.released.set()
    assert await flight.do("a", source) == 1


# -- exceptions


async def test_an_exception_reaches_every_caller_and_is_not_kept(
    flight: SingleFlight[str, int], source: Source
) -> None:
    source.error = Trouble("once")
    callers = await asking(lambda: flight.do("a", source), 5, source)
    source.released.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(error) for error in errors if isinstance(error, Trouble)] == ["once"] * 5
    source.error = None
    assert await flight.do("a", source) == 2


# -- an answer that is kept


async def test_an_answer_is_kept_for_its_time_and_then_asked_for_again(source: Source) -> None:
    source.released.set()
    clock = ManualClock()
    fresh = CachedCall(source, ttl_s=10, clock=clock)
    assert await fresh.get() == 1
    for passed_s, answer in ((9.9, 1), (0.1, 2), (9.9, 2), (0.1, 3), (1000, 4)):
        clock.now += passed_s
        assert [await fresh.get() for _ in range(3)] == [answer] * 3


async def test_the_time_of_an_answer_begins_when_it_is_there(source: Source) -> None:
    clock = ManualClock()
    fresh = CachedCall(source, ttl_s=10, clock=clock)
    callers = await asking(fresh.get, 1, source)
    clock.now += 60
    source.released.set()
    await asyncio.gather(*callers)
    clock.now += 9.9
    assert await fresh.get() == 1


async def test_callers_without_a_fresh_answer_share_one_call(source: Source) -> None:
    clock = ManualClock()
    fresh = CachedCall(source, ttl_s=10, clock=clock)
    for number in (1, 2):
        source.called.clear()
        source.released.clear()
        callers = await asking(fresh.get, 10, source)
        source.released.set()
        assert await asyncio.gather(*callers) == [number] * 10
        clock.now += 10
    assert source.calls == 2


async def test_with_0_seconds_every_caller_asks_but_shares_a_running_call(source: Source) -> None:
    fresh = CachedCall(source, ttl_s=0, clock=ManualClock())
    callers = await asking(fresh.get, 10, source)
    source.released.set()
    assert await asyncio.gather(*callers) == [1] * 10
    assert [await fresh.get() for _ in range(3)] == [2, 3, 4]


async def test_an_exception_is_no_answer_and_leaves_the_next_caller_to_ask(source: Source) -> None:
    clock = ManualClock()
    fresh = CachedCall(source, ttl_s=10, clock=clock)
    source.error = Trouble("away")
    callers = await asking(fresh.get, 5, source)
    source.released.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(error) for error in errors if isinstance(error, Trouble)] == ["away"] * 5
    with pytest.raises(Trouble):
        await fresh.get()
    source.error = None
    assert [await fresh.get() for _ in range(2)] == [3, 3]


async def test_a_fresh_answer_does_not_become_fresher_by_a_failure(source: Source) -> None:
    source.released.set()
    clock = ManualClock()
    fresh = CachedCall(source, ttl_s=10, clock=clock)
    assert await fresh.get() == 1
    clock.now += 10
    source.error = Trouble()
    for _ in range(2):
        with pytest.raises(Trouble):
            await fresh.get()
    assert source.calls == 3


async def test_false_is_an_answer_like_any_other() -> None:
    answers = [False, True]

    async def pop() -> bool:
        return answers.pop(0)

    fresh = CachedCall(pop, ttl_s=10, clock=ManualClock())
    assert [await fresh.get() for _ in range(3)] == [False] * 3
