"""An auth service that is away or answers something else: nobody gets in, and nobody waits for it for long."""

import asyncio

import pytest

from tests.support.api_client import problem
from tests.support.auth_modes import MakeSettings, api_with, ask, backend
from tests.support.auth_standins import AuthService
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures", "tests.support.auth_fixtures"]

__all__ = ["backend"]


@pytest.mark.parametrize("mode", ["local_then_remote", "remote"])
@pytest.mark.parametrize("trouble", ["down", "hanging", "failing", "crashing"])
async def test_without_an_answer_nobody_gets_in_and_is_told_when_to_come_again(
    auth_service: AuthService, make_settings: MakeSettings, mode: str, trouble: str
) -> None:
    settings = make_settings(auth_service_url=auth_service.url, auth_mode=mode, auth_timeout_s=0.2)
    async with api_with(settings) as running_api:
        match trouble:
            case "down":
                await auth_service.down()
            case "hanging":
                auth_service.held = asyncio.Event()
            case "failing":
                auth_service.failing = 503
            case _:
                auth_service.failing = 500
        answer = await ask(running_api, auth_service.token(1))
        problem(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "said",
    [
        "", "OK", "null", "[]", "{}", '{"user_id": 1}', '{"valid": "true", "user_id": 1}', '{"valid": 1, "user_id": 1}',
        "<html>hotel wifi</html>",
    ],
)  # fmt: skip
async def test_what_is_no_answer_of_the_auth_service_lets_nobody_in(
    auth_service: AuthService, make_settings: MakeSettings, said: str
) -> None:
    auth_service.answers = said
    async with api_with(make_settings(auth_service_url=auth_service.url)) as running_api:
        problem(await ask(running_api, auth_service.token(1)), 503, "unavailable")


@pytest.mark.parametrize("mode", ["local_then_remote", "remote"])
@pytest.mark.parametrize(
    "said",
    [
        '{"valid": false, "user_id": 1}', '{"valid": true}', '{"valid": true, "user_id": null}',
        '{"valid": true, "user_id": true}', '{"valid": true, "user_id": [1]}', '{"valid": true, "user_id": "a b"}',
    ],
)  # fmt: skip
async def test_an_answer_that_names_nobody_lets_nobody_in(
    auth_service: AuthService, make_settings: MakeSettings, mode: str, said: str
) -> None:
    auth_service.answers = said
    async with api_with(make_settings(auth_service_url=auth_service.url, auth_mode=mode)) as running_api:
        problem(await ask(running_api, auth_service.token(1)), 401, "invalid_token")


async def test_an_answer_about_somebody_else_lets_nobody_in(
    auth_service: AuthService, make_settings: MakeSettings
) -> None:
    auth_service.answers = '{"valid": true, "user_id": 2, "email": "other@example.com"}'
    async with api_with(make_settings(auth_service_url=auth_service.url)) as running_api:
        problem(await ask(running_api, auth_service.token(1)), 401, "invalid_token")


async def test_behind_an_open_breaker_nobody_waits_and_when_the_service_is_back_all_goes_on(
    auth_service: AuthService, make_settings: MakeSettings
) -> None:
    settings = make_settings(auth_service_url=auth_service.url, breaker_failures=3, breaker_open_s=0.3, auth_cache_s=0)
    async with api_with(settings) as running_api:
        auth_service.failing = 503
        for _ in range(3):
            problem(await ask(running_api, auth_service.token(1)), 503, "unavailable")
        asked = len(auth_service.requests)
        answers = await asyncio.gather(*(ask(running_api, auth_service.token(1)) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {503}
        assert len(auth_service.requests) - asked <= 1  # at most a probe
        auth_service.failing = None

        async def gets_in() -> bool:
            return (await ask(running_api, auth_service.token(1))).status_code == 200

        await eventually(gets_in)


async def test_an_open_breaker_says_when_it_is_worth_trying_again(
    auth_service: AuthService, make_settings: MakeSettings
) -> None:
    settings = make_settings(auth_service_url=auth_service.url, breaker_failures=1, breaker_open_s=120)
    async with api_with(settings) as running_api:
        await auth_service.down()
        await ask(running_api, auth_service.token(1))
        answer = await ask(running_api, auth_service.token(1))
        assert 100 <= int(answer.headers["retry-after"]) <= 120
