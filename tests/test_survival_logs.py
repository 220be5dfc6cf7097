"""A log that cannot be written, and the hang-up of a terminal: neither ends a service that has work to do."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.config.settings import Settings
from shared.database.migrations import migrate
from tests.support.processes import PaymentsProcess, Shop, environment_of, processes
from tests.support.servers import PostgresServer, free_port
from tests.support.survival import (
    MakeSettings,
    a_service,
    everything_settles,
    on_postgresql,
    on_sqlite,
    opened,
)
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.survival_fixtures"]

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "from cli.main import app; app()"
ENDS_S = 30
# Payments that the gateway is working on when the database goes away, for so many seconds.
IN_GATEWAY, AWAY_S = 60, 8
WARNINGS_PER_S_MAX = 8


@contextmanager
def payments_up(settings: Settings, folder: Path, output: Any, errors: Any) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, **environment_of(settings), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "up"], cwd=folder, env=environment, stdout=output, stderr=errors
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def answers(settings: Settings) -> bool:
    async with httpx.AsyncClient(trust_env=False) as http:
        try:
            answer = await http.get(f"http://127.0.0.1:{settings.port}/health")
            worker = await http.get(f"http://127.0.0.1:{settings.metrics_port}/health")
        except httpx.TransportError:
            return False
    return answer.is_success and worker.is_success


async def lines_lost(settings: Settings) -> float:
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"http://127.0.0.1:{settings.metrics_port}/metrics")).text
    [line] = [line for line in text.splitlines() if line.startswith("payments_log_lines_lost_total ")]
    return float(line.split()[1])


async def pays(settings: Settings, count: int = 3) -> None:
    """Payments are accepted and end."""
    async with Shop(settings, timeout_s=20) as shop:
        await shop.add_card()
        for _ in range(count):
            payment_id = await shop.accepted()

            async def ended(payment_id: str = payment_id) -> bool:
                return (await shop.payment(payment_id))["status"] in {"COMPLETED", "FAILED"}

            await eventually(ended, 30)


@on_sqlite
async def test_a_full_disk_from_the_start_on_ends_nothing_and_is_reported_once(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(metrics_port=free_port())
    errors = tmp_path / "errors"
    full, taken = os.open("/dev/full", os.O_WRONLY), os.open(errors, os.O_WRONLY | os.O_CREAT)
    with payments_up(settings, tmp_path, full, taken) as process:
        await eventually(lambda: answers(settings), 60)
        await pays(settings)
        assert await lines_lost(settings) > 1
        process.terminate()
        assert process.wait(ENDS_S) == 0
    os.close(full)
    os.close(taken)
    assert errors.read_text().count("Log lines cannot be written") == 1
    assert "No space left on device" in errors.read_text()
    assert "Traceback" not in errors.read_text()


@on_sqlite
@pytest.mark.parametrize("both", [False, True], ids=["its output", "its output and its errors"])
async def test_a_reader_that_dies_ends_nothing(make_settings: MakeSettings, tmp_path: Path, both: bool) -> None:
    settings = make_settings(metrics_port=free_port())
    reader, writer = os.pipe()
    with payments_up(settings, tmp_path, writer, writer if both else subprocess.DEVNULL) as process:
        os.close(writer)
        await eventually(lambda: answers(settings), 60)
        os.close(reader)
        await pays(settings)
        process.terminate()
        assert process.wait(ENDS_S) == 0


@on_sqlite
async def test_a_reader_that_stops_reading_does_not_hold_the_service_up(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(metrics_port=free_port())
    reader, writer = os.pipe()
    with payments_up(settings, tmp_path, writer, subprocess.DEVNULL) as process:
        os.close(writer)
        await eventually(lambda: answers(settings), 60)
        async with Shop(settings, timeout_s=20) as shop:
            # Each answer is a line, until the pipe is full and more.
            while not await lines_lost(settings):
                for _ in range(50):
                    await shop.http.get("/payments")
        await pays(settings)
        os.set_blocking(reader, False)
        assert os.read(reader, 100)
        process.terminate()
        assert process.wait(ENDS_S) == 0
    os.close(reader)


@on_sqlite
@pytest.mark.parametrize("command", ["api", "worker", "up"])
async def test_a_hang_up_drains_like_a_request_to_terminate(
    make_settings: MakeSettings, tmp_path: Path, command: str
) -> None:
    process = PaymentsProcess(command, tmp_path / command, make_settings())
    with processes(process):
        await process.ready()
        process.send(signal.SIGHUP)
        assert await process.ended() == 0
    stopped = {"api": {"api.stopped"}, "worker": {"worker.stopped"}, "up": {"api.stopped", "worker.stopped"}}[command]
    assert stopped <= {line["event"] for line in process.lines()}


def _ignoring_hang_ups(command: str) -> None:
    """A program started with nohup."""
    from tests.support.processes import _payments  # noqa: PLC0415

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _payments(command)


@on_sqlite
async def test_a_hang_up_that_the_starter_ignores_is_ignored(make_settings: MakeSettings, tmp_path: Path) -> None:
    process = PaymentsProcess("worker", tmp_path / "worker", make_settings(), program=_ignoring_hang_ups)
    with processes(process):
        await process.ready()
        process.send(signal.SIGHUP)
        process.send(signal.SIGHUP)
        with pytest.raises(AssertionError):
            await process.ended(1)
        process.terminate()
        assert await process.ended() == 0


@pytest.mark.slow
@on_postgresql
async def test_an_outage_is_a_few_warnings_a_second_and_the_rest_is_counted(
    slow_gateway: MakeSettings, own_postgres: PostgresServer, redis_url: str, tmp_path: Path
) -> None:
    settings = slow_gateway(
        database_url=own_postgres.url_of("own"),
        redis_url=redis_url,
        worker_concurrency=IN_GATEWAY,
        payment_processing_delay_min=1500,
        payment_processing_delay_max=2500,
        lease_s=15,
    )
    await migrate(settings)
    async with a_service(settings, tmp_path, workers=1) as service:
        for _ in range(IN_GATEWAY):
            await service.shop.accepted()
        own_postgres.kill()
        await asyncio.sleep(AWAY_S)
        own_postgres.start()
        [worker] = service.workers
        await eventually(lambda: worker.lines("logs.left_out"), 30)
        warnings = [line for line in worker.lines() if line["level"] in {"warning", "error"}]
        assert len(warnings) < AWAY_S * WARNINGS_PER_S_MAX, Counter(line["event"] for line in warnings)
        left_out = sum((Counter(line["counts"]) for line in worker.lines("logs.left_out")), Counter[str]())
        assert left_out["payment.outcome_unknown"] > IN_GATEWAY
        async with opened(settings) as database:
            await everything_settles(database, IN_GATEWAY)
