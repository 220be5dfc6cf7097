"""Authentication by API key: what is accepted and for how long, and that a key is the same principal as a token."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from api.auth.api_keys import CACHE_S, LOOKUPS_MAX, ApiKeys
from api.auth.authenticator import Authenticator
from api.auth.principal import Principal, Role
from api.auth.tokens import SharedSecretVerifier
from api.problems import Problem
from shared.api_keys import KEY_FORM, new_api_key
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.database.tables import api_keys
from shared.runtime import Runtime
from tests.conftest import TEST_SECRET
from tests.support.api_client import (
    RunningApi,
    Scripted,
    accepted,
    added,
    created_key,
    opened,
    opened_with,
    order,
    pointers,
    problem,
)
from tests.support.manual_clock import ManualClock
from tests.support.upstreams import AuthService, running
from tests.support.waiting import eventually
from tests.test_auth import Untouchable

pytest_plugins = ["tests.support.api_fixtures"]

type MakeSettings = Callable[..., Settings]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
KEY = {"name": "shop", "role": "service"}


def authenticator_of(found: ApiKeys) -> Authenticator:
    return Authenticator("local", SharedSecretVerifier(secret=TEST_SECRET, algorithm="HS256"), api_keys=found)


async def stored(database: Database) -> Any:
    """The only row of the table."""
    async with database.read() as connection:
        return (await connection.execute(select(api_keys))).one()


async def change(database: Database, **columns: Any) -> None:
    async with database.transaction() as connection:
        await connection.execute(update(api_keys).values(**columns))


# -- the principal


@pytest.mark.parametrize("role", ["service", "admin"])
async def test_a_key_is_the_same_principal_as_a_token_of_its_name_and_role(
    running_api: RunningApi, admin: httpx.AsyncClient, role: str
) -> None:
    by_token = running_api.user("shop", role=role)
    by_key, by_other_key = [running_api.bearing(await created_key(admin, role=role)) for _ in range(2)]
    secrets = [(await client.get("/callback-secret")).json() for client in (by_token, by_key, by_other_key)]
    assert secrets[0] == secrets[1] == secrets[2]
    # Idempotency keys
    body = {**order(await added(by_token)), "callback_url": "https://shop.example/"}
    first = await by_token.post("/payments", json=body, headers={"Idempotency-Key": "k"})
    again = await by_key.post("/payments", json=body, headers={"Idempotency-Key": "k"})
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    # Cursors
    await accepted(by_key, order(await added(by_key)))
    cursor = (await by_token.get("/payments", params={"limit": 1})).json()["next_cursor"]
    assert (await by_other_key.get("/payments", params={"cursor": cursor})).json()["payments"] == [first.json()]
    # Ownership
    endpoint = (await by_key.post("/webhook-endpoints", json={"name": "o", "url": "https://o.example/"})).json()
    assert endpoint["created_by"] == f"{role}:shop"
    assert (await by_token.delete(f"/webhook-endpoints/{endpoint['id']}")).status_code == 204
    history = (await by_token.get(f"/payments/{first.json()['id']}/history")).json()["history"]
    assert history[0]["created_by"] == f"{role}:shop"


async def test_with_the_scope_created_a_key_sees_what_its_token_created(make_settings: MakeSettings) -> None:
    async with opened_with(make_settings(service_scope="created")) as running_api:
        by_token = running_api.service("shop")
        by_key = running_api.bearing(await created_key(running_api.admin()))
        of_another = running_api.bearing(await created_key(running_api.admin(), name="stall"))
        payment = await accepted(by_token, order(await added(by_token)))
        path = f"/payments/{payment['id']}"
        assert (await by_key.get(path)).json() == payment
        problem(await of_another.get(path), 404, "not_found")


def test_the_key_of_a_principal_is_no_part_of_who_it_is() -> None:
    key_id = "any"
    assert Principal("shop", Role.SERVICE) == Principal("shop", Role.SERVICE, api_key_id=key_id)  # type: ignore[arg-type]


# -- what is refused


@ON_SQLITE
@pytest.mark.parametrize(
    "bearer",
    [
        "sk_sim_", "sk_sim_x", "sk_sim_" + "x" * 42, "sk_sim_" + "x" * 44, "sk_sim_" + "x" * 42 + "-",
        "sk_sim_" + "é" * 43, "sk_sim_" + "x" * 5000, "sk_sim_a.b.c", "sk_live_" + "x" * 43, "SK_SIM_" + "x" * 43,
        "x" * 43, "sk_sim_" + "x" * 42 + "\u0661",
    ],
)  # fmt: skip
async def test_what_has_not_the_form_of_a_key_is_401_and_reaches_no_database(runtime: Runtime, bearer: str) -> None:
    database = Untouchable(runtime.database)
    keys = ApiKeys(database, runtime.keyring)
    async with opened(runtime, authenticator=authenticator_of(keys)) as running_api:
        headers = {"Authorization": f"Bearer {bearer}".encode()}
        answer = await running_api.client().get("/payments", headers=headers)  # type: ignore[arg-type]
        problem(answer, 401, "invalid_token")
        assert "sk_" not in answer.text
    assert database.asked == 0


async def test_an_unknown_key_is_401_before_the_body_is_looked_at(
    running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    key = await created_key(admin)
    for unknown in (new_api_key(), key[:-1] + ("a" if key[-1] != "a" else "b"), key.swapcase()):
        client = running_api.bearing(unknown)
        answer = await client.post("/payments", content=b"{", headers={"Content-Type": "application/json"})
        refused = problem(answer, 401, "invalid_token")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert unknown not in answer.text
        if KEY_FORM.fullmatch(unknown):
            assert refused["detail"] == "The API key is not known."


async def test_a_key_is_refused_from_its_expiry_on(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=1.5)
    service = running_api.bearing(await created_key(admin, expires_at=expires_at.isoformat()))
    assert (await service.get("/payments")).status_code == 200

    async def refusal() -> httpx.Response | None:
        answer = await service.get("/payments")
        return answer if answer.status_code != 200 else None

    with capture_logs() as logs:
        refused = problem(await eventually(refusal), 401, "invalid_token")  # type: ignore[arg-type]
    assert refused["detail"] == "This API key has expired. Ask an admin for a new one."
    assert datetime.now(UTC) - expires_at < timedelta(seconds=CACHE_S)
    assert [line["reason"] for line in logs if line["event"] == "api_key.refused"] == ["expired"]
    assert len((await admin.get("/api-keys")).json()["api_keys"]) == 1


@ON_SQLITE
async def test_a_key_in_a_path_is_masked_in_the_problem_document(admin: httpx.AsyncClient) -> None:
    key = new_api_key()
    answer = await admin.get(f"/payments/{key}")
    assert problem(answer, 404, "not_found")["instance"] == "/api/v1/payments/%5Bhidden%5D"
    answer = await admin.get("/payments", params={key: "1"})
    assert pointers(answer) == ["/query/[hidden]"]


# -- AUTH_MODE


@ON_SQLITE
@pytest.mark.parametrize("mode", ["local", "local_then_remote", "remote"])
async def test_no_key_is_sent_to_the_auth_service_or_to_the_key_server(make_settings: MakeSettings, mode: str) -> None:
    async with running(AuthService(secret=TEST_SECRET)) as auth_service:
        settings = make_settings(auth_service_url=auth_service.url, jwt_jwks_url=auth_service.url, auth_mode=mode)
        async with opened_with(settings) as running_api, opened_with(make_settings()) as local:
            key = await created_key(local.admin())
            assert (await running_api.bearing(key).get("/webhook-endpoints")).status_code == 200
            for refused in (new_api_key(), "sk_sim_x", "sk_sim_a.b.c"):
                problem(await running_api.bearing(refused).get("/payments"), 401, "invalid_token")
            spaced = running_api.client(headers={"Authorization": f"bearer   {key}"})
            assert (await spaced.get("/webhook-endpoints")).status_code == 200
        assert auth_service.requests == []


# -- how long a key is known


async def test_a_key_that_another_process_revokes_is_refused_after_five_seconds(
    runtime: Runtime, running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
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
    last_used_at = (await stored(runtime.database)).last_used_at
    assert before - timedelta(seconds=21) < last_used_at < datetime.now(UTC) - timedelta(seconds=19)
    assert (await admin.get("/api-keys")).json()["api_keys"][0]["last_used_at"] is not None


async def test_an_earlier_use_does_not_replace_a_later_one(
    runtime: Runtime, running_api: RunningApi, admin: httpx.AsyncClient
) -> None:
    key, clock = await created_key(admin), ManualClock()
    keys = ApiKeys(runtime.database, runtime.keyring, clock=clock)
    await keys.principal(key)
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=60)
    await change(runtime.database, last_used_at=later)  # another process
    await keys.record_uses()
    assert (await stored(runtime.database)).last_used_at == later


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
    assert (await stored(runtime.database)).last_used_at is not None


async def test_the_last_uses_are_stored_when_the_api_stops(runtime: Runtime) -> None:
    async with opened(runtime) as running_api:
        key = await created_key(running_api.admin())
        await running_api.bearing(key).get("/payments")
        assert (await stored(runtime.database)).last_used_at is None
    assert (await stored(runtime.database)).last_used_at is not None
