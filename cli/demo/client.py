"""The HTTP client of the demo: the requests of one user, and the answers that this user gets."""

from datetime import datetime, timedelta
from typing import Any

import httpx

from cli.tokens import mint
from shared.config.settings import Settings
from shared.lifecycle import MethodType, PaymentStatus

API = "/api/v1"
# Seconds of the longest wait that `Prefer: wait=N` allows.
WAIT_S = 25
# Waits for the end of one payment, 75 s in all: a payment that the gateway fails three times takes less.
WAITS_MAX = 3
ANSWER_TIMEOUT_S = WAIT_S + 10
# Seconds; less than the keep-alive of the service, which could otherwise close a connection while a request is sent.
KEEPALIVE_S = 2
# Each of the hundred payments at once waits for its end on a connection of its own.
CONNECTIONS_MAX = 200

type Document = dict[str, Any]


class Unexpected(Exception):
    """The service gave an answer with which the demo cannot go on. The text says which."""


def open_http(url: str) -> httpx.AsyncClient:
    """Return a client for the service at `url`. It ignores a proxy that the environment sets."""
    limits = httpx.Limits(
        max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX, keepalive_expiry=KEEPALIVE_S
    )
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=ANSWER_TIMEOUT_S, limits=limits)


class User:
    """A user of the service, with an access token."""

    def __init__(self, http: httpx.AsyncClient, user_id: str, role: str | None = None) -> None:
        # The service runs with the default settings, so its secret is not the one in this environment.
        defaults = Settings.model_construct()
        self._http = http
        self._bearer = {"Authorization": f"Bearer {mint(defaults, user=user_id, role=role, hours=1)}"}
        self.id = user_id

    async def request(
        self,
        method: str,
        path: str,
        *,
        status: int,
        content: Document | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request and return the answer. Raises Unexpected if its status is not `status`."""
        answer = await self._http.request(method, API + path, json=content, headers=self._bearer | (headers or {}))
        if answer.status_code != status:
            raise Unexpected(f"{method} {path} answered {answer.status_code} instead of {status}: {answer.text[:500]}")
        return answer

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Document:
        """Return the JSON object at `path`. Raises Unexpected if the status is not 200."""
        return document(await self.request("GET", path, status=200, headers=headers))

    async def add_method(self, method_type: MethodType, details: Document) -> str:
        """Store a payment method and return its id."""
        content = {"type": method_type, "payment_details": details}
        method_id: str = document(await self.request("POST", "/payment-methods", status=201, content=content))["id"]
        return method_id

    async def pay(
        self, content: Document, *, key: str, correlation_id: str | None = None, status: int = 202
    ) -> httpx.Response:
        """Send a payment intent with the idempotency key `key`. Raises Unexpected if the status is not `status`."""
        headers = {"Idempotency-Key": key} | ({"X-Correlation-ID": correlation_id} if correlation_id else {})
        return await self.request("POST", "/payments", status=status, content=content, headers=headers)

    async def wait_for_end(self, payment_id: str) -> Document:
        """Wait until the payment has ended and return it. After WAITS_MAX waits return it as it is."""
        payment: Document = {}
        for _ in range(WAITS_MAX):
            payment = await self.get(f"/payments/{payment_id}", {"Prefer": f"wait={WAIT_S}"})
            if is_terminal(payment):
                break
        return payment


def document(answer: httpx.Response) -> Document:
    """Return the JSON object of an answer."""
    content: Document = answer.json()
    return content


def is_terminal(payment: Document) -> bool:
    """Return whether the payment has ended."""
    return PaymentStatus(payment["status"]).has_ended


def parse_time(text: str) -> datetime:
    """Parse a time as the API writes it."""
    return datetime.fromisoformat(text)


def milliseconds(duration: timedelta) -> float:
    """Return a duration in milliseconds."""
    return duration.total_seconds() * 1000
