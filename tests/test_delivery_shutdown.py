"""A worker that is asked to stop lets the deliveries finish that are being sent, as long as an attempt may take."""

import asyncio
from typing import Any

import httpx

from shared.runtime import Runtime
from tests.support.api_client import paid
from tests.support.receivers import answering, receiver
from tests.support.waiting import eventually
from worker.main import DRAIN_MARGIN_S, WorkerProcess

pytest_plugins = ["tests.support.api_fixtures"]


async def test_a_stop_waits_for_deliveries_longer_than_for_the_gateway(
    runtime: Runtime, user: httpx.AsyncClient
) -> None:
    """The receiver takes longer than the gateway's longest delay and the margin, and less than WEBHOOK_TIMEOUT."""
    takes_s = runtime.settings.payment_processing_delay_max / 1000 + DRAIN_MARGIN_S + 1
    assert takes_s < runtime.settings.webhook_timeout

    async def slow(request: Any) -> Any:
        await asyncio.sleep(takes_s)
        return await answering(200)(request)

    worker, stop = WorkerProcess(runtime), asyncio.Event()
    async with receiver(slow) as shop, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        payments = [await paid(user, callback_url=shop.url) for _ in range(3)]
        await eventually(lambda: len(shop.requests) == 3)
        stop.set()
    for payment in payments:
        [delivery] = (await user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
        assert (delivery["status"], len(delivery["attempts"])) == ("delivered", 1)
    assert len(shop.requests) == 3
