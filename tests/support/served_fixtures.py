"""An API in the real server that soon gives up on what does not arrive. A module that wants it says so:

pytest_plugins = ["tests.support.served_fixtures"]
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, held, served
from tests.support.raw_requests import TIMEOUT_S


@pytest.fixture
async def stop() -> asyncio.Event:
    """What ends the server before the test does."""
    return asyncio.Event()


@pytest.fixture
async def served_api(make_settings: Callable[..., Settings], stop: asyncio.Event) -> AsyncIterator[RunningApi]:
    """The API in the real server."""
    runtime = open_runtime(make_settings(request_timeout_s=TIMEOUT_S, accept_queue_max=20))
    async with held(served(runtime, stop)) as running_api:
        yield running_api
    await runtime.close()
