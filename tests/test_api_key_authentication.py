"""Authentication by API key: what is accepted, and that a key is the same principal as a token."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from structlog.testing import capture_logs

from api.auth.api_keys import EXPIRED, ApiKeys
from api.auth.principal import Principal, Role
from api.problems import Code, Problem
from shared.api_keys import KEY_FORM, KeyRole, add_key, new_api_key
from shared.config.settings import Settings
from shared.database.engine import open_database
from shared.runtime import Runtime
from tests.conftest import TEST_SECRET
from tests.support.api_client import (
    RunningApi,
    accepted,
    added,
    created_key,
    opened,
    opened_with,
    order,
    pointers,
    problem,
)
from tests.support.api_keys import authenticator_of, change_keys
from tests.support.auth_standins import AuthService
from tests.support.harness import SetClock
from tests.support.manual_clock import ManualClock
from tests.support.standins import running
from tests.support.tokens import Untouchable

pytest_plugins = ["tests.support.api_fixtures"]

type MakeSettings = Callable[..., Settings]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
KEY = {"name": "shop", "role": "service"}


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


async def test_a_key_is_refused_from_its_expiry_on(settings: Settings, runtime: Runtime) -> None:
    """To the millisecond, by the clock of the database, although the key was looked up less than 5 s before."""
    clock, there = ManualClock(), SetClock()
    database = open_database(settings, clock=there)
    keys, key = ApiKeys(database, runtime.keyring, clock=clock), new_api_key()
    async with database.transaction() as connection:
        await add_key(
            connection,
            runtime.keyring,
            key,
            name="shop",
            role=KeyRole.SERVICE,
            created_by="cli",
            expires_at=there.moment + timedelta(seconds=3),
            now=there.moment,
        )
    with capture_logs() as logs:
        for passed_s in (0, 2.9):
            clock.now += passed_s
            there.moment += timedelta(seconds=passed_s)
            assert await keys.principal(key) == Principal("shop", Role.SERVICE)
        clock.now += 0.1
        there.moment += timedelta(seconds=0.1)
        for _ in range(2):
            with pytest.raises(Problem) as caught:
                await keys.principal(key)
            assert (caught.value.code, caught.value.detail) == (Code.INVALID_TOKEN, EXPIRED)
    assert [line["reason"] for line in logs] == ["expired"]
    await database.dispose()


async def test_an_expired_key_is_401_and_stays_in_the_list(running_api: RunningApi, admin: httpx.AsyncClient) -> None:
    key = await created_key(admin)
    await change_keys(running_api.database, expires_at=datetime.now(UTC) - timedelta(milliseconds=1))
    refused = problem(await running_api.bearing(key).get("/payments"), 401, "invalid_token")
    assert refused["detail"] == EXPIRED
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
