"""Fixtures of a running API. A module that wants them says so, and imports the helpers from `tests.api_client`:

pytest_plugins = ["tests.api_fixtures"]
"""

from collections.abc import AsyncIterator

import httpx
import pytest

from shared.config import Settings
from shared.runtime import Runtime, open_runtime
from tests.api_client import Door, held, opened


@pytest.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """What API and worker run on: this test's database and Valkey."""
    runtime = open_runtime(settings)
    yield runtime
    await runtime.close()


@pytest.fixture
async def door(runtime: Runtime) -> AsyncIterator[Door]:
    """A running API, without a worker: what is accepted stays PENDING."""
    async with held(opened(runtime)) as door:
        yield door


@pytest.fixture
async def user(door: Door) -> httpx.AsyncClient:
    """User 1."""
    return door.user()


@pytest.fixture
async def other(door: Door) -> httpx.AsyncClient:
    """User 2, whose business none of it is."""
    return door.user(2)


@pytest.fixture
async def admin(door: Door) -> httpx.AsyncClient:
    """An admin."""
    return door.admin()


@pytest.fixture
async def service(door: Door) -> httpx.AsyncClient:
    """The service `shop`."""
    return door.service()
