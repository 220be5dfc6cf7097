"""A client that asks too often gets 429, and every answer states what is left."""

import httpx
from redis.asyncio import Redis
from structlog.testing import capture_logs

from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, added, card, order, problem, served, token
from tests.support.rate_limits import DAY_S, ON_SQLITE, MakeSettings, coming_from, limiting, redis, refused, statuses

pytest_plugins = ["tests.support.api_fixtures"]

__all__ = ["redis"]

QUARTER_OF_A_DAY_S = 21_600


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
