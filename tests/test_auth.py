"""Tokens over HTTP: which get in, and that without a valid one no operation reaches the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import jwt
import pytest

from api.auth.tokens import SharedSecretVerifier
from cli.tokens import mint
from shared.config.settings import Settings
from shared.ids import new_id
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, opened, problem, token
from tests.support.tokens import HOUR, SECRET, Untouchable, forged

pytest_plugins = ["tests.support.api_fixtures"]


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
