"""The fixtures of readers of the dashboard. A module that wants them says so, and imports the helpers from
`tests.support.readers`:

pytest_plugins = ["tests.support.browser_fixtures", "tests.support.reader_fixtures"]
"""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from shared.runtime import open_runtime
from tests.support.api_client import RunningApi
from tests.support.readers import Reader, reading
from tests.support.workers import working


@pytest.fixture
async def reader(browser: Browser, api: RunningApi) -> AsyncIterator[Reader]:
    """A reader who is not signed in."""
    async with reading(browser, api) as found:
        yield found


@pytest.fixture
async def worker(api: RunningApi) -> AsyncIterator[None]:
    """A worker, in a runtime of its own."""
    runtime = open_runtime(api.settings)
    async with working(runtime):
        yield
    await runtime.close()
