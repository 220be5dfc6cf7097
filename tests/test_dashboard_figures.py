"""The live figures of the dashboard: windows of counts, and the stream that all viewers share."""

import asyncio
from itertools import count
from typing import Any

import orjson
import pytest

from api.dashboard.overview import Overview
from api.dashboard.stream import QUEUE_MAX, VIEWERS_MAX, Broadcast
from api.dashboard.windows import Window, quantiles
from shared import metrics
from shared.errors import Overloaded
from tests.support.api_client import RunningApi, accepted, added, order
from tests.support.waiting import eventually
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]


# -- windows


def test_a_window_counts_what_has_grown_within_it() -> None:
    window = Window(10)
    window.add(0, {"a": {"x": 100}})
    assert window.sums() == {}
    window.add(1, {"a": {"x": 103}, "b": {"x": 50}})
    window.add(2, {"a": {"x": 104, "y": 1}, "b": {"x": 52}})
    assert window.sums() == {"x": 6, "y": 1}
    # A worker that is gone, and one that begins again at 0, count nothing twice.
    window.add(3, {"b": {"x": 1}})
    assert window.sums() == {"x": 6, "y": 1}
    window.add(12.5, {"b": {"x": 4}})
    assert window.sums() == {"x": 3}


def test_quantiles_are_within_their_buckets() -> None:
    assert quantiles([0, 0, 0], [1.0, 2.0], [0.5]) == [None]
    assert quantiles([10, 0, 0], [1.0, 2.0], [0.5, 0.99]) == [0.5, 0.99]
    assert quantiles([5, 5, 0], [1.0, 2.0], [0.5, 0.75]) == [1.0, 1.5]
    # What is beyond the last bound is only known to be beyond it.
    assert quantiles([1, 0, 9], [1.0, 2.0], [0.99]) == [2.0]


async def test_the_overview_has_times_and_outcomes_of_the_workers(running_api: RunningApi) -> None:
    assert running_api.api is not None
    overview = Overview(running_api.api)
    async with working(running_api.runtime):
        user = running_api.user()
        method = await added(user)

        async def figures() -> dict[str, Any]:
            name, data = await overview.compute()
            assert name == "figures"
            found: dict[str, Any] = orjson.loads(data)
            return found

        async def has_worker() -> bool:
            return bool((await figures())["workers"])

        await eventually(has_worker, 10)
        for _ in range(3):
            payment = await accepted(user, order(method))
            await user.get(f"/payments/{payment['id']}", headers={"Prefer": "wait=10"})

        async def is_counted() -> bool:
            shown = await figures()
            return sum(number for _, number in shown["outcomes"]) == 3 and shown["settle_s"]["p50"] is not None

        await eventually(is_counted, 10)
        shown = await figures()
        assert shown["accept_s"]["p99"] is not None
        assert shown["slots"] == running_api.settings.worker_concurrency
    assert orjson.loads(overview.before())["past"]


def test_buckets_are_counts_of_their_own() -> None:
    before = metrics.bucket_counts(metrics.accept_seconds)
    metrics.accept_seconds.observe(0.003)
    metrics.accept_seconds.observe(9999)
    after = metrics.bucket_counts(metrics.accept_seconds)
    grown = [new - old for new, old in zip(after, before, strict=True)]
    assert len(after) == len(metrics.LATENCY_BUCKETS_S) + 1
    assert (sum(grown), grown[metrics.LATENCY_BUCKETS_S.index(0.005)], grown[-1]) == (2, 1, 1)


# -- the stream


def broadcast(calls: list[int], **options: float) -> Broadcast:
    numbers = count(1)

    async def compute() -> tuple[str, bytes]:
        calls.append(next(numbers))
        return "figures", b"%d" % calls[-1]

    return Broadcast(compute, lambda: b"{}", **{"interval_s": 0.01, **options})


async def stays() -> bool:
    """A viewer whose session goes on."""
    return False


async def test_one_computation_is_for_all_and_nothing_is_computed_while_nobody_looks() -> None:
    calls: list[int] = []
    shared = broadcast(calls)
    await asyncio.sleep(0.05)
    assert calls == []
    streams = [shared.events(stays) for _ in range(20)]
    firsts = [await anext(stream) for stream in streams]
    assert all(first.startswith(b"event: before\n") for first in firsts)
    seconds = [await anext(stream) for stream in streams]
    assert set(seconds) == {b"event: figures\ndata: 1\n\n"}
    for stream in streams:
        await stream.aclose()
    assert shared.viewers == 0
    computed = len(calls)
    await asyncio.sleep(0.05)
    assert len(calls) == computed < 20
    # The next viewer starts it again.
    again = shared.events(stays)
    await anext(again)
    await anext(again)
    await again.aclose()


async def test_a_viewer_who_does_not_read_is_dropped_and_delays_nobody() -> None:
    calls: list[int] = []
    shared = broadcast(calls)
    slow, quick = shared.events(stays), shared.events(stays)
    await anext(slow)
    await anext(quick)
    for _ in range(QUEUE_MAX + 4):
        await anext(quick)
    assert shared.viewers == 1
    with pytest.raises(StopAsyncIteration):
        await anext(slow)
    await quick.aclose()


async def test_streams_end_when_the_process_stops() -> None:
    shared = broadcast([])
    stream = shared.events(stays)
    await anext(stream)
    await shared.close()
    assert [event async for event in stream] == []


async def test_nothing_is_computed_after_the_process_stops() -> None:
    calls: list[int] = []
    shared = broadcast(calls)
    stream = shared.events(stays)
    await anext(stream)
    await anext(stream)
    await shared.close()
    computed = len(calls)
    await asyncio.sleep(0.05)
    assert len(calls) == computed
    await stream.aclose()


async def test_a_stream_ends_by_itself_and_its_page_connects_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a session that has ended is noticed by a page that is never closed."""
    monkeypatch.setattr("api.dashboard.stream.STREAM_S", 0.02)
    async with asyncio.timeout(5):
        events = [event async for event in broadcast([]).events(stays)]
    assert b"retry: 2000\n" in events[0]
    assert events[-1] == b"event: again\ndata: {}\n\n"


async def test_too_many_viewers_are_overload() -> None:
    shared = broadcast([])
    # All have asked before the first of them reads.
    streams = [shared.events(stays) for _ in range(VIEWERS_MAX)]
    for refuse in (shared.require_room, lambda: shared.events(stays)):
        with pytest.raises(Overloaded):
            refuse()
    for stream in streams:
        await anext(stream)
        await stream.aclose()
    shared.require_room()


async def test_a_place_that_is_taken_and_never_used_is_free_again_and_nothing_is_computed_for_it() -> None:
    calls: list[int] = []
    shared = broadcast(calls)
    stream = shared.events(stays)
    await eventually(lambda: shared.viewers == 0)
    computed = len(calls)
    await asyncio.sleep(0.05)
    assert len(calls) == computed
    # Whoever comes after all is sent away, and another one finds it working.
    assert [(await anext(stream)).split(b"\n")[0]] == [b"event: before"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    another = shared.events(stays)
    assert [(await anext(another)).split(b"\n")[0] for _ in range(2)] == [b"event: before", b"event: figures"]
    await another.aclose()


async def test_a_stream_ends_when_its_viewer_may_watch_no_longer() -> None:
    answers = iter([False, False, True])

    async def has_ended() -> bool:
        return next(answers)

    shared = broadcast([], look_s=0.02)
    names = [event.split(b"\n")[0] async for event in shared.events(has_ended)]
    assert names[0] == b"event: before"
    assert names[-1] == b"event: ended"
    assert len(names) > 3
    assert shared.viewers == 0


async def test_a_computation_that_fails_ends_no_stream() -> None:
    calls = count()

    async def compute() -> tuple[str, bytes]:
        if next(calls) == 0:
            raise RuntimeError("a defect")
        return "figures", b"1"

    shared = Broadcast(compute, lambda: b"{}", interval_s=0.01)
    stream = shared.events(stays)
    assert [(await anext(stream)).split(b"\n")[0] for _ in range(3)] == [
        b"event: before",
        b"event: unknown",
        b"event: figures",
    ]
    await stream.aclose()
