"""How often the auth service is asked about a token: its answers are kept for a while and shared by all who wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from api.auth.api_keys import ApiKeys
from api.auth.authenticator import Authenticator
from api.auth.introspection import Introspection
from api.auth.tokens import SharedSecretVerifier
from shared.errors import UpstreamUnavailable
from shared.runtime import Runtime, open_runtime
from shared.upstream.breaker import Breaker
from shared.upstream.client import UpstreamClient
from tests.conftest import TEST_SECRET
from tests.support.api_client import opened, problem
from tests.support.auth_modes import MakeSettings, api_with, ask, backend
from tests.support.auth_standins import AuthService
from tests.support.manual_clock import ManualClock
from tests.support.tokens import forged
from tests.support.waiting import calls_running, eventually

pytest_plugins = ["tests.support.api_fixtures", "tests.support.auth_fixtures"]

__all__ = ["backend"]


async def test_its_answer_is_kept_for_a_while(auth_service: AuthService, make_settings: MakeSettings) -> None:
    async with api_with(make_settings(auth_service_url=auth_service.url, auth_cache_s=300)) as running_api:
        good, bad = auth_service.token(1), auth_service.token(99)
        for _ in range(5):
            assert (await ask(running_api, good)).status_code == 200
            problem(await ask(running_api, bad), 401, "invalid_token")
        assert len(auth_service.requests) == 2
        await auth_service.down()
        assert (await ask(running_api, good)).status_code == 200
        problem(await ask(running_api, auth_service.token(1, jti="another")), 503, "unavailable")


class CountingIntrospection(Introspection):
    """Counts its callers, each in the step in which it begins to wait for an answer."""

    callers = 0

    async def user_of(self, token: str, *, expires_at: float) -> str | None:
        self.callers += 1
        return await super().user_of(token, expires_at=expires_at)


async def test_many_at_once_with_one_token_share_one_call(auth_service: AuthService, runtime: Runtime) -> None:
    auth_service.held = asyncio.Event()
    async with upstream_of(auth_service) as upstream:
        introspection = CountingIntrospection(upstream, cache_s=0)
        verifier = SharedSecretVerifier(secret=TEST_SECRET, algorithm="HS256")
        authenticator = Authenticator(
            "local_then_remote",
            verifier,
            api_keys=ApiKeys(runtime.database, runtime.keyring),
            introspection=introspection,
        )
        async with opened(runtime, authenticator=authenticator) as running_api:
            bearer = auth_service.token(1)
            asked = [asyncio.create_task(ask(running_api, bearer)) for _ in range(30)]
            await eventually(lambda: auth_service.requests and introspection.callers == 30)
            auth_service.held.set()
            answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert len(auth_service.requests) == 1


@pytest.mark.parametrize("asked", ["auth_service_url", "jwt_jwks_url"])
async def test_a_call_that_its_callers_have_left_ends_with_the_api(
    auth_service: AuthService, make_settings: MakeSettings, asked: str
) -> None:
    auth_service.held = asyncio.Event()
    bearer = forged({"alg": "ES256"}, {}) if asked == "jwt_jwks_url" else auth_service.token(1)
    runtime = open_runtime(make_settings(**{asked: auth_service.url}, auth_timeout_s=30))
    try:
        async with opened(runtime) as running_api:
            caller = asyncio.create_task(ask(running_api, bearer))
            await eventually(lambda: auth_service.requests)
            caller.cancel()
            await asyncio.wait([caller])
            assert calls_running() == 1
        assert calls_running() == 0
    finally:
        await runtime.close()


@asynccontextmanager
async def upstream_of(service: AuthService) -> AsyncIterator[UpstreamClient]:
    breaker = Breaker("auth", failures_max=100, open_s=1)
    async with UpstreamClient("auth", service.url, timeout_s=5, connections_max=5, breaker=breaker) as upstream:
        yield upstream


@asynccontextmanager
async def introspecting(
    service: AuthService, clock: ManualClock, *, cache_s: float = 10
) -> AsyncIterator[Introspection]:
    async with upstream_of(service) as upstream:
        yield Introspection(upstream, cache_s=cache_s, clock=clock)


async def test_a_result_is_forgotten_after_its_time_and_with_its_token(auth_service: AuthService) -> None:
    clock, bearer = ManualClock(), auth_service.token(1)
    async with introspecting(auth_service, clock, cache_s=10) as introspection:
        for passed, calls in ((0, 1), (9.9, 1), (0.1, 2)):
            clock.now += passed
            assert await introspection.user_of(bearer, expires_at=5000) == "1"
            assert len(auth_service.requests) == calls
        other = auth_service.token(1, jti="other")
        for passed, calls in ((0, 3), (2.9, 3), (0.1, 4)):  # the token ends before the ten seconds do
            clock.now += passed
            assert await introspection.user_of(other, expires_at=1013) == "1"
            assert len(auth_service.requests) == calls


@pytest.mark.parametrize("leaver", [0, 1], ids=["who asked for all", "another"])
async def test_a_caller_that_leaves_takes_the_answer_from_no_other(auth_service: AuthService, leaver: int) -> None:
    auth_service.held = asyncio.Event()
    bearer = auth_service.token(1)
    async with introspecting(auth_service, ManualClock()) as introspection:
        callers = [asyncio.create_task(introspection.user_of(bearer, expires_at=5000)) for _ in range(3)]
        await eventually(lambda: auth_service.requests)
        leaving = callers.pop(leaver)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        auth_service.held.set()
        assert await asyncio.gather(*callers) == ["1", "1"]
    assert len(auth_service.requests) == 1


async def test_a_failure_reaches_every_caller_and_is_not_kept(auth_service: AuthService) -> None:
    bearer = auth_service.token(1)
    async with introspecting(auth_service, ManualClock()) as introspection:
        auth_service.failing = 503
        callers = (introspection.user_of(bearer, expires_at=5000) for _ in range(3))
        answers = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(answer, UpstreamUnavailable) for answer in answers)
        assert len(auth_service.requests) == 1
        auth_service.failing = None
        assert await introspection.user_of(bearer, expires_at=5000) == "1"


async def test_the_correlation_id_travels_and_no_token_is_logged(
    auth_service: AuthService, make_settings: MakeSettings
) -> None:
    async with api_with(make_settings(auth_service_url=auth_service.url)) as running_api:
        bearer = auth_service.token(1)
        with capture_logs() as logs:
            await running_api.bearing(bearer).get("/payments", headers={"X-Correlation-ID": "shop-4711"})
            auth_service.failing = 503
            await ask(running_api, auth_service.token(1, jti="x"))
        assert auth_service.requests[0].headers["x-correlation-id"] == "shop-4711"
        assert auth_service.requests[0].token == bearer
        assert len(logs) > 2
        assert "eyJ" not in str(logs)
