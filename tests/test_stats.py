"""The live figures: what waits, what is claimed, who works; and the heartbeats behind them."""

import httpx
import pytest

from api.schemas import Figures
from shared.presence import Beat, alive, announce, leave
from shared.runtime import Runtime
from tests.api_client import Door, added, order, working
from tests.servers import ValkeyServer
from tests.waiting import eventually

pytest_plugins = ["tests.api_fixtures"]

BEAT = Beat(worker="host-1-abcd", slots=50, in_gateway=7, sending=1, settled=12, settled_per_s=2.5, uptime_s=9.0)


async def test_the_figures_count_what_waits_and_what_was_accepted(
    user: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    method = await added(user)
    for _ in range(3):
        (await user.post("/payments", json=order(method))).raise_for_status()
    figures = Figures.model_validate((await admin.get("/stats")).json())
    assert (figures.queue_depth, figures.in_flight, figures.webhook_backlog) == (3, 0, 0)
    assert figures.accepted_per_s == pytest.approx(3 / 5)
    assert figures.oldest_pending_s >= 0
    assert figures.workers == []


async def test_the_figures_are_for_admins_only(user: httpx.AsyncClient, service: httpx.AsyncClient) -> None:
    assert [(await client.get("/stats")).status_code for client in (user, service)] == [403, 403]


async def test_the_figures_are_counted_at_most_once_a_second(door: Door, admin: httpx.AsyncClient) -> None:
    first, second = [(await admin.get("/stats")).json()["computed_at"] for _ in range(2)]
    assert first == second


async def test_a_running_worker_is_among_the_figures_and_says_goodbye(
    runtime: Runtime, admin: httpx.AsyncClient
) -> None:
    async with working(runtime):
        await eventually(lambda: alive(runtime.carrier))
        beats = await alive(runtime.carrier) or []
        assert [beat.slots for beat in beats] == [runtime.settings.worker_concurrency]
    assert await alive(runtime.carrier) == []


async def test_a_worker_that_misses_its_beats_is_gone(runtime: Runtime) -> None:
    await announce(runtime.carrier, BEAT)
    assert await alive(runtime.carrier) == [BEAT]
    await runtime.carrier.redis.delete(f"payments:worker:{BEAT.worker}")  # what the expiry does
    assert await alive(runtime.carrier) == []


async def test_a_worker_that_leaves_is_gone_at_once(runtime: Runtime) -> None:
    await announce(runtime.carrier, BEAT)
    await leave(runtime.carrier, BEAT.worker)
    assert await alive(runtime.carrier) == []


async def test_without_redis_nobody_is_known_to_be_alive_and_the_rest_is_counted(
    runtime: Runtime, admin: httpx.AsyncClient, valkey: ValkeyServer
) -> None:
    valkey.kill()
    figures = (await admin.get("/stats")).raise_for_status().json()
    assert (figures["workers"], figures["settled_per_s"], figures["queue_depth"]) == (None, None, 0)
    assert not await announce(runtime.carrier, BEAT)


async def test_the_figures_are_in_the_metrics_too(door: Door, user: httpx.AsyncClient) -> None:
    method = await added(user)
    (await user.post("/payments", json=order(method))).raise_for_status()
    exposition = (await door.client(base="").get("/metrics")).text
    assert "payments_pending 1.0" in exposition
