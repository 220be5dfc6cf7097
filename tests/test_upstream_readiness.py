"""Readiness tells of the upstream services, asks them once in a while, and is ours whatever they say."""

import asyncio

from shared.runtime import open_runtime
from tests.support.api_client import opened
from tests.support.auth_standins import AuthService
from tests.support.order_standins import OrderService
from tests.support.platforms import SECRET, MakeSettings
from tests.support.standins import running
from tests.support.waiting import calls_running, eventually


async def test_readiness_says_how_the_upstream_services_are_and_asks_them_once_in_a_while(
    make_settings: MakeSettings,
) -> None:
    async with running(AuthService(secret=SECRET)) as auth, running(OrderService(secret=SECRET)) as orders:
        settings = make_settings(auth_service_url=auth.url, order_service_url=orders.url, ready_cache_s=60)
        runtime = open_runtime(settings)
        try:
            async with opened(runtime) as running_api:
                client = running_api.client(base="")
                answers = await asyncio.gather(*(client.get("/health/ready") for _ in range(20)))
                for answer in answers:
                    checks = answer.json()["checks"]
                    assert (checks["auth_service"], checks["order_service"]) == ("ready", "ready")
                assert [len(service.asked("GET", "/health")) for service in (auth, orders)] == [1, 1]
        finally:
            await runtime.close()


async def test_upstream_services_that_are_sick_or_gone_or_hang_are_not_ready_and_we_still_are(
    make_settings: MakeSettings,
) -> None:
    async with running(AuthService(secret=SECRET)) as auth, running(OrderService(secret=SECRET)) as orders:
        settings = make_settings(
            auth_service_url=auth.url, order_service_url=orders.url, ready_cache_s=0, ready_timeout_s=0.3
        )
        runtime = open_runtime(settings)
        try:
            async with opened(runtime) as running_api:
                client = running_api.client(base="")

                async def words() -> tuple[int, str, str]:
                    answer = await client.get("/health/ready")
                    checks = answer.json()["checks"]
                    return answer.status_code, checks["auth_service"], checks["order_service"]

                auth.is_sick, orders.held = True, asyncio.Event()
                assert await words() == (200, "not_ready", "not_ready")
                auth.is_sick = False
                orders.held.set()
                orders.held = None
                await orders.down()
                assert await words() == (200, "ready", "not_ready")
                await orders.up()
                assert await words() == (200, "ready", "ready")
        finally:
            await runtime.close()


async def test_a_question_that_its_caller_has_left_ends_with_the_api(make_settings: MakeSettings) -> None:
    async with running(OrderService(secret=SECRET)) as orders:
        orders.held = asyncio.Event()
        runtime = open_runtime(make_settings(order_service_url=orders.url, ready_timeout_s=10))
        try:
            async with opened(runtime) as running_api:
                assert running_api.api is not None
                caller = asyncio.create_task(running_api.api.readiness.are_healthy())
                await eventually(lambda: orders.requests)
                caller.cancel()
                await asyncio.wait([caller])
                assert calls_running() == 1
            assert calls_running() == 0
        finally:
            await runtime.close()
