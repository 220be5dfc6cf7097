"""Our service on the platform: both upstream services as they really are, and a user who has logged in."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from shared.config.settings import Settings
from shared.database.engine import Database
from shared.runtime import Runtime, open_runtime
from tests.support.api_client import RunningApi, card, served
from tests.support.auth_standins import AuthService
from tests.support.order_standins import Order, OrderService
from tests.support.standins import running
from tests.support.waiting import eventually
from tests.support.workers import working

type MakeSettings = Callable[..., Settings]

SECRET = "a-secret-of-29-bytes-for-all!"  # as the platform's
assert len(SECRET) == 29

DATA_KEY = "a data key of the tests with more than 32 bytes"


@dataclass(slots=True, kw_only=True)
class Platform:
    """Both upstream services, our service beside them, and a user who has logged in and has a card."""

    auth: AuthService
    orders: OrderService
    runtime: Runtime
    running_api: RunningApi
    user: httpx.AsyncClient
    method_id: str

    @property
    def database(self) -> Database:
        return self.runtime.database

    async def pay(self, order: Order | int, **changes: Any) -> dict[str, Any]:
        """An accepted payment for the order."""
        number = order if isinstance(order, int) else order.id
        body = {"order_id": number, "payment_method_id": self.method_id, "amount": 1585, **changes}
        answer = await self.user.post("/payments", json=body, headers={"X-Correlation-ID": f"shop-{number}"})
        assert answer.status_code == 202, answer.text
        payment: dict[str, Any] = answer.json()
        return payment

    async def ended(self, payment: dict[str, Any]) -> dict[str, Any]:
        """The payment once it has ended."""
        answer = await self.user.get(f"/payments/{payment['id']}", headers={"Prefer": "wait=20"})
        found: dict[str, Any] = answer.json()
        assert found["status"] in {"COMPLETED", "FAILED"}, found
        return found

    async def order_update(self, payment: dict[str, Any], status: str = "delivered") -> dict[str, Any]:
        """Return the delivery to the order service once it has this status."""

        async def delivery() -> dict[str, Any] | None:
            shown = (await self.user.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
            return next((each for each in shown if each["kind"] == "order" and each["status"] == status), None)

        found: dict[str, Any] | None = await eventually(delivery, 20)
        assert found is not None
        return found


@asynccontextmanager
async def platform(make_settings: MakeSettings, *, workers: int = 1, **changes: Any) -> AsyncIterator[Platform]:
    """Everything, running."""
    async with AsyncExitStack() as stack:
        auth = await stack.enter_async_context(running(AuthService(secret=SECRET)))
        orders = await stack.enter_async_context(running(OrderService(secret=SECRET)))
        values = {
            "jwt_secret_key": SECRET,
            "data_key": DATA_KEY,
            "auth_service_url": auth.url,
            "order_service_url": orders.url,
            "payment_success_rate": 1,
            "order_not_found_after_s": 0.05,
            "order_backoff_s": 0.05,
            "webhook_retry_schedule": (0.05,) * 100,
            "breaker_open_s": 0.05,
        }
        runtime = open_runtime(make_settings(**{**values, **changes}))
        stack.push_async_callback(runtime.close)
        running_api = await stack.enter_async_context(served(runtime))
        for _ in range(workers):
            await stack.enter_async_context(working(runtime))
        user = await log_in(auth, running_api)
        answer = await user.post("/payments/methods", json=card())
        assert answer.status_code == 201, answer.text
        method_id = answer.json()["id"]
        yield Platform(
            auth=auth, orders=orders, runtime=runtime, running_api=running_api, user=user, method_id=method_id
        )


async def log_in(auth: AuthService, running_api: RunningApi) -> httpx.AsyncClient:
    """A user as the platform's gateway lets them through: a token of the auth service, and /api/payments."""
    async with httpx.AsyncClient(base_url=auth.url, trust_env=False) as client:
        answer = await client.post("/auth/login", json={"email": "shopper@example.com", "password": "correct horse"})
        bearer = answer.json()["access_token"]
    return running_api.client(base="/api", headers={"Authorization": f"Bearer {bearer}"})
