"""Tokens accepted as AUTH_MODE says, with the auth service's stand-in on the other side of a real connection."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from structlog.testing import capture_logs

from api.auth.api_keys import ApiKeys
from api.auth.authenticator import Authenticator
from api.auth.introspection import Introspection
from api.auth.jwks import PublicKeys
from api.auth.tokens import SharedSecretVerifier
from api.problems import Problem
from shared.config.settings import Settings
from shared.errors import ConfigurationError, UpstreamUnavailable
from shared.ids import new_id
from shared.runtime import Runtime, open_runtime
from shared.upstream.breaker import Breaker
from shared.upstream.client import UpstreamClient
from tests.conftest import TEST_SECRET
from tests.support.api_client import RunningApi, opened, problem, token
from tests.support.manual_clock import ManualClock
from tests.support.upstreams import AuthService, KeyServer, running
from tests.support.waiting import calls_running, eventually
from tests.test_auth import Untouchable, forged

pytest_plugins = ["tests.support.api_fixtures"]

type MakeSettings = Callable[..., Settings]

OTHER_SECRET = "another-secret-that-is-also-more-than-32-bytes"
MODES = ["local", "local_then_remote", "remote"]
PAST = timedelta(seconds=-1)


@pytest.fixture
def backend() -> str:
    """Tokens are no matter of the database."""
    return "sqlite"


@pytest.fixture
async def auth_service() -> AsyncIterator[AuthService]:
    async with running(AuthService(secret=TEST_SECRET)) as service:
        yield service


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


# -- an auth service that does not answer, or something else


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


# -- how often it is asked


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


# -- public keys


@dataclass
class Signer:
    """A key pair of the platform."""

    private: Any
    algorithm: str
    jwk: dict[str, Any]

    def token(self, *, kid: str | None = "", **claims: Any) -> str:
        values = {"user_id": 1, "type": "access", "exp": int(time.time()) + 3600, **claims}
        headers = {} if kid is None else {"kid": kid or self.jwk["kid"]}
        return jwt.encode(values, self.private, self.algorithm, headers=headers)


def signer(kind: str, kid: str | None = None) -> Signer:
    private: Any
    match kind:
        case "RS256":
            private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            jwk = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
            jwk = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case _:
            private = ed25519.Ed25519PrivateKey.generate()
            jwk = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return Signer(private, kind, {**jwk, "kid": kid or kind})


@pytest.fixture
async def key_server() -> AsyncIterator[KeyServer]:
    async with running(KeyServer()) as server:
        yield server


def key_settings(make_settings: MakeSettings, server: KeyServer, **changes: Any) -> Settings:
    return make_settings(jwt_jwks_url=f"{server.url}/keys", **changes)


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
async def test_a_token_that_a_public_key_verifies_gets_in_with_its_role(
    key_server: KeyServer, make_settings: MakeSettings, kind: str
) -> None:
    platform = signer(kind)
    key_server.keys = [platform.jwk, signer("RS256", "another").jwk]
    async with api_with(key_settings(make_settings, key_server)) as running_api:
        for _ in range(3):
            assert (await ask(running_api, platform.token())).status_code == 200
        assert (await running_api.bearing(platform.token(role="service")).get("/webhook-endpoints")).status_code == 200
    assert len(key_server.requests) == 1


async def test_every_other_signature_is_401(key_server: KeyServer, make_settings: MakeSettings) -> None:
    platform, other = signer("RS256"), signer("ES256")
    key_server.keys = [platform.jwk, other.jwk, {"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"}]
    pem = platform.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {"user_id": 1, "exp": 9_999_999_999}
    wrong = {
        "the shared secret's": token(TEST_SECRET, user_id=1),
        "signed with the public key as if it were a secret": forged({"alg": "HS256", "kid": "RS256"}, claims, pem),
        "a symmetric key's of the set": forged({"alg": "HS256", "kid": "shared"}, claims, b"secret"),
        "unsigned": forged({"alg": "none", "kid": "RS256"}, claims),
        "another key's under a good name": signer("RS256").token(kid="RS256"),
        "another algorithm's of the same key": jwt.encode(claims, platform.private, "RS512", headers={"kid": "RS256"}),
        "under another key's name": platform.token(kid="ES256"),
        "another key's under no name": signer("RS256").token(kid=None),
        "under a strange name": forged({"alg": "RS256", "kid": ["RS256"]}, claims),
        "a refresh token": platform.token(type="refresh"),
        "expired": platform.token(exp=1),
        "without a user": platform.token(user_id=None),
        "garbage": "a.b.c",
    }
    async with api_with(key_settings(make_settings, key_server), database=Untouchable) as running_api:
        for name, bearer in wrong.items():
            assert problem(await ask(running_api, bearer), 401, "invalid_token"), name
        problem(await ask(running_api, platform.token()), 503, "unavailable")  # this one reached the (absent) database


async def test_the_only_key_needs_no_name(key_server: KeyServer, make_settings: MakeSettings) -> None:
    platform = signer("ES256")
    key_server.keys = [platform.jwk]
    async with api_with(key_settings(make_settings, key_server)) as running_api:
        assert (await ask(running_api, platform.token(kid=None))).status_code == 200


async def test_each_of_several_keys_is_tried_whatever_their_names_are(
    key_server: KeyServer, make_settings: MakeSettings
) -> None:
    odd = ["x", None, 7, {"kty": "RSA"}, {"kty": "oct", "k": "c2VjcmV0"}, {**signer("ES256").jwk, "use": "enc"}]
    signers = [signer(kind, "one") for kind in ("RS256", "RS256", "ES256", "EdDSA", "EdDSA")]
    for kid in (None, "one"):
        jwks = [{name: value for name, value in one.jwk.items() if kid or name != "kid"} for one in signers]
        for keys in (jwks, jwks[::-1], [*odd, *jwks, *odd]):
            key_server.keys = keys  # type: ignore[assignment]  # odd members are no objects
            async with api_with(key_settings(make_settings, key_server)) as running_api:
                for one in signers:
                    assert (await ask(running_api, one.token(kid=kid))).status_code == 200
                problem(await ask(running_api, signer("RS256").token(kid=kid)), 401, "invalid_token")


async def test_a_new_key_is_no_401_for_anybody_whatever_strangers_ask(key_server: KeyServer) -> None:
    old, new, clock = signer("ES256", "old"), signer("ES256", "new"), ManualClock(time.time())
    key_server.keys = [old.jwk]
    async with UpstreamClient("jwks", f"{key_server.url}/keys", timeout_s=5, connections_max=5) as upstream:
        keys = PublicKeys(upstream, cache_s=100, clock=clock)
        await keys.verified(old.token())
        clock.now += 6
        with pytest.raises(Problem):
            await keys.verified(old.token(kid="made-up"))
        assert len(key_server.requests) == 2
        key_server.keys = [old.jwk, new.jwk]
        with pytest.raises(UpstreamUnavailable):
            await keys.verified(new.token())
        # The stranger costs nobody a fetch, and learns what it knows.
        with pytest.raises(Problem):
            await keys.verified(old.token(kid="made-up"))
        assert len(key_server.requests) == 2
        clock.now += 5
        assert (await keys.verified(new.token())).principal.user_id == "1"
        assert len(key_server.requests) == 3


async def test_made_up_key_names_do_not_make_us_ask_every_time(
    key_server: KeyServer, make_settings: MakeSettings
) -> None:
    platform = signer("ES256")
    key_server.keys = [platform.jwk]
    async with api_with(key_settings(make_settings, key_server)) as running_api:
        await asyncio.gather(*(ask(running_api, platform.token(kid=f"made-up-{number}")) for number in range(20)))
        assert (await ask(running_api, platform.token())).status_code == 200
    assert len(key_server.requests) == 1


async def test_a_new_key_is_found_and_a_withdrawn_one_forgotten(
    key_server: KeyServer, make_settings: MakeSettings
) -> None:
    old, new = signer("ES256", "old"), signer("ES256", "new")
    key_server.keys = [old.jwk]
    async with api_with(key_settings(make_settings, key_server, jwt_jwks_cache_s=0.05)) as running_api:
        bearer = old.token()
        assert (await ask(running_api, bearer)).status_code == 200
        key_server.keys = [new.jwk]

        async def gets(bearer: str, status: int) -> bool:
            return (await ask(running_api, bearer)).status_code == status

        await eventually(lambda: gets(new.token(), 200))
        # It is 503 until the keys may be fetched for it.
        await eventually(lambda: gets(bearer, 401))


async def test_without_keys_nobody_gets_in(key_server: KeyServer, make_settings: MakeSettings) -> None:
    platform = signer("ES256")
    async with api_with(key_settings(make_settings, key_server, breaker_failures=100)) as running_api:
        for keys in ([], [{"kty": "oct", "k": "c2VjcmV0"}], [{"kty": "RSA"}], ["x"]):
            key_server.keys = keys  # type: ignore[assignment]
            problem(await ask(running_api, platform.token()), 503, "unavailable")
        await key_server.down()
        answers = await asyncio.gather(*(ask(running_api, platform.token(jti=str(number))) for number in range(10)))
        assert {answer.status_code for answer in answers} == {503}
        await key_server.up()
        key_server.keys = [platform.jwk]
        assert (await ask(running_api, platform.token())).status_code == 200


async def test_known_keys_outlive_an_outage_for_a_while_and_are_looked_up_again_when_they_are_old(
    key_server: KeyServer,
) -> None:
    platform, clock = signer("ES256"), ManualClock(time.time())
    key_server.keys = [platform.jwk]
    async with UpstreamClient("jwks", f"{key_server.url}/keys", timeout_s=5, connections_max=5) as upstream:
        keys = PublicKeys(upstream, cache_s=100, clock=clock)

        async def verified() -> str:
            return (await keys.verified(platform.token(jti=str(new_id())))).principal.user_id

        assert await verified() == "1"
        clock.now += 99
        assert await verified() == "1"
        assert len(key_server.requests) == 1
        clock.now += 1
        assert await verified() == "1"
        assert len(key_server.requests) == 2
        await key_server.down()
        clock.now += 1200
        assert await verified() == "1"
        clock.now += 1
        with pytest.raises(UpstreamUnavailable):
            await verified()
        await key_server.up()
        clock.now += 5  # no more often than that
        assert await verified() == "1"


async def test_public_keys_come_first_where_the_auth_service_is_asked_as_well(
    key_server: KeyServer, auth_service: AuthService, make_settings: MakeSettings
) -> None:
    platform = signer("EdDSA")
    key_server.keys = [platform.jwk]
    auth_service.answers = '{"valid": true, "user_id": 1}'
    async with api_with(key_settings(make_settings, key_server, auth_service_url=auth_service.url)) as running_api:
        assert (await ask(running_api, platform.token())).status_code == 200
        problem(await ask(running_api, auth_service.token(1)), 401, "invalid_token")
    assert len(auth_service.requests) == 1


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
