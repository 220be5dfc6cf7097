"""A standstill shows: a Redis that answers and takes no jobs makes nothing ready, and `payments verify` finds it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.verify.breaches import BreachKind
from shared.verify.scan import Scan
from shared.verify.verifier import verify
from tests.support.servers import ValkeyServer, free_port
from tests.support.survival import MakeSettings, a_service, everything_settles
from tests.support.waiting import eventually

# What is done to Redis, and what ends it.
TROUBLES = {
    "full": ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "replica": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "foreign key": ("SET payments:process x", "DEL payments:process"),
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "own") as server:
        yield server


async def ready(port: int) -> tuple[int, dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        answer = await http.get(f"http://127.0.0.1:{port}/health/ready")
    return answer.status_code, answer.json()["checks"]


async def metric(port: int, name: str) -> float:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


async def is_alive(port: int) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
        return (await http.get(f"http://127.0.0.1:{port}/health")).is_success


async def shows(settings: Settings, *, works: bool) -> bool:
    """Return whether readiness and metrics of both processes say that it works, or that it does not."""
    api, worker = await ready(settings.port), await ready(settings.metrics_port)
    word = "ready" if works else "not_ready"
    can_publish = [await metric(port, "payments_can_publish") for port in (settings.port, settings.metrics_port)]
    return (
        (api[0], api[1]["redis"]) == (200, word)
        and (worker[0], worker[1]["redis"], worker[1]["database"]) == (200 if works else 503, word, "ready")
        and can_publish == [float(works)] * 2
        and await is_alive(settings.metrics_port)
    )


# One of them in every run: each takes ten seconds.
@pytest.mark.parametrize(
    "trouble",
    [each if number == 0 else pytest.param(each, marks=pytest.mark.slow) for number, each in enumerate(TROUBLES)],
)
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_a_redis_that_takes_no_jobs_shows_everywhere_until_it_takes_them_again(
    make_settings: MakeSettings, database: Database, own: ValkeyServer, tmp_path: Path, trouble: str
) -> None:
    settings = make_settings(redis_url=own.url, metrics_port=free_port())
    with redis.Redis.from_url(own.url) as operator:
        async with a_service(settings, tmp_path, workers=1) as service:
            await eventually(lambda: shows(settings, works=True), 30)
            begins, ends = TROUBLES[trouble]
            operator.execute_command(*begins.split())
            for _ in range(5):
                await service.shop.accepted()
            await eventually(lambda: shows(settings, works=False), 30)

            async def is_found() -> bool:
                found = await verify(Scan(database), due_max_s=3)
                return {BreachKind.PAYMENT_OVERDUE, BreachKind.PAYMENT_UNCLAIMED} <= found.totals.keys()

            # Whatever the relay does meanwhile.
            await eventually(is_found, 30)
            operator.execute_command(*ends.split())
            await eventually(lambda: shows(settings, works=True), 30)
            await everything_settles(database, 5)
            assert all(worker.is_running for worker in service.workers)
