"""Tokens accepted as AUTH_MODE says, with the auth service's stand-in on the other side of a real connection."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from shared.errors import ConfigurationError
from tests.conftest import TEST_SECRET
from tests.support.api_client import problem, token
from tests.support.auth_modes import OTHER_SECRET, MakeSettings, api_with, ask, backend
from tests.support.auth_standins import AuthService
from tests.support.tokens import Untouchable, forged

pytest_plugins = ["tests.support.api_fixtures", "tests.support.auth_fixtures"]

__all__ = ["backend"]

MODES = ["local", "local_then_remote", "remote"]
PAST = timedelta(seconds=-1)


async def login(service: AuthService) -> dict[str, str]:
    """What the auth service gives to a user with the right password."""
    async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:
        answer = await client.post("/auth/login", json={"email": "shopper@example.com", "password": "correct horse"})
        assert answer.status_code == 200
        tokens: dict[str, str] = answer.json()
        return tokens


# -- the matrix


@pytest.mark.parametrize("mode", MODES)
async def test_a_user_who_logged_in_gets_in(auth_service: AuthService, make_settings: MakeSettings, mode: str) -> None:
    tokens = await login(auth_service)
    async with api_with(make_settings(auth_service_url=auth_service.url, auth_mode=mode)) as running_api:
        assert (await ask(running_api, tokens["access_token"])).status_code == 200
        problem(await running_api.bearing(tokens["access_token"]).get("/webhook-endpoints"), 403, "forbidden")
    assert len(auth_service.asked("GET", "/auth/verify")) == (0 if mode == "local" else 1)


def refused_tokens(service: AuthService) -> dict[str, str]:
    access = service.token(1)
    header, _payload, signature = access.split(".")
    return {
        "refresh": service.token(1, "refresh"),
        "expired": service.token(1, lives=PAST),
        "unsigned": forged({"alg": "none"}, {"user_id": 1, "exp": 9_999_999_999}),
        "unsigned, with an empty signature": forged({"alg": "None"}, {"user_id": 1, "exp": 9_999_999_999}).rpartition(
            "."
        )[0]
        + ".",
        "another key's": token(OTHER_SECRET, user_id=1),
        "another algorithm's": token(TEST_SECRET, algorithm="HS512", user_id=1),
        "without a user": token(TEST_SECRET),
        "without an end": token(TEST_SECRET, user_id=1, exp=None),
        "of a user that does not exist": token(TEST_SECRET, user_id=99) if service.users else "",
        "another's payload": f"{header}.{forged({}, {'user_id': 2, 'exp': 9_999_999_999}).split('.')[1]}.{signature}",
        "garbage": "a.b.c",
        "no token at all": "x",
        "long garbage": "x" * 5000,
        "with letters that no header takes": "é.è.ê",
        "a refresh token that calls itself admin": service.token(1, "refresh", role="admin"),
    }


KNOWN_ONLY_TO_THE_SERVICE = "of a user that does not exist"


@pytest.mark.parametrize("mode", MODES)
async def test_every_token_that_is_not_right_is_401_and_reaches_no_database(
    auth_service: AuthService, make_settings: MakeSettings, mode: str
) -> None:
    tables: list[Untouchable] = []

    def untouchable(inner: Any) -> Untouchable:
        tables.append(Untouchable(inner))
        return tables[-1]

    # Where the clock may be advanced, the API looks at it once a second.
    settings = make_settings(auth_service_url=auth_service.url, auth_mode=mode, simulation="off")
    async with api_with(settings, database=untouchable) as running_api:
        for name, bearer in refused_tokens(auth_service).items():
            if name == KNOWN_ONLY_TO_THE_SERVICE and mode == "local":
                continue
            headers = {"Authorization": f"Bearer {bearer}".encode()}
            for method, path in (("GET", "/payments"), ("POST", "/payments"), ("GET", "/callback-secret")):
                answer = await running_api.client().request(method, path, headers=headers)  # type: ignore[arg-type]
                assert problem(answer, 401, "invalid_token"), name
        assert tables[0].asked == 0
        problem(await ask(running_api, auth_service.token(1)), 503, "unavailable")  # and a good one does
        assert tables[0].asked == 1


@pytest.mark.parametrize("mode", ["local_then_remote", "remote"])
async def test_whom_the_auth_service_does_not_know_any_more_stays_out(
    auth_service: AuthService, make_settings: MakeSettings, mode: str
) -> None:
    settings = make_settings(auth_service_url=auth_service.url, auth_mode=mode, auth_cache_s=0)
    async with api_with(settings) as running_api:
        bearer = auth_service.token(1)
        assert (await ask(running_api, bearer)).status_code == 200
        auth_service.users.clear()
        problem(await ask(running_api, bearer), 401, "invalid_token")


async def test_logging_out_revokes_the_refresh_token_only(
    auth_service: AuthService, make_settings: MakeSettings
) -> None:
    """What the auth service does today: an access token is good until it expires, whatever was done about it."""
    tokens = await login(auth_service)
    async with httpx.AsyncClient(base_url=auth_service.url, trust_env=False) as client:
        await client.post("/auth/logout", json={"refresh_token": tokens["refresh_token"]})
    async with api_with(make_settings(auth_service_url=auth_service.url, auth_cache_s=0)) as running_api:
        assert (await ask(running_api, tokens["access_token"])).status_code == 200


# -- roles


async def test_a_machines_token_is_believed_by_its_signature_alone(
    auth_service: AuthService, make_settings: MakeSettings
) -> None:
    await auth_service.down()
    async with api_with(make_settings(auth_service_url=auth_service.url)) as running_api:
        assert (await running_api.service().get("/webhook-endpoints")).status_code == 200
        assert (await running_api.admin().get("/payments", params={"user_id": "1"})).status_code == 200
        problem(await ask(running_api, token(OTHER_SECRET, user_id=1, role="admin")), 401, "invalid_token")
    assert auth_service.requests == []


@pytest.mark.parametrize("claims", [{"role": "admin"}, {"roles": ["service"]}])
async def test_where_the_auth_service_alone_decides_nobody_has_a_role(
    auth_service: AuthService, make_settings: MakeSettings, claims: dict[str, Any]
) -> None:
    async with api_with(make_settings(auth_service_url=auth_service.url, auth_mode="remote")) as running_api:
        bearer = auth_service.token(1, **claims)
        assert (await ask(running_api, bearer)).status_code == 200
        problem(await running_api.bearing(bearer).get("/webhook-endpoints"), 403, "forbidden")
        problem(await running_api.bearing(bearer).get("/payments", params={"user_id": "2"}), 403, "forbidden")


async def test_where_it_alone_decides_another_key_may_have_signed(
    auth_service: AuthService, make_settings: MakeSettings
) -> None:
    auth_service.secret = OTHER_SECRET
    async with api_with(make_settings(auth_service_url=auth_service.url, auth_mode="remote")) as running_api:
        assert (await ask(running_api, auth_service.token(1))).status_code == 200
        problem(await ask(running_api, token(TEST_SECRET, user_id=1)), 401, "invalid_token")


@pytest.mark.parametrize("role", ["", None, [], 7])
async def test_a_role_that_is_none_spares_nobody_the_auth_service(
    auth_service: AuthService, make_settings: MakeSettings, role: Any
) -> None:
    async with api_with(make_settings(auth_service_url=auth_service.url)) as running_api:
        problem(await ask(running_api, token(TEST_SECRET, user_id=99, role=role)), 401, "invalid_token")


# -- settings


def test_the_mode_follows_the_address_unless_it_is_set(make_settings: MakeSettings) -> None:
    url = "http://127.0.0.1:1"
    assert make_settings().effective_auth_mode == "local"
    assert make_settings(auth_service_url=url).effective_auth_mode == "local_then_remote"
    assert make_settings(auth_service_url=url, auth_mode="LOCAL").effective_auth_mode == "local"
    assert make_settings(auth_service_url="", auth_mode="").effective_auth_mode == "local"
    for mode in ("remote", "local_then_remote"):
        with pytest.raises(ConfigurationError, match="AUTH_MODE"):
            make_settings(auth_mode=mode)
    with pytest.raises(ConfigurationError, match="AUTH_MODE"):
        make_settings(auth_mode="none")
