"""Fixtures of a running API. A module that wants them says so, and imports the helpers from `tests.support.api_client`:

pytest_plugins = ["tests.support.api_fixtures"]
"""

from collections.abc import AsyncIterator

import httpx
import pytest

from shared.config.settings import Settings
from shared.runtime import Runtime, open_runtime
from tests.support.api_client import RunningApi, held, opened


@pytest.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """What API and worker run on: this test's database and Valkey."""
    runtime = open_runtime(settings)
    yield runtime
    await runtime.close()


@pytest.fixture
async def running_api(runtime: Runtime) -> AsyncIterator[RunningApi]:
    """A running API, without a worker: what is accepted stays PENDING."""
    async with held(opened(runtime)) as running_api:
        yield running_api


@pytest.fixture
async def user(running_api: RunningApi) -> httpx.AsyncClient:
    """User 1."""
    return running_api.user()


@pytest.fixture
async def other(running_api: RunningApi) -> httpx.AsyncClient:
    """User 2, who may see nothing of what belongs to user 1."""
    return running_api.user(2)


@pytest.fixture
async def admin(running_api: RunningApi) -> httpx.AsyncClient:
    """An admin."""
    return running_api.admin()


@pytest.fixture
async def service(running_api: RunningApi) -> httpx.AsyncClient:
    """The service `shop`."""
    return running_api.service()
