"""The live figures: what waits, what is claimed, who works; and the heartbeats behind them."""

import math
from typing import Any

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


# -- the same for Prometheus

IN_METRICS = {
    "queue_depth": "payments_pending",
    "in_flight": "payments_processing",
    "oldest_pending_s": "payments_oldest_pending_seconds",
    "webhook_backlog": "payments_webhook_backlog",
}
OF_WORKERS = {"payments_workers": 1, "payments_worker_slots": 50, "payments_worker_slots_taken": 7}


async def scraped(door: Door) -> dict[str, float]:
    """Every figure at /metrics, by its name and labels."""
    exposition = (await door.client(base="").get("/metrics")).text
    lines = [line.rpartition(" ") for line in exposition.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_the_figures_are_in_the_metrics_too(
    runtime: Runtime, door: Door, user: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    accepted = (await scraped(door))["payments_accepted_total"]
    method = await added(user)
    for _ in range(2):
        (await user.post("/payments", json=order(method))).raise_for_status()
    await announce(runtime.carrier, BEAT)

    async def both() -> tuple[dict[str, Any], dict[str, float]] | None:
        figures, found = (await admin.get("/stats")).json(), await scraped(door)
        is_same_count = (await admin.get("/stats")).json() == figures
        return (figures, found) if is_same_count and figures["workers"] else None

    counted = await eventually(both)
    assert counted is not None
    figures, found = counted
    assert {name: found[name] for name in OF_WORKERS} == OF_WORKERS
    assert {name: found[there] for name, there in IN_METRICS.items()} == {name: figures[name] for name in IN_METRICS}
    assert found["payments_pending"] == 2
    assert found["payments_accepted_total"] == accepted + 2


async def test_what_nobody_knows_is_no_number(door: Door, valkey: ValkeyServer) -> None:
    valkey.kill()
    found = await scraped(door)
    assert all(math.isnan(found[name]) for name in OF_WORKERS)
    assert found["payments_pending"] == 0


async def test_requests_are_counted_by_the_address_that_was_asked(door: Door, user: httpx.AsyncClient) -> None:
    asked = {
        "/api/v1/payment-methods": "/api/v1/payment-methods",
        "/api/v1/payment-methods/x": "/api/v1/payment-methods/{method_id}",
        "/api/v1/payments": "/api/v1/payments",
        "/api/v1/payments/x/history": "/api/v1/payments/{payment_id}/history",
        "/api/payments": "/api/payments",
        "/api/payments/methods": "/api/payments/methods",
        "/api/payments/methods/x": "/api/payments/methods/{method_id}",
        "/health": "/health",
    }
    client = door.client(base="", headers={"Authorization": user.headers["authorization"]})
    names = {
        path: f'payments_http_request_seconds_count{{method="GET",route="{route}"}}' for path, route in asked.items()
    }
    before = await scraped(door)
    for path in asked:
        await client.get(path)
    after = await scraped(door)
    assert {path: after.get(name, 0) - before.get(name, 0) for path, name in names.items()} == dict.fromkeys(asked, 1)
