"""The overview while workers come and go under load: what a presenter projects. Its screenshots are in the README."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, expect

from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, order
from tests.support.browsers import picture
from tests.support.processes import PaymentsProcess, processes
from tests.support.readers import Reader, reading

pytest_plugins = ["tests.support.browser_fixtures"]
pytestmark = [pytest.mark.browser, pytest.mark.parametrize("backend", ["postgresql"], indirect=True)]

# A worker can do a fourth of what comes.
SLOTS, RATE, WORKERS = 12, 24, 5
METHODS = (*["pm_test_random_card"] * 16, "pm_test_visa", "pm_test_random_paypal", "pm_test_insufficient_funds")
PROJECTOR = {"width": 1280, "height": 800}


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(worker_concurrency=SLOTS, payment_processing_delay_min=1000, payment_processing_delay_max=3000)


@pytest.fixture
async def api(settings: Settings, tmp_path: Path) -> AsyncIterator[RunningApi]:
    """The API in a process of its own."""
    process = PaymentsProcess("api", tmp_path / "api", settings)
    runtime = open_runtime(settings)
    with processes(process):
        await process.ready()
        async with httpx.AsyncHTTPTransport(trust_env=False) as transport:
            yield RunningApi(runtime=runtime, transport=transport, url=f"http://127.0.0.1:{settings.port}")
    await runtime.close()


async def pay(api: RunningApi, stop: asyncio.Event) -> None:
    """Send payments at a rate until told to stop."""
    client = api.admin()
    async with asyncio.TaskGroup() as sent:
        number = 0
        while not stop.is_set():
            body = order(METHODS[number % len(METHODS)], user_id=str(number % 50))
            sent.create_task(client.post("/payments", json=body))
            number += 1
            await asyncio.sleep(1 / RATE)


async def shows_workers(reader: Reader, count: int) -> None:
    await expect(reader.page.locator(".worker:not(.gone)")).to_have_count(count, timeout=15_000)


@pytest.mark.timeout(240)
async def test_workers_appear_and_vanish_under_load(
    browser: Browser, api: RunningApi, settings: Settings, tmp_path: Path
) -> None:
    stop = asyncio.Event()
    workers = [PaymentsProcess("worker", tmp_path / f"worker-{number}", settings) for number in range(WORKERS)]
    async with reading(browser, api, viewport=PROJECTOR) as reader, asyncio.TaskGroup() as tasks:
        with processes(*workers[:1]):
            await reader.sign_in()
            tasks.create_task(pay(api, stop))
            await shows_workers(reader, 1)
            await reader.page.wait_for_timeout(20_000)
            # One worker cannot do it: payments wait.
            assert float(await reader.page.inner_text("[data-figure=queue_depth]")) > SLOTS
            await reader.page.screenshot(path=picture(tmp_path, "dashboard-load-1"))
            with processes(*workers[1:]):
                await shows_workers(reader, WORKERS)
                await reader.page.wait_for_timeout(25_000)
                await reader.page.screenshot(path=picture(tmp_path, "dashboard-load-2"))
                # One that is killed vanishes as well, when its last heartbeat has expired.
                workers[-1].kill()
                await shows_workers(reader, WORKERS - 1)
            await shows_workers(reader, 1)
            await reader.page.wait_for_timeout(4_000)
            await reader.page.screenshot(path=picture(tmp_path, "dashboard-load-3"))
            stop.set()
            await reader.require_accessible("overview under load")
