"""API and workers in one process, as `payments up` has them, and gateways that take their time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from api.main import listen, serve
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.runtime import Runtime, open_runtime
from tests.support.processes import Shop
from tests.support.rows import read_all
from tests.support.waiting import eventually
from worker.main import WorkerProcess

type MakeSettings = Callable[..., Settings]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Runtime]:
    runtime = open_runtime(settings)
    try:
        yield runtime
    finally:
        await runtime.close()


@asynccontextmanager
async def api(runtime: Runtime) -> AsyncIterator[None]:
    """The API on its port until the block ends."""
    settings, stop = runtime.settings, asyncio.Event()
    async with asyncio.timeout(60):
        serving = asyncio.create_task(serve(runtime, listen(settings.host, settings.port), stop))
        try:
            yield
        finally:
            stop.set()
            await serving


@asynccontextmanager
async def worker(runtime: Runtime) -> AsyncIterator[WorkerProcess]:
    """A worker until the block ends."""
    process, stop = WorkerProcess(runtime), asyncio.Event()
    working = asyncio.create_task(process.run(stop))
    try:
        await eventually(lambda: process.processor.free or working.done())
        yield process
    finally:
        stop.set()
        await working


@dataclass
class Service:
    settings: Settings
    runtime: Runtime
    shop: Shop

    @property
    def database(self) -> Database:
        return self.runtime.database


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """API and worker as in `payments up`, and a client with a card."""
    async with opened(settings) as runtime, api(runtime), worker(runtime), Shop(settings) as shop:
        await shop.add_card()
        yield Service(settings, runtime, shop)


def slow_gateway(make_settings: MakeSettings, **changes: Any) -> Settings:
    """Ten slots, and payments that stay in the gateway long enough to be counted there."""
    values = {
        "worker_concurrency": 10,
        "payment_processing_delay_min": 300,
        "payment_processing_delay_max": 500,
        "payment_success_rate": 1,
        "poll_delay_ms": 20,
    }
    return make_settings(**{**values, **changes})


async def processing(database: Database) -> set[UUID]:
    """The payments that a worker has claimed and not settled."""
    return {payment.id for payment in await read_all(database) if payment.status == "PROCESSING"}
