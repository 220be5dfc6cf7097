"""Requests are counted in Redis for all processes, in windows, and a Redis that fails holds up nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic, time

import pytest
from limits import parse
from redis.asyncio import Redis
from structlog.testing import capture_logs

from api.edge.rate_limits import COUNTS_REMEMBERED_MAX, Counter
from api.edge.redis_counts import COUNT_TIMEOUT_S, HITS_MAX, RedisCounts
from shared.broker.client import Broker
from shared.errors import BrokerUnavailable
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.rate_limits import DAY_S, ON_SQLITE, MakeSettings, limiting, redis, statuses
from tests.support.servers import ValkeyServer, free_port

pytest_plugins = ["tests.support.api_fixtures"]

__all__ = ["redis"]

PATIENT_S = 10  # a loaded machine must not decide these


# -- together, and without Redis


async def test_all_processes_share_one_count(make_settings: MakeSettings, tmp_path: Path) -> None:
    first, second = (
        PaymentsProcess("api", tmp_path / name, make_settings(rate_limit_user="3/day", port=free_port()))
        for name in ("first", "second")
    )
    with processes(first, second):
        async with Shop((await first.ready()).settings) as one, Shop((await second.ready()).settings) as two:
            answers = [await shop.http.get("/payments") for shop in (one, two, one, two, one)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0", "r=0"]


@ON_SQLITE
async def test_when_redis_dies_a_process_goes_on_from_what_it_knows(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    with ValkeyServer(tmp_path / "own") as valkey:
        async with limiting(make_settings, rate_limit_user="4/day", redis_url=valkey.url) as running_api:
            assert await statuses(running_api.user(), "/payments", 2) == [200, 200]
            valkey.kill()
            with capture_logs() as logs:
                answer = await running_api.user().get("/payments")
            assert answer.status_code == 200
            assert ";r=1;" in answer.headers["ratelimit"]
            assert [line for line in logs if line["event"] == "breaker.opened"]
            assert await statuses(running_api.user(), "/payments", 2) == [200, 429]
            valkey.start()
            assert await statuses(running_api.user(), "/payments", 2) == [429, 429]  # an empty Redis changes nothing
            assert (await running_api.user(2).get("/payments")).status_code == 200


@ON_SQLITE
async def test_a_hung_redis_holds_up_an_answer_for_a_bounded_time_and_once(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    with ValkeyServer(tmp_path / "own") as valkey:
        async with limiting(make_settings, rate_limit_address="50/day", redis_url=valkey.url) as running_api:
            anybody = running_api.client(base="")
            assert (await anybody.get("/nowhere")).status_code == 404
            valkey.pause()
            durations_s = []
            for _ in range(5):
                started = monotonic()
                assert (await anybody.get("/nowhere")).status_code == 404
                durations_s.append(monotonic() - started)
            valkey.resume()
    assert COUNT_TIMEOUT_S <= durations_s[0] < COUNT_TIMEOUT_S + 0.5
    assert sum(durations_s[1:]) < COUNT_TIMEOUT_S + 0.5  # the breaker is open; a slow machine may see it close once


# -- the windows


class ClockedCounter:
    """A counter with a clock of its own on a real Valkey."""

    def __init__(self, counts: RedisCounts) -> None:
        self.now = float(int(time() / DAY_S) * DAY_S)
        self._counter = Counter(counts, clock=lambda: self.now)

    async def hit(self, rate: str, client: str) -> tuple[int, int, bool]:
        status = await self._counter.hit("user", parse(rate), client)
        return status.count, status.reset_s, status.is_over


@pytest.fixture
async def counter(broker: Broker) -> AsyncIterator[ClockedCounter]:
    counts = RedisCounts(broker, timeout_s=PATIENT_S)
    counting = asyncio.create_task(counts.run())
    yield ClockedCounter(counts)
    counting.cancel()


async def test_a_window_ends_when_it_said(counter: ClockedCounter) -> None:
    assert [(await counter.hit("2/minute", "1"))[0] for _ in range(3)] == [1, 2, 3]
    count, reset_s, is_over = await counter.hit("2/minute", "1")
    assert is_over
    counter.now += reset_s - 0.001
    assert (await counter.hit("2/minute", "1"))[1:] == (1, True)
    counter.now += 0.001
    assert await counter.hit("2/minute", "1") == (1, 60, False)
    assert count == 4


async def test_not_everybodys_window_ends_in_the_same_second(counter: ClockedCounter) -> None:
    assert len({(await counter.hit("2/minute", str(client)))[1] for client in range(20)}) > 5


async def test_requests_at_the_same_time_share_a_round_trip_and_get_a_count_each(broker: Broker) -> None:
    counts = RedisCounts(broker, timeout_s=PATIENT_S)
    hits = [asyncio.create_task(counts.increment(str(each % 3), 60)) for each in range(HITS_MAX + 10)]
    # Tasks begin in the order of their creation: the round begins when every hit waits.
    first_round = asyncio.create_task(counts.run_once())
    assert await asyncio.wait_for(first_round, 5) == HITS_MAX
    assert await counts.run_once() == 10
    assert sorted(await asyncio.gather(*hits)) == sorted(count for _ in range(3) for count in range(1, 171))


async def test_an_emptied_redis_gives_no_client_new_requests(counter: ClockedCounter, redis: Redis) -> None:
    assert [(await counter.hit("9/day", "1"))[0] for _ in range(3)] == [1, 2, 3]
    await redis.flushall()
    assert (await counter.hit("9/day", "1"))[0] == 3


async def test_limits_that_differ_do_not_share_a_count(counter: ClockedCounter) -> None:
    assert (await counter.hit("2/minute", "1"))[0] == 1
    assert (await counter.hit("2/hour", "1"))[0] == 1
    assert (await counter.hit("3/minute", "1"))[0] == 1


async def test_redis_keeps_no_count_for_longer_than_its_window(counter: ClockedCounter, redis: Redis) -> None:
    await counter.hit("2/minute", "1")
    [key] = await redis.keys("*")
    assert key.startswith(b"payments:limits:")
    assert 0 < await redis.pttl(key) <= 60_000


class Unreachable(RedisCounts):
    """Counts in a Redis that never answers."""

    async def increment(self, key: str, expires_in_s: int) -> int:
        raise BrokerUnavailable(f"{key} for {expires_in_s} s")


async def test_what_a_process_remembers_is_bounded_and_the_oldest_goes_first(broker: Broker) -> None:
    counter, limit = Counter(Unreachable(broker), clock=lambda: DAY_S), parse("9/day")
    clients = [str(number) for number in range(COUNTS_REMEMBERED_MAX + 10)]
    for client in clients:
        await counter.hit("user", limit, client)
    known = [client for client in clients if counter.peek("user", limit, client).count]
    assert known == clients[10:]
