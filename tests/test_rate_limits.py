"""A client that asks too often gets 429, every answer states what is left, and a Redis that fails holds up nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic, time
from typing import Any, cast

import httpx
import pytest
from limits import parse
from redis.asyncio import Redis
from structlog.testing import capture_logs

from api.edge.rate_limits import COUNTS_REMEMBERED_MAX, Counter
from api.edge.redis_counts import COUNT_TIMEOUT_S, HITS_MAX, RedisCounts
from shared.broker.client import Broker
from shared.config.settings import Settings
from shared.errors import BrokerUnavailable
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, added, card, opened, order, problem, served, token
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.servers import ValkeyServer, free_port

pytest_plugins = ["tests.support.api_fixtures"]

type MakeSettings = Callable[..., Settings]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
PATIENT_S = 10  # a loaded machine must not decide these
DAY_S = 86_400
QUARTER_OF_A_DAY_S = 21_600


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client that looks at the counts as they are."""
    async with Redis.from_url(redis_url) as client:
        yield client


@asynccontextmanager
async def limiting(make_settings: MakeSettings, **settings: Any) -> AsyncIterator[RunningApi]:
    """A running API with these settings."""
    runtime = open_runtime(make_settings(**settings))
    try:
        async with opened(runtime) as running_api:
            yield running_api
    finally:
        await runtime.close()


def coming_from(running_api: RunningApi, address: str, *, forwarded: str | None = None) -> httpx.AsyncClient:
    """A client with an address of its own; paths from the root."""
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    app = cast("httpx.ASGITransport", running_api.transport).app
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(address, 1)), base_url=running_api.url, headers=headers
    )


def refused(answer: httpx.Response) -> None:
    problem(answer, 429, "rate_limited")
    wait_s = int(answer.headers["retry-after"])
    assert 0 < wait_s <= DAY_S
    assert f";r=0;t={wait_s}" in answer.headers["ratelimit"]


async def statuses(client: httpx.AsyncClient, path: str, count: int) -> list[int]:
    return [(await client.get(path)).status_code for _ in range(count)]


# -- off


@ON_SQLITE
async def test_without_a_limit_nothing_is_counted_and_nothing_said(
    running_api: RunningApi, user: httpx.AsyncClient, redis: Redis
) -> None:
    assert running_api.api is not None
    assert running_api.api.rate_limits is None
    answer = await user.get("/payments")
    assert not {"ratelimit", "ratelimit-policy", "retry-after"} & answer.headers.keys()
    assert await redis.keys("*limits*") == []


# -- a user's


@ON_SQLITE
async def test_a_user_has_as_many_requests_as_the_limit_says(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="3/day") as running_api:
        for left in (2, 1, 0):
            answer = await running_api.user().get("/payments")
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"user";q=3;w=86400'
            name, state = answer.headers["ratelimit"].split(";r=")
            assert (name, state.split(";t=")[0]) == ('"user"', str(left))
            assert "retry-after" not in answer.headers
        refused(await running_api.user().get("/payments"))
        assert (await running_api.user(2).get("/payments")).status_code == 200


@ON_SQLITE
async def test_the_platforms_mounts_share_the_count(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="4/day") as running_api:
        platform = running_api.client(base="/api", headers=dict(running_api.user().headers))
        assert (await platform.get("/payments")).status_code == 200
        assert (await platform.get("/payments/methods")).status_code == 200
        assert await statuses(running_api.user(), "/payment-methods", 3) == [200, 200, 429]
        refused(await platform.get("/payments"))
        refused(await platform.get("/payments/methods"))
        refused(await platform.post("/payments", json={}))


@ON_SQLITE
async def test_another_token_of_a_user_is_the_same_user(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="1/day") as running_api:
        assert (await running_api.user(iat=1).get("/payments")).status_code == 200
        refused(await running_api.user(iat=2).get("/payments"))


@ON_SQLITE
async def test_what_is_refused_is_not_done(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="2/day") as running_api:
        method_id = await added(running_api.user())
        assert (await running_api.user().post("/payments", json=order(method_id))).status_code == 202
        refused(await running_api.user().post("/payments", json=order(method_id)))
        refused(await running_api.user().post("/payment-methods", json=card("5555555555554444")))
        assert len((await running_api.admin().get("/payments")).json()["payments"]) == 1


@ON_SQLITE
async def test_machines_act_for_many_and_have_no_users_limit(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="1/day") as running_api:
        for machine in (running_api.service(), running_api.admin()):
            assert await statuses(machine, "/payments", 3) == [200] * 3
            assert "ratelimit" not in (await machine.get("/payments")).headers


@ON_SQLITE
async def test_a_forged_token_spends_no_requests_of_the_user_it_names(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="1/day") as running_api:
        for _ in range(3):
            forged = running_api.bearing(token("another-secret-that-is-also-more-than-32-bytes", user_id=1))
            problem(await forged.get("/payments"), 401, "invalid_token")
        assert (await running_api.user().get("/payments")).status_code == 200


@ON_SQLITE
async def test_a_token_is_looked_at_once_for_its_limit_and_its_route(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="9/day", auth_service_url="http://127.0.0.1:1") as running_api:
        with capture_logs() as logs:
            problem(await running_api.user().get("/payments"), 503, "unavailable")
        assert [line["event"] for line in logs].count("upstream.unreachable") == 1


# -- an address's


@ON_SQLITE
async def test_an_address_is_counted_whatever_it_asks_for(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_address="5/day") as running_api:
        anybody = running_api.client(base="")
        answers = [await anybody.get(path) for path in ("/api/v1/payments", "/nowhere", "/openapi.json", "/docs")]
        assert [answer.status_code for answer in answers] == [401, 404, 200, 200]
        assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=4", "r=3", "r=2", "r=1"]
        assert (await running_api.admin().get("/payments")).status_code == 200
        refused(await anybody.get("/nowhere"))
        refused(await running_api.admin().get("/payments"))
        assert (await coming_from(running_api, "198.51.100.7").get("/nowhere")).status_code == 404


@ON_SQLITE
async def test_health_and_metrics_are_never_limited(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_address="1/day") as running_api:
        anybody = running_api.client(base="")
        assert await statuses(anybody, "/nowhere", 2) == [404, 429]
        for path in ("/health", "/health/ready", "/metrics"):
            assert await statuses(anybody, path, 3) == [200] * 3
            assert "ratelimit" not in (await anybody.get(path)).headers


@ON_SQLITE
async def test_a_hostile_header_does_not_change_the_address_that_is_counted(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_address="1/day", trusted_proxies="10.0.0.0/8") as running_api:
        for forwarded, expected in ((None, 404), ("203.0.113.1", 429), ("10.0.0.1", 429)):
            answer = await coming_from(running_api, "198.51.100.7", forwarded=forwarded).get("/nowhere")
            assert answer.status_code == expected
        for peer, forwarded, expected in (
            ("10.0.0.1", "198.51.100.8", 404),
            ("10.0.0.2", "203.0.113.1, 198.51.100.8", 429),  # the same client, by another proxy
            ("10.0.0.2", "198.51.100.8, 203.0.113.1", 404),
        ):
            answer = await coming_from(running_api, peer, forwarded=forwarded).get("/nowhere")
            assert answer.status_code == expected, (peer, forwarded)


@ON_SQLITE
async def test_the_real_server_believes_no_header_on_loopback(make_settings: MakeSettings) -> None:
    runtime = open_runtime(make_settings(rate_limit_address="1/day"))
    try:
        async with served(runtime) as running_api:
            answers = [
                await running_api.client(base="", headers={"X-Forwarded-For": f"198.51.100.{n}"}).get("/nowhere")
                for n in (1, 2)
            ]
        assert [answer.status_code for answer in answers] == [404, 429]
    finally:
        await runtime.close()


@ON_SQLITE
async def test_both_limits_are_stated_and_the_longest_wait_counts(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="2/day", rate_limit_address="9 per 6 hours") as running_api:
        answer = await running_api.user().get("/payments")
        assert answer.headers["ratelimit-policy"] == '"user";q=2;w=86400, "address";q=9;w=21600'
        states = dict(state.split(";", 1) for state in answer.headers["ratelimit"].split(", "))
        assert [state.split(";")[0] for state in states.values()] == ["r=1", "r=8"]
        waits = {name: int(state.split("t=")[1]) for name, state in states.items()}
        assert 0 < waits['"user"'] <= DAY_S
        assert 0 < waits['"address"'] <= QUARTER_OF_A_DAY_S
        assert await statuses(running_api.user(), "/payments", 2) == [200, 429]


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
