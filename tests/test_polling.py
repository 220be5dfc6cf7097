"""Polling the list of payments by time, while several API processes write with clocks that are apart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config.settings import Settings
from shared.database.clock import DatabaseClock
from shared.database.engine import open_database
from shared.runtime import open_runtime
from tests.support.api_client import RunningApi, added, opened, order

# Seconds that the clock of the second API is ahead.
APART_S = 5
# Seconds that docs/api.md tells clients to read again.
OVERLAP_S = 60
WRITERS = 4
PAYMENTS_EACH = 15


class _AheadClock(DatabaseClock):
    """A clock that is wrong."""

    async def now(self, connection: AsyncConnection) -> datetime:
        return await super().now(connection) + timedelta(seconds=APART_S)


@pytest.fixture
async def apis(settings: Settings) -> AsyncIterator[tuple[RunningApi, RunningApi]]:
    """Two APIs on one database, the second of which is ahead of the first."""
    async with AsyncExitStack() as stack:
        first = open_runtime(settings)
        stack.push_async_callback(first.close)
        second = replace(open_runtime(settings), database=open_database(settings, clock=_AheadClock()))
        stack.push_async_callback(second.close)
        yield (await stack.enter_async_context(opened(first)), await stack.enter_async_context(opened(second)))


async def page_ids(client: httpx.AsyncClient, **params: str) -> list[dict[str, str]]:
    """Return every payment since a moment, read in pages."""
    found: list[dict[str, str]] = []
    query: dict[str, str] = {"limit": "7", **params}
    while True:
        page = (await client.get("/payments", params=query)).raise_for_status().json()
        found += page["payments"]
        if page["next_cursor"] is None:
            return found
        query = {"cursor": page["next_cursor"]}


def before(moment: str, seconds: float) -> str:
    return (datetime.fromisoformat(moment) - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


async def test_a_poller_that_reads_again_misses_no_payment_of_a_process_that_is_behind(
    apis: tuple[RunningApi, RunningApi],
) -> None:
    behind, ahead = (api.user() for api in apis)
    method = await added(behind)
    early = (await ahead.post("/payments", json=order(method))).json()
    late = (await behind.post("/payments", json=order(method))).json()
    assert late["created_at"] < early["created_at"]
    missed = await page_ids(behind, created_after=early["created_at"])
    assert late["id"] not in {payment["id"] for payment in missed}
    found = await page_ids(behind, created_after=before(early["created_at"], OVERLAP_S))
    assert {payment["id"] for payment in found} == {early["id"], late["id"]}


async def test_a_poller_gets_every_payment_while_both_processes_write(apis: tuple[RunningApi, RunningApi]) -> None:
    users = [api.user() for api in apis]
    method = await added(users[0])
    accepted: set[str] = set()
    seen: dict[str, str] = {}

    async def write(user: httpx.AsyncClient) -> None:
        for _ in range(PAYMENTS_EACH):
            response = await user.post("/payments", json=order(method))
            accepted.add(response.raise_for_status().json()["id"])

    async def poll() -> None:
        newest = max(seen.values(), default="2026-01-01T00:00:00Z")
        walked = await page_ids(users[1], created_after=before(newest, OVERLAP_S))
        # No page repeats what an earlier page had, whatever is written meanwhile.
        assert len({payment["id"] for payment in walked}) == len(walked)
        seen.update((payment["id"], payment["created_at"]) for payment in walked)

    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(write(user)) for user in users for _ in range(WRITERS)]
        while not all(writer.done() for writer in writers):
            await poll()
    await poll()
    assert len(accepted) == 2 * WRITERS * PAYMENTS_EACH
    assert set(seen) == accepted
