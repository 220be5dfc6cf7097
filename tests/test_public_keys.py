"""Tokens that a public key of the platform verifies, and how the keys are looked up, kept and forgotten."""

import asyncio
import time

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.auth.jwks import PublicKeys
from api.problems import Problem
from shared.errors import UpstreamUnavailable
from shared.ids import new_id
from shared.upstream.client import UpstreamClient
from tests.conftest import TEST_SECRET
from tests.support.api_client import problem, token
from tests.support.auth_modes import MakeSettings, api_with, ask, backend
from tests.support.auth_standins import AuthService, KeyServer
from tests.support.key_pairs import key_settings, signer
from tests.support.manual_clock import ManualClock
from tests.support.tokens import Untouchable, forged
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures", "tests.support.auth_fixtures"]

__all__ = ["backend"]


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
