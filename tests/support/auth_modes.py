"""The API with tokens accepted as AUTH_MODE says.

A module that imports `backend` runs on one database: tokens are no matter of it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from shared.config.settings import Settings
from shared.runtime import Runtime, open_runtime
from tests.support.api_client import RunningApi, opened

type MakeSettings = Callable[..., Settings]

OTHER_SECRET = "another-secret-that-is-also-more-than-32-bytes"


@pytest.fixture
def backend() -> str:
    """Tokens are no matter of the database."""
    return "sqlite"


@asynccontextmanager
async def api_with(settings: Settings, *, database: Any = None) -> AsyncIterator[RunningApi]:
    """A running API; with `database` it has that one instead of its own."""
    runtime = open_runtime(settings)
    try:
        used = Runtime(settings, database(runtime.database), runtime.broker, runtime.keyring) if database else runtime
        async with opened(used) as running_api:
            yield running_api
    finally:
        await runtime.close()


async def ask(running_api: RunningApi, bearer: str) -> httpx.Response:
    return await running_api.bearing(bearer).get("/payments")
