"""An API with limits, clients that come from somewhere, and what a client over its limit is answered."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from redis.asyncio import Redis

from shared.config.settings import Settings
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, opened, problem

type MakeSettings = Callable[..., Settings]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
DAY_S = 86_400


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client that looks at the counts as they are."""
    async with Redis.from_url(redis_url) as client:
        yield client


@asynccontextmanager
async def limiting(make_settings: MakeSettings, **settings: Any) -> AsyncIterator[RunningApi]:
    """A running API with these settings."""
    runtime = open_runtime(make_settings(**settings))
    try:
        async with opened(runtime) as running_api:
            yield running_api
    finally:
        await runtime.close()


def coming_from(running_api: RunningApi, address: str, *, forwarded: str | None = None) -> httpx.AsyncClient:
    """A client with an address of its own; paths from the root."""
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    app = cast("httpx.ASGITransport", running_api.transport).app
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(address, 1)), base_url=running_api.url, headers=headers
    )


def refused(answer: httpx.Response) -> None:
    problem(answer, 429, "rate_limited")
    wait_s = int(answer.headers["retry-after"])
    assert 0 < wait_s <= DAY_S
    assert f";r=0;t={wait_s}" in answer.headers["ratelimit"]


async def statuses(client: httpx.AsyncClient, path: str, count: int) -> list[int]:
    return [(await client.get(path)).status_code for _ in range(count)]
