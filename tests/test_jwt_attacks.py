"""The classic attacks on JWTs that need more than a wrong token (see test_refused_tokens): all of them stay outside."""

import base64
import json
import time
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.auth.principal import Role
from api.auth.tokens import SharedSecretVerifier
from shared.config.settings import Settings
from tests.support.api_client import RunningApi, problem, token
from tests.support.auth_modes import api_with, backend
from tests.support.auth_standins import KeyServer
from tests.support.key_pairs import key_settings, signer
from tests.support.standins import running
from tests.support.tokens import SECRET, Untouchable, forged, refused

pytest_plugins = ["tests.support.api_fixtures", "tests.support.auth_fixtures"]

__all__ = ["backend"]

CLAIMS = {"user_id": 1, "role": "admin", "exp": 9_999_999_999}
ATTACKERS_SECRET = b"a-secret-of-the-attackers-with-more-than-32-bytes"


@pytest.fixture
async def attackers() -> AsyncIterator[KeyServer]:
    """A key server of the attackers', which must get no request."""
    async with running(KeyServer()) as server:
        yield server
        assert not server.requests


def text64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# -- headers that would choose the key

KEY_NAMES = [
    "../../../../../../dev/null",
    "/dev/null",
    "x' UNION SELECT 'x",
    "'; DROP TABLE payments; --",
    "| cat /etc/passwd",
    "http://127.0.0.1:1/key",
    "key\0.pem",
    "",
]


@pytest.mark.parametrize("kid", KEY_NAMES)
@pytest.mark.parametrize("key", [b"", b"\n", b"\0", b"x", b"null", ATTACKERS_SECRET])
def test_the_name_of_a_key_chooses_none(verifier: SharedSecretVerifier, kid: str, key: bytes) -> None:
    refused(verifier, forged({"alg": "HS256", "kid": kid}, CLAIMS, key))
    assert verifier.verified(forged({"alg": "HS256", "kid": kid}, CLAIMS)).principal.user_id == "1"


def bringing_a_key(url: str) -> list[tuple[str, dict[str, Any]]]:
    """Tokens of the attackers' keys whose headers bring those keys along, or say where they are."""
    attacker = signer("RS256", "attackers")
    oct_key = {"kty": "oct", "k": text64(ATTACKERS_SECRET), "kid": "attackers"}
    locations: list[dict[str, Any]] = [{"jku": f"{url}/keys"}, {"x5u": f"{url}/keys"}, {"jku": "file:///dev/null"}]
    hints: list[dict[str, Any]] = [{"jwk": attacker.jwk}, {"x5c": ["MIIB"], "x5t": "x"}, *locations]
    asymmetric = [
        (jwt.encode(CLAIMS, attacker.private, "RS256", headers={"kid": kid, **hint}), hint)
        for hint in hints
        for kid in ("attackers", "RS256")
    ]
    symmetric = [
        (forged({"alg": "HS256", "kid": "RS256", **hint}, CLAIMS, ATTACKERS_SECRET), hint)
        for hint in [{"jwk": oct_key}, *locations]
    ]
    return asymmetric + symmetric


def test_a_token_brings_no_key_along(verifier: SharedSecretVerifier, attackers: KeyServer) -> None:
    for bearer, _hint in bringing_a_key(attackers.url):
        refused(verifier, bearer)


async def test_a_token_brings_no_public_key_along_and_says_not_where_to_get_one(
    make_settings: Callable[..., Settings], attackers: KeyServer
) -> None:
    platform = signer("RS256")
    async with running(KeyServer()) as ours:
        ours.keys = [platform.jwk]
        async with api_with(key_settings(make_settings, ours), database=Untouchable) as running_api:
            for bearer, hint in bringing_a_key(attackers.url):
                assert problem(await running_api.bearing(bearer).get("/payments"), 401, "invalid_token"), hint
            # The good one is past.
            problem(await running_api.bearing(platform.token()).get("/payments"), 503, "unavailable")


# -- signatures that are none


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
async def test_no_public_key_is_a_secret_and_no_zero_is_a_signature(
    make_settings: Callable[..., Settings], kind: str
) -> None:
    platform = signer(kind)
    public = platform.private.public_key()
    as_secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).rstrip(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(platform.jwk).encode(),
        str(platform.jwk.get("n") or platform.jwk["x"]).encode(),
    ]
    signed = platform.token()
    content = signed.rpartition(".")[0]
    tokens = [forged({"alg": alg, "kid": kind}, CLAIMS, key) for key in as_secrets for alg in ("HS256", "HS512", kind)]
    tokens += [f"{content}.{text64(signature)}" for signature in (b"", b"\0" * 64, b"\0" * 256, b"\xff" * 64)]
    tokens += [f"{content}.{text64(b'0' + bytes([6, 2, 1, 0, 2, 1, 0]))}"]  # ECDSA's zeros in DER
    tokens += [content, content + "..", signed + "." + signed]
    async with running(KeyServer()) as ours:
        ours.keys = [platform.jwk]
        async with api_with(key_settings(make_settings, ours), database=Untouchable) as running_api:
            for bearer in tokens:
                problem(await running_api.bearing(bearer).get("/payments"), 401, "invalid_token")
            problem(await running_api.bearing(signed).get("/payments"), 503, "unavailable")


async def test_our_other_secrets_sign_no_tokens(running_api: RunningApi) -> None:
    ours = [
        (await running_api.user().get("/callback-secret")).json()["secret"],
        running_api.runtime.keyring.callback_secret("user:1"),
        running_api.runtime.keyring.seal_cursor(b"x"),
    ]
    for secret in (*ours, *(text.removeprefix("whsec_") for text in ours)):
        problem(await running_api.bearing(token(secret, user_id=1)).get("/payments"), 401, "invalid_token")


# -- other forms than three parts of JSON


def test_nothing_but_the_compact_form_is_a_token(verifier: SharedSecretVerifier) -> None:
    good = token(SECRET, user_id=1)
    header, payload, signature = good.split(".")
    flattened = {"protected": header, "payload": payload, "signature": signature}
    for form in (
        json.dumps(flattened),
        json.dumps({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}),
        f"{header}.{payload}.{signature}.{signature}",
        f"{header}.{signature}.{payload}.{signature}.{signature}",  # as an encrypted one (JWE)
        forged(b'{"alg":"HS256","cty":"JWT"}', good.encode(), raw=True),  # a token inside a token
        forged(b'{"alg":"HS256"}', json.dumps(good).encode(), raw=True),
        forged(b'{"alg":"HS256","zip":"DEF"}', zlib.compress(json.dumps(CLAIMS).encode()), raw=True),
        forged(b'{"alg":"dir","enc":"A256GCM"}', json.dumps(CLAIMS).encode(), raw=True),
        forged("\ufeff{}".encode("utf-16"), json.dumps(CLAIMS).encode("utf-16"), raw=True),
    ):
        refused(verifier, form)


@pytest.mark.parametrize("extra", [" ", "\n", "\t", "\r\n", "\0", "!", "*", ",", ";", "=AAAA", "\u200b", "%20", "A"])
def test_a_token_has_nothing_around_or_inside_it(verifier: SharedSecretVerifier, extra: str) -> None:
    good = token(SECRET, user_id=1)
    header, payload, signature = good.split(".")
    for bearer in (
        extra + good,
        good + extra,
        f"{header}{extra}.{payload}.{signature}",
        f"{header}.{extra}{payload}.{signature}",
        f"{header}.{payload}.{signature[:9]}{extra}{signature[9:]}",
    ):
        refused(verifier, bearer)


def test_a_huge_token_is_refused_in_no_time(verifier: SharedSecretVerifier) -> None:
    megabyte = "A" * 1_000_000
    started = time.monotonic()
    for bearer in (megabyte, "." * 1_000_000, f"{megabyte}.{megabyte}.{megabyte}", forged({"alg": "none"}, megabyte)):
        refused(verifier, bearer)
    assert time.monotonic() - started < 5


# -- what is said twice, or looks like something else


def test_of_what_is_said_twice_the_signature_still_decides(verifier: SharedSecretVerifier) -> None:
    claims = json.dumps(CLAIMS).encode()
    for header in (b'{"alg":"none","alg":"HS256"}', b'{"alg":"HS256","alg":"none"}', b'{"alg":"HS256","ALG":"none"}'):
        refused(verifier, forged(header, claims, ATTACKERS_SECRET, raw=True))
        refused(verifier, forged(header, claims, raw=True).rpartition(".")[0] + ".")
    for claims in (
        b'{"exp":9999999999,"exp":1,"user_id":1}',
        b'{"exp":9999999999,"type":"access","type":"refresh","user_id":1}',
        b'{"exp":9999999999,"user_id":1,"sub":"1","sub":"2"}',
    ):
        refused(verifier, forged(b'{"alg":"HS256"}', claims, raw=True))


LOOKALIKES = [
    "\u0430dmin",
    "adm\u0131n",
    "\uff41dmin",
    "admin\u200b",
    "\ufeffadmin",
    " admin",
    "admin\n",
    "admin\0",
    "Admin",
]


@pytest.mark.parametrize("role", LOOKALIKES)
def test_a_role_that_looks_like_admin_is_none(verifier: SharedSecretVerifier, role: str) -> None:
    for claims in ({"role": role}, {"roles": [role]}, {"Role": "admin"}, {"role ": "admin"}, {"r\u043ele": "admin"}):
        assert verifier.verified(token(SECRET, user_id=1, **claims)).principal.role == Role.USER


@pytest.mark.parametrize("user_id", ["\uff11", "1\u200b", "\u202e1", "1\u0301", "²", "\u0661", "1\u00a0", "user\u0455"])
def test_a_user_that_looks_like_another_is_refused(verifier: SharedSecretVerifier, user_id: str) -> None:
    refused(verifier, token(SECRET, user_id=user_id))


# -- other ways to send it


async def test_a_token_counts_in_the_authorization_header_and_nowhere_else(running_api: RunningApi) -> None:
    good = token(SECRET, user_id=1)
    anybody = running_api.client()
    for answer in (
        await anybody.get("/payments", params={"access_token": good, "token": good, "authorization": f"Bearer {good}"}),
        await anybody.get("/payments", headers={"Cookie": f"access_token={good}; Authorization=Bearer {good}"}),
        await anybody.get("/payments", headers={"X-Authorization": f"Bearer {good}", "X-Forwarded-User": "1"}),
        await anybody.get("/payments", headers={"Proxy-Authorization": f"Bearer {good}"}),
        await anybody.post("/payments", json={"access_token": good, "user_id": "1"}),
        await anybody.get("/payments", headers=[("Authorization", "Bearer x"), ("Authorization", f"Bearer {good}")]),
        await anybody.get("/payments", headers={"Authorization": f"Bearer\t{good}"}),
    ):
        problem(answer, 401, "invalid_token")
