"""How long an API key is known to a process, what it costs, and when its last use is stored."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from api.auth.api_keys import CACHE_S, LOOKUPS_MAX, ApiKeys
from api.problems import Problem
from shared.api_keys import new_api_key
from shared.config.settings import Settings
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, created_key, opened, opened_with, problem
from tests.support.api_keys import authenticator_of, change_keys, stored_key
from tests.support.manual_clock import ManualClock
from tests.support.scripted_databases import Scripted
from tests.support.tokens import Untouchable

pytest_plugins = ["tests.support.api_fixtures"]

type MakeSettings = Callable[..., Settings]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
KEY = {"name": "shop", "role": "service"}


# -- how long a key is known


async def test_a_key_that_another_process_revokes_is_refused_after_five_seconds(
    runtime: Runtime, running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    assert CACHE_S <= 5
    clock = ManualClock()
    there = ApiKeys(runtime.database, runtime.keyring, clock=clock)
    created = (await admin.post("/api-keys", json=KEY)).json()
    async with opened(runtime, authenticator=authenticator_of(there)) as other_process:
        service = other_process.bearing(created["key"])
        assert (await service.get("/payments")).status_code == 200
        await admin.delete(f"/api-keys/{created['id']}")
        problem(await running_api.bearing(created["key"]).get("/payments"), 401, "invalid_token")
        clock.now += CACHE_S - 0.1
        assert (await service.get("/payments")).status_code == 200
        clock.now += 0.1
        problem(await service.get("/payments"), 401, "invalid_token")


async def test_a_key_works_at_once_in_every_process(
    runtime: Runtime, running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    async with opened(runtime) as other_process:
        for _ in range(3):
            key = await created_key(admin)
            assert (await other_process.bearing(key).get("/payments")).status_code == 200


async def test_a_key_lives_as_long_as_the_data_key(make_settings: MakeSettings) -> None:
    old, new = make_settings(data_key="a" * 32), make_settings(data_key="b" * 32)
    async with opened_with(old) as before:
        key = await created_key(before.admin())
    async with opened_with(new) as after:
        problem(await after.bearing(key).get("/payments"), 401, "invalid_token")
    async with opened_with(old) as restored:
        assert (await restored.bearing(key).get("/payments")).status_code == 200


# -- what it costs


async def test_a_key_is_looked_up_once_in_five_seconds_and_a_token_never(
    runtime: Runtime, running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    key = await created_key(admin)
    database, clock = Scripted(runtime.database), ManualClock()
    keys = ApiKeys(database, runtime.keyring, clock=clock)
    async with opened(runtime, authenticator=authenticator_of(keys)) as counted:
        for _ in range(20):
            assert (await counted.service().get("/payments")).status_code == 200
        assert database.reads == 0
        answers = await asyncio.gather(*(counted.bearing(key).get("/payments") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert database.reads == 1
        clock.now += CACHE_S
        assert (await counted.bearing(key).get("/payments")).status_code == 200
        assert (database.reads, database.transactions) == (2, 0)


class Slow(Scripted):
    """Counts how many read it at once."""

    at_once = most_at_once = 0

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0.001)
            async with super().read() as connection:
                yield connection
        finally:
            self.at_once -= 1


async def test_a_flood_of_made_up_keys_takes_two_connections(runtime: Runtime) -> None:
    database = Slow(runtime.database)
    keys = ApiKeys(database, runtime.keyring)

    async def refused() -> bool:
        try:
            await keys.principal(new_api_key())
        except Problem:
            return True
        return False

    assert all(await asyncio.gather(*(refused() for _ in range(200))))
    assert database.most_at_once == LOOKUPS_MAX
    assert database.reads == 200
    await keys.close()


@ON_SQLITE
async def test_unknown_keys_count_against_the_address(make_settings: MakeSettings) -> None:
    async with opened_with(make_settings(rate_limit_address="4/day", rate_limit_user="9/day")) as running_api:
        key = await created_key(running_api.admin())
        for _ in range(3):
            problem(await running_api.bearing(new_api_key()).get("/payments"), 401, "invalid_token")
        problem(await running_api.bearing(new_api_key()).get("/payments"), 429, "rate_limited")
        problem(await running_api.bearing(key).get("/payments"), 429, "rate_limited")


@pytest.mark.parametrize("limit", [None, "9/day"])
async def test_without_the_database_a_key_is_neither_good_nor_bad(
    make_settings: MakeSettings, runtime: Runtime, limit: str | None
) -> None:
    settings = make_settings(rate_limit_user=limit)
    async with opened_with(settings) as running_api:
        key = await created_key(running_api.admin())
    database = Untouchable(runtime.database)
    limited = Runtime(settings, runtime.database, runtime.broker, runtime.keyring)
    keys = ApiKeys(database, runtime.keyring)
    async with opened(limited, authenticator=authenticator_of(keys)) as running_api:
        answer = await running_api.bearing(key).get("/payments")
        problem(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1


# -- the last use


async def test_the_last_use_is_stored_in_one_transaction_for_all_requests(
    runtime: Runtime, running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    key = await created_key(admin)
    database, clock = Scripted(runtime.database), ManualClock()
    keys = ApiKeys(database, runtime.keyring, clock=clock)
    before = datetime.now(UTC)
    for _ in range(100):
        await keys.principal(key)
    assert database.transactions == 0
    clock.now += 20
    await keys.record_uses()
    await keys.record_uses()
    assert database.transactions == 1
    last_used_at = (await stored_key(runtime.database)).last_used_at
    assert before - timedelta(seconds=21) < last_used_at < datetime.now(UTC) - timedelta(seconds=19)
    assert (await admin.get("/api-keys")).json()["api_keys"][0]["last_used_at"] is not None


async def test_an_earlier_use_does_not_replace_a_later_one(
    runtime: Runtime, running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    key, clock = await created_key(admin), ManualClock()
    keys = ApiKeys(runtime.database, runtime.keyring, clock=clock)
    await keys.principal(key)
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=60)
    await change_keys(runtime.database, last_used_at=later)  # another process
    await keys.record_uses()
    assert (await stored_key(runtime.database)).last_used_at == later


@pytest.mark.parametrize("word", ["unavailable", "conflict", "rolled_back", "lost"])
async def test_a_use_that_cannot_be_stored_is_stored_the_next_time(
    runtime: Runtime, running_api: RunningApi, admin: httpx.AsyncClient, word: str
) -> None:
    key = await created_key(admin)
    keys = ApiKeys(Scripted(runtime.database, word), runtime.keyring)
    await keys.principal(key)
    with capture_logs() as logs:
        await keys.record_uses()
    assert [line["event"] for line in logs] == ["api_key.uses_not_recorded"]
    await keys.record_uses()
    assert (await stored_key(runtime.database)).last_used_at is not None


async def test_the_last_uses_are_stored_when_the_api_stops(runtime: Runtime) -> None:
    async with opened(runtime) as running_api:
        key = await created_key(running_api.admin())
        await running_api.bearing(key).get("/payments")
        assert (await stored_key(runtime.database)).last_used_at is None
    assert (await stored_key(runtime.database)).last_used_at is not None
