"""Who asks too often is told so, how they stand is said in every answer, and a Redis that fails holds up nobody."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic, time
from typing import Any, cast

import httpx
import pytest
from limits import parse
from structlog.testing import capture_logs

from api.rate_counts import COUNT_TIMEOUT_S, HITS_MAX, SharedCounts
from api.rate_limits import REMEMBERED_MAX, Counter
from shared.config import Settings
from shared.queue import open_carrier
from shared.runtime import open_runtime
from tests.api_client import Door, added, card, opened, order, problem, served, token
from tests.processes import PaymentsProcess, Shop, processes
from tests.servers import ValkeyServer, free_port

pytest_plugins = ["tests.api_fixtures"]

type MakeSettings = Callable[..., Settings]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
PATIENT_S = 10  # a loaded machine must not decide these
DAY_S = 86_400
QUARTER_OF_A_DAY_S = 21_600


@asynccontextmanager
async def limiting(make_settings: MakeSettings, **settings: Any) -> AsyncIterator[Door]:
    """A running API with these settings."""
    runtime = open_runtime(make_settings(**settings))
    try:
        async with opened(runtime) as door:
            yield door
    finally:
        await runtime.close()


def coming_from(door: Door, address: str, *, forwarded: str | None = None) -> httpx.AsyncClient:
    """Somebody with another address than all the rest; paths from the root."""
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    app = cast("httpx.ASGITransport", door.transport).app
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(address, 1)), base_url=door.url, headers=headers
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
async def test_without_a_limit_nothing_is_counted_and_nothing_said(door: Door, user: httpx.AsyncClient) -> None:
    assert door.api is not None
    assert door.api.rate_limits is None
    answer = await user.get("/payments")
    assert not {"ratelimit", "ratelimit-policy", "retry-after"} & answer.headers.keys()
    assert await door.runtime.carrier.redis.keys("*limits*") == []


# -- a user's


@ON_SQLITE
async def test_a_user_has_as_many_requests_as_the_limit_says(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="3/day") as door:
        for left in (2, 1, 0):
            answer = await door.user().get("/payments")
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"user";q=3;w=86400'
            name, state = answer.headers["ratelimit"].split(";r=")
            assert (name, state.split(";t=")[0]) == ('"user"', str(left))
            assert "retry-after" not in answer.headers
        refused(await door.user().get("/payments"))
        assert (await door.user(2).get("/payments")).status_code == 200


@ON_SQLITE
async def test_the_platforms_mounts_share_the_count(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="4/day") as door:
        platform = door.client(base="/api", headers=dict(door.user().headers))
        assert (await platform.get("/payments")).status_code == 200
        assert (await platform.get("/payments/methods")).status_code == 200
        assert await statuses(door.user(), "/payment-methods", 3) == [200, 200, 429]
        refused(await platform.get("/payments"))
        refused(await platform.get("/payments/methods"))
        refused(await platform.post("/payments", json={}))


@ON_SQLITE
async def test_another_token_of_a_user_is_the_same_user(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="1/day") as door:
        assert (await door.user(iat=1).get("/payments")).status_code == 200
        refused(await door.user(iat=2).get("/payments"))


@ON_SQLITE
async def test_what_is_refused_is_not_done(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="2/day") as door:
        method_id = await added(door.user())
        assert (await door.user().post("/payments", json=order(method_id))).status_code == 202
        refused(await door.user().post("/payments", json=order(method_id)))
        refused(await door.user().post("/payment-methods", json=card("5555555555554444")))
        assert len((await door.admin().get("/payments")).json()["payments"]) == 1


@ON_SQLITE
async def test_machines_act_for_many_and_have_no_users_limit(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="1/day") as door:
        for machine in (door.service(), door.admin()):
            assert await statuses(machine, "/payments", 3) == [200] * 3
            assert "ratelimit" not in (await machine.get("/payments")).headers


@ON_SQLITE
async def test_a_forged_token_spends_nobody_elses_requests(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="1/day") as door:
        for _ in range(3):
            forged = door.bearing(token("another-secret-that-is-also-more-than-32-bytes", user_id=1))
            problem(await forged.get("/payments"), 401, "invalid_token")
        assert (await door.user().get("/payments")).status_code == 200


@ON_SQLITE
async def test_whoever_decides_about_tokens_is_asked_once(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="9/day", auth_service_url="http://127.0.0.1:1") as door:
        with capture_logs() as logs:
            problem(await door.user().get("/payments"), 503, "unavailable")
        assert [line["event"] for line in logs].count("neighbour.unreachable") == 1


# -- an address's


@ON_SQLITE
async def test_an_address_is_counted_whatever_it_asks_for(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_address="5/day") as door:
        anybody = door.client(base="")
        answers = [await anybody.get(path) for path in ("/api/v1/payments", "/nowhere", "/openapi.json", "/docs")]
        assert [answer.status_code for answer in answers] == [401, 404, 200, 200]
        assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=4", "r=3", "r=2", "r=1"]
        assert (await door.admin().get("/payments")).status_code == 200
        refused(await anybody.get("/nowhere"))
        refused(await door.admin().get("/payments"))
        assert (await coming_from(door, "198.51.100.7").get("/nowhere")).status_code == 404


@ON_SQLITE
async def test_health_and_metrics_are_never_limited(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_address="1/day") as door:
        anybody = door.client(base="")
        assert await statuses(anybody, "/nowhere", 2) == [404, 429]
        for path in ("/health", "/health/ready", "/metrics"):
            assert await statuses(anybody, path, 3) == [200] * 3
            assert "ratelimit" not in (await anybody.get(path)).headers


@ON_SQLITE
async def test_a_hostile_header_makes_nobody_another_address(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_address="1/day", trusted_proxies="10.0.0.0/8") as door:
        for forwarded, expected in ((None, 404), ("203.0.113.1", 429), ("10.0.0.1", 429)):
            answer = await coming_from(door, "198.51.100.7", forwarded=forwarded).get("/nowhere")
            assert answer.status_code == expected
        for peer, forwarded, expected in (
            ("10.0.0.1", "198.51.100.8", 404),
            ("10.0.0.2", "203.0.113.1, 198.51.100.8", 429),  # the same client, by another proxy
            ("10.0.0.2", "198.51.100.8, 203.0.113.1", 404),
        ):
            answer = await coming_from(door, peer, forwarded=forwarded).get("/nowhere")
            assert answer.status_code == expected, (peer, forwarded)


@ON_SQLITE
async def test_the_real_server_believes_no_header_on_loopback(make_settings: MakeSettings) -> None:
    runtime = open_runtime(make_settings(rate_limit_address="1/day"))
    try:
        async with served(runtime) as door:
            answers = [
                await door.client(base="", headers={"X-Forwarded-For": f"198.51.100.{n}"}).get("/nowhere")
                for n in (1, 2)
            ]
        assert [answer.status_code for answer in answers] == [404, 429]
    finally:
        await runtime.close()


@ON_SQLITE
async def test_both_limits_are_told_and_the_longest_wait_counts(make_settings: MakeSettings) -> None:
    async with limiting(make_settings, rate_limit_user="2/day", rate_limit_address="9 per 6 hours") as door:
        answer = await door.user().get("/payments")
        assert answer.headers["ratelimit-policy"] == '"user";q=2;w=86400, "address";q=9;w=21600'
        states = dict(state.split(";", 1) for state in answer.headers["ratelimit"].split(", "))
        assert [state.split(";")[0] for state in states.values()] == ["r=1", "r=8"]
        waits = {name: int(state.split("t=")[1]) for name, state in states.items()}
        assert 0 < waits['"user"'] <= DAY_S
        assert 0 < waits['"address"'] <= QUARTER_OF_A_DAY_S
        assert await statuses(door.user(), "/payments", 2) == [200, 429]


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
        async with limiting(make_settings, rate_limit_user="4/day", redis_url=valkey.url) as door:
            assert await statuses(door.user(), "/payments", 2) == [200, 200]
            valkey.kill()
            with capture_logs() as logs:
                answer = await door.user().get("/payments")
            assert answer.status_code == 200
            assert ";r=1;" in answer.headers["ratelimit"]
            assert [line for line in logs if line["event"] == "breaker.opened"]
            assert await statuses(door.user(), "/payments", 2) == [200, 429]
            valkey.start()
            assert await statuses(door.user(), "/payments", 2) == [429, 429]  # an empty Redis forgives nobody
            assert (await door.user(2).get("/payments")).status_code == 200


@ON_SQLITE
async def test_a_hung_redis_holds_up_an_answer_for_a_bounded_time_and_once(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    with ValkeyServer(tmp_path / "own") as valkey:
        async with limiting(make_settings, rate_limit_address="50/day", redis_url=valkey.url) as door:
            anybody = door.client(base="")
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


class Scene:
    """A counter with a clock of its own on a real Valkey."""

    def __init__(self, shared: SharedCounts) -> None:
        self.now = float(int(time() / DAY_S) * DAY_S)
        self.shared = shared
        self.counter = Counter(shared, clock=lambda: self.now)

    async def hit(self, rate: str, who: str) -> tuple[int, int, bool]:
        standing = await self.counter.hit("user", parse(rate), who)
        return standing.count, standing.reset_s, standing.is_over


@pytest.fixture
async def scene(redis_url: str) -> AsyncIterator[Scene]:
    carrier = open_carrier(redis_url)
    scene = Scene(SharedCounts(carrier.redis, timeout_s=PATIENT_S))
    counting = asyncio.create_task(scene.shared.run())
    yield scene
    counting.cancel()
    await carrier.close()


async def test_a_window_ends_when_it_said(scene: Scene) -> None:
    assert [(await scene.hit("2/minute", "1"))[0] for _ in range(3)] == [1, 2, 3]
    count, reset_s, is_over = await scene.hit("2/minute", "1")
    assert is_over
    scene.now += reset_s - 0.001
    assert (await scene.hit("2/minute", "1"))[1:] == (1, True)
    scene.now += 0.001
    assert await scene.hit("2/minute", "1") == (1, 60, False)
    assert count == 4


async def test_not_everybodys_window_ends_in_the_same_second(scene: Scene) -> None:
    assert len({(await scene.hit("2/minute", str(who)))[1] for who in range(20)}) > 5


async def test_requests_at_the_same_time_share_a_round_trip_and_get_a_count_each(redis_url: str) -> None:
    carrier = open_carrier(redis_url)
    shared = SharedCounts(carrier.redis, timeout_s=PATIENT_S)
    hits = asyncio.gather(*(shared.incr(str(who % 3), 60) for who in range(HITS_MAX + 10)))
    assert await asyncio.wait_for(_first_round(shared), 5) == HITS_MAX
    assert await shared.run_once() == 10
    assert sorted(await hits) == sorted(count for who in range(3) for count in range(1, 171))
    await carrier.close()


async def _first_round(shared: SharedCounts) -> int:
    """Of the hits that others have handed in before us."""
    await asyncio.sleep(0)
    return await shared.run_once()


async def test_an_emptied_redis_gives_nobody_new_requests(scene: Scene) -> None:
    assert [(await scene.hit("9/day", "1"))[0] for _ in range(3)] == [1, 2, 3]
    await scene.shared._redis.flushall()
    assert (await scene.hit("9/day", "1"))[0] == 3


async def test_limits_that_differ_do_not_share_a_count(scene: Scene) -> None:
    assert (await scene.hit("2/minute", "1"))[0] == 1
    assert (await scene.hit("2/hour", "1"))[0] == 1
    assert (await scene.hit("3/minute", "1"))[0] == 1


async def test_redis_keeps_no_count_for_longer_than_its_window(scene: Scene, redis_url: str) -> None:
    await scene.hit("2/minute", "1")
    carrier = open_carrier(redis_url)
    [key] = await carrier.redis.keys("*")
    assert key.startswith(b"payments:limits:")
    assert 0 < await carrier.redis.pttl(key) <= 60_000
    await carrier.close()


async def test_what_a_process_remembers_is_bounded(scene: Scene) -> None:
    for who in range(REMEMBERED_MAX + 10):
        scene.counter._remember(str(who), 1)
    assert len(scene.counter._known) == REMEMBERED_MAX
