"""A running API for tests, and clients of it that hold a token; its fixtures are in `tests.support.api_fixtures`.

Most tests call the application in their own loop (`running_api`): nothing is faked but the socket. What is about
connections takes a real server (`served`). The database and the Valkey are always real.
"""

import asyncio
import itertools
import warnings
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt

from api.auth.authenticator import Authenticator
from api.main import create_app, listen, serve
from api.paths import PREFIX
from api.state import Api
from shared.config.settings import Settings
from shared.database.engine import Database
from shared.runtime import Runtime, open_runtime

VISA = "4242424242424242"
MASTERCARD = "5555555555554444"
SIX_CARDS = (VISA, MASTERCARD, "4000056655665556", "5200828282828210", "6011111111111117", "3566002020360505")
# Longer than the grace for deliveries at the default WEBHOOK_TIMEOUT, and the records after it.
STOP_TIMEOUT_S = 30

_orders = itertools.count(1000)


# -- tokens


def token(secret: str, *, algorithm: str = "HS256", **claims: Any) -> str:
    """A signed token with these claims, valid for an hour unless they say otherwise; a claim of None is left out."""
    all_claims = {"type": "access", "exp": datetime.now(UTC) + timedelta(hours=1), **claims}
    with warnings.catch_warnings(action="ignore"):  # of short keys, which are what some tests are about
        return jwt.encode({name: value for name, value in all_claims.items() if value is not None}, secret, algorithm)


# -- a running API


@dataclass(slots=True, kw_only=True)
class RunningApi:
    """A running API, and clients of it."""

    runtime: Runtime
    transport: httpx.AsyncBaseTransport
    url: str = "http://payments.test"
    api: Api | None = None  # None where it runs in a server of its own

    @property
    def database(self) -> Database:
        return self.runtime.database

    @property
    def intents(self) -> Any:
        """The accept queue."""
        assert self.api is not None
        return self.api.intents

    @property
    def settings(self) -> Settings:
        return self.runtime.settings

    def user(self, user_id: str | int = 1, **claims: Any) -> httpx.AsyncClient:
        """A client with a valid token."""
        return self.bearing(token(self.settings.jwt_secret_key.get_secret_value(), user_id=user_id, **claims))

    def service(self, name: str = "shop") -> httpx.AsyncClient:
        return self.user(name, role="service")

    def admin(self, name: str = "root") -> httpx.AsyncClient:
        return self.user(name, role="admin")

    def bearing(self, bearer: str) -> httpx.AsyncClient:
        """A client with this token, whatever it is."""
        return self.client(headers={"Authorization": f"Bearer {bearer}"})

    def client(self, *, base: str = PREFIX, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
        """A client without a token; paths are below `base`."""
        return httpx.AsyncClient(
            transport=self.transport, base_url=f"{self.url}{base}", headers=headers, trust_env=False, timeout=30
        )


@asynccontextmanager
async def opened(runtime: Runtime, *, authenticator: Authenticator | None = None) -> AsyncIterator[RunningApi]:
    """The API over `runtime`, called in this loop without a socket, running until the block ends.

    With `authenticator` it has that one instead of the one that the settings describe.
    """
    api = Api(runtime)
    if authenticator is not None:
        api.authenticator = authenticator
    transport = httpx.ASGITransport(create_app(api), client=("127.0.0.1", 1))
    async with api.running():
        yield RunningApi(runtime=runtime, transport=transport, api=api)


@asynccontextmanager
async def opened_with(settings: Settings) -> AsyncIterator[RunningApi]:
    """The API with these settings, called in this loop, with a runtime of its own."""
    runtime = open_runtime(settings)
    try:
        async with opened(runtime) as running_api:
            yield running_api
    finally:
        await runtime.close()


@asynccontextmanager
async def served(runtime: Runtime, stop: asyncio.Event | None = None, **options: float) -> AsyncIterator[RunningApi]:
    """The API in the real server, on a free port; it stops at `stop` or when the block ends. See `serve`."""
    stop = stop or asyncio.Event()
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    serving = asyncio.create_task(serve(runtime, listener, stop, **options))
    transport = httpx.AsyncHTTPTransport(verify=False, limits=limits, trust_env=False)
    try:
        yield RunningApi(runtime=runtime, transport=transport, url=f"http://127.0.0.1:{port}")
    finally:
        await transport.aclose()
        stop.set()
        await asyncio.wait_for(serving, STOP_TIMEOUT_S)


@asynccontextmanager
async def held[T](manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """`manager` entered and left by one task, as its task group demands; a fixture has one for each of the two."""
    entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    left = asyncio.Event()

    async def hold() -> None:
        async with manager as value:
            entered.set_result(value)
            await left.wait()

    holding = asyncio.create_task(hold())
    either: list[asyncio.Future[Any]] = [holding, entered]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not entered.done():
        await holding
    try:
        yield entered.result()
    finally:
        left.set()
        await asyncio.wait_for(holding, STOP_TIMEOUT_S)


# -- what clients say


def card(number: str = VISA, **changes: Any) -> dict[str, Any]:
    """The body that adds a card; a change of `None` leaves a member of the card out."""
    outer: dict[str, Any] = {
        name: changes.pop(name) for name in ("type", "display_name", "is_default") if name in changes
    }
    details = {"card_number": number, "exp_month": 12, "exp_year": 2040, "cvv": "123", **changes}
    kept = {name: value for name, value in details.items() if value is not None}
    return {"type": "CREDIT_CARD", "payment_details": kept, **outer}


def paypal(email: str = "shopper@example.com", **outer: Any) -> dict[str, Any]:
    """The body that adds a PayPal account."""
    return {"type": "PAYPAL", "payment_details": {"email": email}, **outer}


async def added(client: httpx.AsyncClient, body: dict[str, Any] | None = None) -> str:
    """The id of a new payment method."""
    answer = await client.post("/payment-methods", json=body or card())
    assert answer.status_code in {200, 201}, answer.text
    method_id: str = answer.json()["id"]
    return method_id


async def created_key(admin: httpx.AsyncClient, *, name: str = "shop", role: str = "service", **body: Any) -> str:
    """A new API key."""
    answer = await admin.post("/api-keys", json={"name": name, "role": role, **body})
    assert answer.status_code == 201, answer.text
    key: str = answer.json()["key"]
    return key


def order(method_id: str, **changes: Any) -> dict[str, Any]:
    """The body of a payment of 15.85 USD for a new order."""
    return {"order_id": f"o-{next(_orders)}", "payment_method_id": method_id, "amount": 1585, **changes}


async def accepted(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """The payment of a request that must be accepted."""
    answer = await client.post("/payments", json=body)
    assert answer.status_code == 202, answer.text
    payment: dict[str, Any] = answer.json()
    return payment


async def paid(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    """A new payment with a new (or the same old) card."""
    return await accepted(client, order(await added(client), **changes))


# -- what answers must be


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer that must be one, with this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["correlation_id"] == answer.headers["x-correlation-id"]
    return body


def pointers(answer: httpx.Response) -> list[str]:
    """The places that a 422 names."""
    return [error["pointer"] for error in problem(answer, 422, "validation_error").get("errors", [])]
