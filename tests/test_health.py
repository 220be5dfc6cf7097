"""How the API says that it is well or not: 503 without a database, its health and readiness, and its metrics."""

from collections.abc import Callable
from typing import Any

import httpx

from shared.ids import new_id
from shared.runtime import Runtime, open_runtime
from tests.support.api_client import RunningApi, accepted, added, card, opened, order, problem
from tests.support.servers import free_port

pytest_plugins = ["tests.support.api_fixtures"]


async def test_without_a_database_everything_that_needs_it_is_503_and_says_when_to_come_back(
    make_settings: Callable[..., Any], backend: str, tmp_path: Any
) -> None:
    folder = tmp_path / "no.db"
    folder.mkdir()
    url = f"sqlite:///{folder}" if backend == "sqlite" else f"postgresql://postgres@127.0.0.1:{free_port()}/x"
    runtime = open_runtime(make_settings(database_url=url))
    async with opened(runtime) as running_api:
        for client, method, path, body in (
            (running_api.user(), "POST", "/payments", order(str(new_id()))),
            (running_api.user(), "GET", "/payments", None),
            (running_api.user(), "GET", f"/payments/{new_id()}", None),
            (running_api.user(), "POST", "/payment-methods", card()),
            (running_api.service(), "GET", "/webhook-endpoints", None),
        ):
            answer = await client.request(method, path, json=body)
            problem(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            assert "sqlite" not in answer.text.lower()
        ready = await running_api.client(base="").get("/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert ready.json()["checks"]["database"] == "not_ready"
        health = await running_api.client(base="").get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "healthy")
    await runtime.close()


async def test_without_redis_the_service_accepts_and_is_ready(
    runtime: Runtime, make_settings: Callable[..., Any]
) -> None:
    settings = make_settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    alone = open_runtime(settings)
    async with opened(alone) as running_api:
        await accepted(running_api.user(), order(await added(running_api.user())))
        ready = await running_api.client(base="").get("/health/ready")
        assert ready.status_code == 200
        assert ready.json() == {
            "ready": True,
            "checks": {
                "database": "ready",
                "redis": "not_ready",
                "auth_service": "not_configured",
                "order_service": "not_configured",
            },
        }
    await alone.close()


async def test_health_readiness_and_metrics(running_api: RunningApi) -> None:
    anybody = running_api.client(base="")
    health = (await anybody.get("/health")).json()
    assert set(health) == {"status", "timestamp", "version", "uptime"}
    assert health["uptime"] >= 0
    ready = await anybody.get("/health/ready")
    assert (ready.status_code, ready.json()["checks"]["redis"]) == (200, "ready")
    await running_api.user().post("/payments", json=order(await added(running_api.user())))
    metrics = await anybody.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    for name in ("payments_accepted_total", "payments_http_requests_total{", "payments_http_request_seconds_bucket{"):
        assert name in metrics.text
    assert 'status="202"' in metrics.text


async def test_the_labels_of_metrics_are_not_the_clients_to_invent(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    for number in range(20):
        await user.get(f"/payments/secret-{number}")
        await user.get(f"/secret-{number}")
        await user.request("DELETE", f"/secret-{number}")
    assert "secret-" not in (await running_api.client(base="").get("/metrics")).text
