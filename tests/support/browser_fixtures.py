"""The fixtures of a real Chromium. A module that wants them says so, and imports the helpers from
`tests.support.browsers`:

pytest_plugins = ["tests.support.browser_fixtures"]
"""

import os
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright

from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, served

# The browser resolves no name and asks nobody by itself.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[RunningApi]:
    """The API in its real server."""
    runtime = open_runtime(settings)
    async with served(runtime) as running:
        yield running
    await runtime.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """The browser, which `make test-browser` finds."""
    assert os.environ.get("CHROMIUM"), "Run these with `make test-browser`, which finds a Chromium."
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=FLAGS, headless=True)
        yield browser
        await browser.close()
