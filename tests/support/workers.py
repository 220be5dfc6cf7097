"""A worker that runs in the loop of its test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.runtime import Runtime
from tests.support.api_client import STOP_TIMEOUT_S
from worker.main import WorkerProcess


@asynccontextmanager
async def working(runtime: Runtime) -> AsyncIterator[WorkerProcess]:
    """A worker in this loop, until the block ends. A worker that fails ends the block, which would wait for it."""
    worker, stop = WorkerProcess(runtime), asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    body = asyncio.current_task()
    assert body is not None
    running.add_done_callback(lambda _ended: None if stop.is_set() else body.cancel())
    try:
        yield worker
    finally:
        stop.set()
        await asyncio.wait_for(running, STOP_TIMEOUT_S)
