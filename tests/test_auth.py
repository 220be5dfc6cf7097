"""Tokens: every one that is not exactly right is 401, and none of those reaches the database."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any, NoReturn

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from api.auth.permissions import Permissions
from api.auth.principal import Principal, Role
from api.auth.tokens import NOT_BEFORE_LEEWAY_S, SharedSecretVerifier
from api.problems import Code, Problem
from cli.tokens import mint
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.errors import DatabaseUnavailable
from shared.ids import new_id
from shared.payments.find import Visible
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, opened, problem, token

pytest_plugins = ["tests.support.api_fixtures"]

SECRET = "secret-of-the-tests-with-more-than-32-bytes"
HOUR = timedelta(hours=1)


@pytest.fixture
def verifier() -> SharedSecretVerifier:
    return SharedSecretVerifier(secret=SECRET, algorithm="HS256")


def refused(verifier: SharedSecretVerifier, bearer: str) -> None:
    with pytest.raises(Problem) as caught:
        verifier.verified(bearer)
    assert caught.value.code == Code.INVALID_TOKEN
    assert len(caught.value.detail or "") < 60  # too short to repeat what was sent


def forged(header: Any, payload: Any, key: bytes = SECRET.encode(), *, raw: bool = False) -> str:
    """A token signed by hand, however wrong its parts are."""
    parts = [part if raw else json.dumps(part).encode() for part in (header, payload)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = hmac.new(key, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


# -- who it is


@pytest.mark.parametrize(
    ("claims", "user_id"),
    [
        ({"user_id": 1}, "1"),
        ({"user_id": "1"}, "1"),
        ({"sub": "1"}, "1"),
        ({"sub": 1}, "1"),
        ({"user_id": 1, "sub": "1"}, "1"),
        ({"user_id": "shop"}, "shop"),
        ({"user_id": "x" * 64}, "x" * 64),
        ({"user_id": 2**63}, str(2**63)),
        ({"user_id": 1, "type": None}, "1"),
        ({"user_id": 1, "iat": 9_999_999_999}, "1"),  # the auth service's clock may be ahead
        ({"user_id": 1, "aud": "shop", "iss": "auth", "jti": 7, "email": "a@b.example"}, "1"),
    ],
)
def test_a_token_names_its_user_in_user_id_or_sub(
    verifier: SharedSecretVerifier, claims: dict[str, Any], user_id: str
) -> None:
    assert verifier.verified(token(SECRET, **claims)).principal == Principal(user_id, Role.USER)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"user_id": 1, "sub": "2"},
        {"user_id": 1, "sub": ""},
        {"user_id": 1, "sub": ["1"]},
        {"user_id": True},
        {"user_id": False},
        {"user_id": 1.0},
        {"user_id": 1.5},
        {"user_id": []},
        {"user_id": [1]},
        {"user_id": {"id": 1}},
        {"user_id": ""},
        {"user_id": " "},
        {"user_id": "a b"},
        {"user_id": "x" * 65},
        {"user_id": "ü"},
        {"user_id": "1\n"},
        {"user_id": "\0"},
        {"user_id": 10**64},
        {"sub": True},
    ],
)
def test_a_token_that_does_not_name_one_user_is_refused(verifier: SharedSecretVerifier, claims: dict[str, Any]) -> None:
    refused(verifier, token(SECRET, **claims))


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({}, Role.USER),
        ({"role": "user"}, Role.USER),
        ({"role": "ADMIN"}, Role.USER),
        ({"role": "order_admin"}, Role.USER),
        ({"role": ""}, Role.USER),
        ({"role": 1}, Role.USER),
        ({"role": ["admin"]}, Role.USER),
        ({"roles": {"admin": True}}, Role.USER),
        ({"roles": [["admin"], {"role": "admin"}, 1, True, None]}, Role.USER),
        ({"is_admin": True, "scope": "admin", "permissions": ["admin"]}, Role.USER),
        ({"role": "service"}, Role.SERVICE),
        ({"roles": ["x", "service"]}, Role.SERVICE),
        ({"roles": "service"}, Role.SERVICE),
        ({"role": "admin"}, Role.ADMIN),
        ({"role": "payment_admin"}, Role.ADMIN),
        ({"role": "super_admin"}, Role.ADMIN),
        ({"roles": ["service", "payment_admin"]}, Role.ADMIN),
        ({"role": "user", "roles": ["admin"]}, Role.ADMIN),
    ],
)
def test_only_signed_claims_grant_a_role(verifier: SharedSecretVerifier, claims: dict[str, Any], role: Role) -> None:
    assert verifier.verified(token(SECRET, user_id=1, **claims)).principal.role == role


def test_a_principal_sees_what_its_role_and_the_scope_of_services_let_it() -> None:
    of_all, of_created = Permissions("all"), Permissions("created")
    for permissions in (of_all, of_created):
        assert permissions.visible(Principal("1", Role.USER)) == Visible(user_id="1")
        assert permissions.visible(Principal("1", Role.ADMIN)) == Visible()
    assert of_all.visible(Principal("shop", Role.SERVICE)) == Visible()
    assert of_created.visible(Principal("shop", Role.SERVICE)) == Visible(created_by="service:shop")


# -- what is refused


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": datetime.now(UTC) - timedelta(seconds=1)},
        {"exp": 0},
        {"exp": -1},
        {"exp": True},
        {"exp": None},
        {"exp": "soon"},
        {"exp": []},
        {"exp": {}},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"nbf": 9_999_999_999},
        {"nbf": datetime.now(UTC) + timedelta(hours=1)},
        {"nbf": float("inf")},
        {"nbf": float("nan")},
        {"nbf": "later"},
        {"nbf": []},
        {"type": "refresh"},
        {"type": "Access"},
        {"type": ""},
        {"type": 1},
        {"type": ["access"]},
    ],
)
def test_only_access_tokens_that_are_valid_now_get_in(verifier: SharedSecretVerifier, claims: dict[str, Any]) -> None:
    refused(verifier, token(SECRET, **{"user_id": 1, **claims}))


def test_the_clock_of_the_issuer_may_be_some_seconds_ahead(verifier: SharedSecretVerifier) -> None:
    verifier.verified(token(SECRET, user_id=1, nbf=int(time()) + NOT_BEFORE_LEEWAY_S - 1))
    refused(verifier, token(SECRET, user_id=1, nbf=int(time()) + NOT_BEFORE_LEEWAY_S + 2))


def test_other_keys_and_other_algorithms_are_refused(verifier: SharedSecretVerifier) -> None:
    for key in ("", "another-secret-that-is-also-more-than-32-bytes", SECRET + " ", SECRET[:-1]):
        refused(verifier, forged({"alg": "HS256", "typ": "JWT"}, {"user_id": 1, "exp": 9_999_999_999}, key.encode()))
    for algorithm in ("HS384", "HS512"):
        refused(verifier, token(SECRET, algorithm=algorithm, user_id=1))
    long = SECRET * 2
    strict = SharedSecretVerifier(secret=long, algorithm="HS512")
    assert strict.verified(token(long, algorithm="HS512", user_id=1)).principal.user_id == "1"
    refused(strict, token(long, user_id=1))


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", None, [], {}, ["HS256"], 1, "HS256 ", "hs256"]
)
def test_an_unsigned_or_strangely_signed_token_is_refused(verifier: SharedSecretVerifier, algorithm: Any) -> None:
    header, claims = {"alg": algorithm, "typ": "JWT"}, {"user_id": 1, "exp": 9_999_999_999}
    refused(verifier, forged(header, claims))
    refused(verifier, forged(header, claims).rpartition(".")[0] + ".")
    refused(verifier, forged({"typ": "JWT"}, claims))


def test_a_key_that_is_public_signs_nothing() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = jwt.encode(
        {"user_id": 1, "exp": datetime.now(UTC) + HOUR},
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "RS256",
    )
    refused(SharedSecretVerifier(secret=SECRET, algorithm="HS256"), signed)
    refused(SharedSecretVerifier(secret=public.decode(), algorithm="HS256"), signed)
    by_public_key = forged({"alg": "HS256"}, {"user_id": 1, "exp": 9_999_999_999}, public)
    refused(SharedSecretVerifier(secret=SECRET, algorithm="HS256"), by_public_key)
    refused(SharedSecretVerifier(secret=public.decode(), algorithm="HS256"), by_public_key)


GOOD_HEADER = {"alg": "HS256", "typ": "JWT"}
GARBAGE = [
    "x",
    "null",
    "a.b",
    "a.b.c",
    "..",
    "....",
    "eyJ.eyJ.eyJ",
    "é.è.ê",
    "=.=.=",
    "\x7f",
    "x" * 10_000,
    "." * 10_000,
    forged(GOOD_HEADER, []),
    forged(GOOD_HEADER, "x"),
    forged(GOOD_HEADER, 1),
    forged(GOOD_HEADER, None),
    forged([], {"user_id": 1}),
    forged("x", {"user_id": 1}),
    forged(None, {"user_id": 1}),
    forged(b"{", b"{}", raw=True),
    forged(b'{"alg":"HS256"}', b"{", raw=True),
    forged(b'{"alg":"HS256"}', b"\xff", raw=True),
    forged(b'{"alg":"HS256"}', b"", raw=True),
    forged(b'{"alg":"HS256"}', b'{"user_id":1,"exp":' + b"9" * 5000 + b"}", raw=True),
    forged(b'{"alg":"HS256"}', b'{"exp":9999999999,"user_id":' + b"9" * 5000 + b"}", raw=True),
    forged(b'{"alg":"HS256"}', b'{"user_id":1,"exp":1e999}', raw=True),
    forged(b'{"alg":"HS256"}', b'{"user_id":"\\ud800","exp":9999999999}', raw=True),
    forged(b'{"alg":"HS256"}', b"[" * 5000, raw=True),
    forged(b"[" * 5000, b"{}", raw=True),
    forged(GOOD_HEADER | {"crit": ["x"]}, {"user_id": 1, "exp": 9_999_999_999}),
    forged(GOOD_HEADER | {"crit": "x"}, {"user_id": 1, "exp": 9_999_999_999}),
    forged(GOOD_HEADER | {"kid": ["x"]}, {"user_id": 1, "exp": 9_999_999_999}),
    forged(GOOD_HEADER | {"b64": False}, {"user_id": 1, "exp": 9_999_999_999}),
]


@pytest.mark.parametrize("bearer", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_refused(verifier: SharedSecretVerifier, bearer: str) -> None:
    refused(verifier, bearer)


def test_a_token_with_any_character_changed_is_refused(verifier: SharedSecretVerifier) -> None:
    good = token(SECRET, user_id=1, role="service")
    for place, character in enumerate(good[:-1]):  # the last one has bits that mean nothing
        refused(verifier, good[:place] + ("A" if character != "A" else "B") + good[place + 1 :])


# -- over HTTP


class Untouchable(Database):
    """A database that no request may reach; it counts those that do."""

    def __init__(self, inner: Database) -> None:
        self.clock = inner.clock
        self.is_sqlite = inner.is_sqlite
        self.asked = 0

    def transaction(self) -> NoReturn:
        self.asked += 1
        raise DatabaseUnavailable("no request may reach it")

    def read(self) -> NoReturn:
        self.asked += 1
        raise DatabaseUnavailable("no request may reach it")


@asynccontextmanager
async def guarded(runtime: Runtime) -> AsyncIterator[tuple[RunningApi, Untouchable]]:
    database = Untouchable(runtime.database)
    async with opened(Runtime(runtime.settings, database, runtime.broker, runtime.keyring)) as running_api:
        yield running_api, database


OPERATIONS = [
    ("POST", "/payments"),
    ("GET", "/payments"),
    ("GET", "/payments/{id}"),
    ("GET", "/payments/{id}/status"),
    ("GET", "/payments/{id}/history"),
    ("GET", "/payments/{id}/deliveries"),
    ("POST", "/payments/{id}/cancel"),
    ("POST", "/payment-methods"),
    ("GET", "/payment-methods"),
    ("GET", "/payment-methods/{id}"),
    ("PATCH", "/payment-methods/{id}"),
    ("DELETE", "/payment-methods/{id}"),
    ("POST", "/webhook-endpoints"),
    ("GET", "/webhook-endpoints"),
    ("GET", "/webhook-endpoints/{id}"),
    ("PATCH", "/webhook-endpoints/{id}"),
    ("DELETE", "/webhook-endpoints/{id}"),
    ("GET", "/webhook-endpoints/{id}/deliveries"),
    ("POST", "/webhook-deliveries/{id}/resend"),
    ("GET", "/callback-secret"),
]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_without_a_valid_token_no_operation_reaches_the_database(runtime: Runtime, backend: str) -> None:
    expired = token(SECRET, user_id=1, exp=datetime.now(UTC) - HOUR)
    refresh = token(SECRET, user_id=1, type="refresh", role="admin")
    unsigned = forged({"alg": "none"}, {"user_id": 1, "role": "admin"})
    good = token(SECRET, user_id=1)
    headers = [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": good},
        {"Authorization": f"Basic {good}"},
        {"Authorization": f"Token {good}"},
        {"Authorization": f"Bearer {good}, Bearer {good}"},
        {"Authorization": f"Bearer {good} {good}"},
        {"Cookie": f"token={good}"},
        {"X-User-Id": "1", "X-Role": "admin"},
        *({"Authorization": f"Bearer {bearer}"} for bearer in (expired, refresh, unsigned, "x", "a.b.c")),
    ]
    async with guarded(runtime) as (running_api, database):
        for method, path in OPERATIONS:
            for header in headers:
                answer = await running_api.client(headers=header).request(method, path.format(id=new_id()))
                body = problem(answer, 401, "invalid_token")
                assert answer.headers["www-authenticate"] == "Bearer"
                assert not any(bearer in answer.text for bearer in (good, expired, refresh))
                assert body["correlation_id"]
        assert database.asked == 0
        answer = await running_api.user().get("/payments")  # and the good one does
        problem(answer, 503, "unavailable")
        assert database.asked == 1


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_the_scheme_is_bearer_in_any_case(running_api: RunningApi) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = await running_api.client(headers={"Authorization": f"{scheme} {token(SECRET, user_id=1)}"}).get(
            "/payments"
        )
        assert answer.status_code == 200


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_token_of_the_command_line_gets_in(running_api: RunningApi) -> None:
    settings = running_api.settings
    for user, role, expected in (("7", None, 403), ("shop", "service", 200), ("root", "admin", 200)):
        client = running_api.bearing(mint(settings, user=user, role=role, hours=1))
        assert (await client.get("/payments")).status_code == 200
        assert (await client.get("/webhook-endpoints")).status_code == expected


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_the_platforms_short_secret_works() -> None:
    short = "x" * 29
    assert (
        SharedSecretVerifier(secret=short, algorithm="HS256").verified(token(short, user_id=1)).principal.user_id == "1"
    )


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_token_of_the_auth_service_gets_in(running_api: RunningApi, settings: Settings) -> None:
    claims = {"user_id": 1, "type": "access", "exp": 9_999_999_999, "iat": 1, "jti": "a"}  # what it puts in, no more
    client = running_api.bearing(jwt.encode(claims, settings.jwt_secret_key.get_secret_value(), "HS256"))
    assert (await client.get("/payments")).status_code == 200


async def test_health_and_documents_need_no_token(running_api: RunningApi) -> None:
    anybody: httpx.AsyncClient = running_api.client(base="")
    for path in ("/health", "/health/ready", "/metrics", "/openapi.json", "/docs"):
        assert (await anybody.get(path)).status_code == 200, path
