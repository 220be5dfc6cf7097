"""A worker on METRICS_PORT: alive as long as it turns, ready while its database and Redis answer."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from shared.config.settings import Settings
from tests.support.processes import PaymentsProcess, processes
from tests.support.servers import ValkeyServer, free_port
from tests.support.waiting import eventually


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_worker_without_redis_is_alive_and_not_ready(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with ValkeyServer(tmp_path / "own") as valkey:
        settings = make_settings(redis_url=valkey.url, metrics_port=free_port())
        url = f"http://127.0.0.1:{settings.metrics_port}/health"
        worker = PaymentsProcess("worker", tmp_path / "worker", settings)
        with processes(worker):
            await worker.ready()
            async with httpx.AsyncClient(trust_env=False) as http:

                async def answers(status: int, redis: str) -> bool:
                    answer = await http.get(f"{url}/ready")
                    expected = {"ready": status == 200, "checks": {"database": "ready", "redis": redis}}
                    return (answer.status_code, answer.json()) == (status, expected)

                await eventually(lambda: answers(200, "ready"))
                valkey.kill()
                await eventually(lambda: answers(503, "not_ready"))
                assert (await http.get(url)).status_code == 200, "nobody restarts it"
                valkey.start()
                await eventually(lambda: answers(200, "ready"))
