"""The live figures: what waits, what is claimed, which workers are alive; and the heartbeats behind them."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from api.schemas.operations import Figures, Worker
from shared.broker.client import Broker
from shared.broker.heartbeats import REDIS_TIMEOUT_S, WorkerStatus, alive_workers, remove_heartbeat, send_heartbeat
from shared.lifecycle import PaymentStatus
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, added, opened, order
from tests.support.rows import accepted, write
from tests.support.scripted_databases import Scripted
from tests.support.servers import ValkeyServer
from tests.support.waiting import calls_running, eventually
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]

STATUS = WorkerStatus(
    worker="host-1-abcd",
    slots=50,
    in_gateway=7,
    checking_orders=2,
    sending=1,
    settled=12,
    settled_per_s=2.5,
    uptime_s=9.0,
)
KEY = f"payments:worker:{STATUS.worker}"


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


async def test_a_payment_that_is_to_stay_pending_does_not_count_as_the_oldest(
    runtime: Runtime, user: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    waits: dict[str, Any] = {"outcomes": [], "delay_ms": None, "pending_ms": 86_400_000}
    await write(runtime.database, accepted(datetime.now(UTC) - timedelta(hours=1), steering=waits))
    (await user.post("/payments", json=order(await added(user)))).raise_for_status()
    figures = Figures.model_validate((await admin.get("/stats")).json())
    assert figures.queue_depth == 2
    assert figures.oldest_pending_s < 600


async def test_a_refund_counts_until_it_has_ended(
    runtime: Runtime, service: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    paid = accepted(datetime.now(UTC), status=PaymentStatus.COMPLETED, due_at=None, gateway_transaction_id="ch_1")
    await write(runtime.database, paid)
    refund = (await service.post(f"/payments/{paid.id}/refunds")).raise_for_status().json()

    async def backlog() -> int:
        return Figures.model_validate((await admin.get("/stats")).json()).refund_backlog

    async def is_counted() -> bool:
        return await backlog() == 1

    async def is_over() -> bool:
        return await backlog() == 0

    await eventually(is_counted)
    (await service.post(f"/refunds/{refund['id']}/cancel")).raise_for_status()
    await eventually(is_over)


async def test_the_figures_are_for_admins_only(user: httpx.AsyncClient, service: httpx.AsyncClient) -> None:
    assert [(await client.get("/stats")).status_code for client in (user, service)] == [403, 403]


async def test_the_figures_are_counted_at_most_once_a_second(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    first, second = [(await admin.get("/stats")).json()["computed_at"] for _ in range(2)]
    assert first == second


class Hanging(Scripted):
    """A read of it hangs."""

    reads = 0

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Any]:
        self.reads += 1
        await asyncio.Event().wait()
        yield None


async def test_a_count_that_its_caller_has_left_ends_with_the_api(runtime: Runtime) -> None:
    hanging = Hanging(runtime.database)
    async with opened(replace(runtime, database=hanging)) as running_api:
        caller = asyncio.create_task(running_api.admin().get("/stats"))
        await eventually(lambda: hanging.reads)
        caller.cancel()
        await asyncio.wait([caller])
        assert calls_running() == 1
    assert calls_running() == 0


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client that changes what workers have said."""
    async with Redis.from_url(redis_url) as client:
        yield client


async def test_a_worker_is_alive_while_it_runs_and_gone_when_it_stops(runtime: Runtime) -> None:
    async with working(runtime):
        await eventually(lambda: alive_workers(runtime.broker))
        workers = await alive_workers(runtime.broker) or []
        assert [worker.slots for worker in workers] == [runtime.settings.worker_concurrency]
    assert await alive_workers(runtime.broker) == []


async def test_every_worker_is_among_the_figures_with_all_that_it_says_for_clients(
    runtime: Runtime, admin: httpx.AsyncClient
) -> None:
    await send_heartbeat(runtime.broker, replace(STATUS, outcomes={"COMPLETED": 3}, settle_counts=[1, 2]))
    figures = (await admin.get("/stats")).json()
    of_the_dashboard = {"outcomes", "settle_counts"}
    assert figures["workers"] == [
        {name: value for name, value in asdict(STATUS).items() if name not in of_the_dashboard}
    ]
    assert figures["workers"][0].keys() == Worker.model_fields.keys()
    assert figures["settled_per_s"] == STATUS.settled_per_s


class Slow(Broker):
    """A broker whose round trips take most of a second each, and which notes the transactions among them."""

    def __init__(self, whole: Broker) -> None:
        super().__init__(whole.arq_connection)
        self.transactions: list[bool] = []

    async def round_trip(
        self, add_commands: Callable[[Pipeline], object], *, timeout_s: float, is_transaction: bool = False
    ) -> list[Any]:
        self.transactions.append(is_transaction)
        await asyncio.sleep(0.7 * REDIS_TIMEOUT_S)
        return await super().round_trip(add_commands, timeout_s=timeout_s, is_transaction=is_transaction)


async def test_a_second_is_for_all_round_trips_of_a_heartbeat_together(runtime: Runtime) -> None:
    slow = Slow(runtime.broker)
    sent, alive = await asyncio.gather(send_heartbeat(slow, STATUS), alive_workers(slow))
    assert (sent, alive) == (False, None)
    # One round trip is in time.
    await send_heartbeat(runtime.broker, STATUS)
    await remove_heartbeat(slow, STATUS.worker)
    assert await alive_workers(runtime.broker) == []
    # The heartbeat and its removal write; the two questions for the time and the one for the workers do not.
    assert sorted(slow.transactions) == [False, False, False, True, True]


# What an API of 0.1 reads; it fails over any other member.
MEMBERS_OF_0_1 = {"worker", "slots", "in_gateway", "sending", "settled", "settled_per_s", "uptime_s"}


async def test_workers_and_apis_of_different_versions_understand_each_other(runtime: Runtime, redis: Redis) -> None:
    await send_heartbeat(runtime.broker, STATUS)
    said = orjson.loads(await redis.get(KEY) or b"")
    assert said.keys() == MEMBERS_OF_0_1
    other_keys = set(await redis.keys("payments:worker*")) - {KEY.encode(), b"payments:workers"}
    # So a worker of 0.1 says it, and so one that is newer than this one.
    await redis.delete(*other_keys)
    assert await alive_workers(runtime.broker) == [replace(STATUS, checking_orders=0)]
    await redis.set(KEY, orjson.dumps({**said, "temperature": 36.6}))
    assert await alive_workers(runtime.broker) == [replace(STATUS, checking_orders=0)]


async def test_a_worker_that_misses_its_heartbeats_is_gone(runtime: Runtime, redis: Redis) -> None:
    await send_heartbeat(runtime.broker, STATUS)
    assert await alive_workers(runtime.broker) == [STATUS]
    await redis.delete(KEY)  # what the expiry does
    assert await alive_workers(runtime.broker) == []


async def test_a_worker_that_leaves_is_gone_at_once(runtime: Runtime) -> None:
    await send_heartbeat(runtime.broker, STATUS)
    await remove_heartbeat(runtime.broker, STATUS.worker)
    assert await alive_workers(runtime.broker) == []


async def test_without_redis_no_worker_is_known_to_be_alive_and_the_rest_is_counted(
    runtime: Runtime, admin: httpx.AsyncClient, valkey: ValkeyServer
) -> None:
    valkey.kill()
    figures = (await admin.get("/stats")).raise_for_status().json()
    assert (figures["workers"], figures["settled_per_s"], figures["queue_depth"]) == (None, None, 0)
    assert not await send_heartbeat(runtime.broker, STATUS)


# -- the same for Prometheus

IN_METRICS = {
    "queue_depth": "payments_pending",
    "in_flight": "payments_processing",
    "oldest_pending_s": "payments_oldest_pending_seconds",
    "refund_backlog": "payments_refund_backlog",
    "webhook_backlog": "payments_webhook_backlog",
}
OF_WORKERS = {"payments_workers": 1, "payments_worker_slots": 50, "payments_worker_slots_taken": 7 + 2}


async def scraped(running_api: RunningApi) -> dict[str, float]:
    """Every figure at /metrics, by its name and labels."""
    exposition = (await running_api.client(base="").get("/metrics")).text
    lines = [line.rpartition(" ") for line in exposition.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_the_figures_are_in_the_metrics_too(
    runtime: Runtime, running_api: RunningApi, user: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    accepted = (await scraped(running_api))["payments_accepted_total"]
    method = await added(user)
    for _ in range(2):
        (await user.post("/payments", json=order(method))).raise_for_status()
    await send_heartbeat(runtime.broker, STATUS)

    async def both() -> tuple[dict[str, Any], dict[str, float]] | None:
        figures, found = (await admin.get("/stats")).json(), await scraped(running_api)
        is_same_count = (await admin.get("/stats")).json() == figures
        return (figures, found) if is_same_count and figures["workers"] else None

    counted = await eventually(both)
    assert counted is not None
    figures, found = counted
    assert {name: found[name] for name in OF_WORKERS} == OF_WORKERS
    assert {name: found[there] for name, there in IN_METRICS.items()} == {name: figures[name] for name in IN_METRICS}
    assert found["payments_pending"] == 2
    assert found["payments_accepted_total"] == accepted + 2


async def test_what_is_not_known_is_no_number(running_api: RunningApi, valkey: ValkeyServer) -> None:
    valkey.kill()
    found = await scraped(running_api)
    assert all(math.isnan(found[name]) for name in OF_WORKERS)
    assert found["payments_pending"] == 0


async def test_requests_are_counted_by_the_address_that_was_asked(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
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
    client = running_api.client(base="", headers={"Authorization": user.headers["authorization"]})
    names = {
        path: f'payments_http_request_seconds_count{{method="GET",route="{route}"}}' for path, route in asked.items()
    }
    before = await scraped(running_api)
    for path in asked:
        await client.get(path)
    after = await scraped(running_api)
    assert {path: after.get(name, 0) - before.get(name, 0) for path, name in names.items()} == dict.fromkeys(asked, 1)
