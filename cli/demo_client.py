"""The demo's client: one user's requests over HTTP, and what a payment went through as that user sees it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from cli.tokens import mint
from shared.config import Settings
from shared.lifecycle import MethodType, PaymentStatus

API = "/api/v1"
WAIT_S = 25  # the longest wait that Prefer: wait=N allows
WAITS_MAX = 3  # 75 s: more than a gateway that fails three times takes
CARD_YEARS = 3  # until the demo's cards expire
ANSWER_TIMEOUT_S = WAIT_S + 10
KEEPALIVE_S = 2  # sooner than the service hangs up, lest a request meets a connection that is being closed
CONNECTIONS_MAX = 200  # every payment of the crowd waits on one of its own

type Document = dict[str, Any]


class Unexpected(Exception):
    """The service answered something that the demo cannot go on with."""


def open_http(url: str) -> httpx.AsyncClient:
    """A client for the service at `url` that no proxy of the environment comes between."""
    limits = httpx.Limits(
        max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX, keepalive_expiry=KEEPALIVE_S
    )
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=ANSWER_TIMEOUT_S, limits=limits)


class User:
    """Somebody with a token."""

    def __init__(self, http: httpx.AsyncClient, user_id: str, role: str | None = None) -> None:
        defaults = Settings.model_construct()  # the service runs on the defaults, whatever this environment says
        self._http = http
        self._bearer = {"Authorization": f"Bearer {mint(defaults, user=user_id, role=role, hours=1)}"}
        self.id = user_id

    async def ask(
        self,
        method: str,
        path: str,
        *,
        status: int,
        content: Document | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """The answer to a request. Raises Unexpected if its status is another one."""
        answer = await self._http.request(method, API + path, json=content, headers=self._bearer | (headers or {}))
        if answer.status_code != status:
            raise Unexpected(f"{method} {path} answered {answer.status_code} instead of {status}: {answer.text[:500]}")
        return answer

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Document:
        """What is there, as JSON."""
        return document(await self.ask("GET", path, status=200, headers=headers))

    async def add_method(self, method_type: MethodType, details: Document) -> str:
        """Store a payment method; its id."""
        content = {"type": method_type, "payment_details": details}
        method_id: str = document(await self.ask("POST", "/payment-methods", status=201, content=content))["id"]
        return method_id

    async def pay(
        self, content: Document, *, key: str, correlation_id: str | None = None, status: int = 202
    ) -> httpx.Response:
        """Send a payment intent with an idempotency key."""
        headers = {"Idempotency-Key": key} | ({"X-Correlation-ID": correlation_id} if correlation_id else {})
        return await self.ask("POST", "/payments", status=status, content=content, headers=headers)

    async def follow(self, payment_id: str) -> Document:
        """The payment once it has ended; as it is if it does not end within WAITS_MAX waits."""
        payment: Document = {}
        for _ in range(WAITS_MAX):
            payment = await self.get(f"/payments/{payment_id}", {"Prefer": f"wait={WAIT_S}"})
            if is_terminal(payment):
                break
        return payment


def document(answer: httpx.Response) -> Document:
    """The JSON object of an answer."""
    content: Document = answer.json()
    return content


def card(number: str) -> Document:
    """A card with this number that is valid for some years."""
    year = datetime.now(UTC).year + CARD_YEARS
    is_amex = number.startswith("37")
    return {"card_number": number, "exp_month": 12, "exp_year": year, "cvv": "1234" if is_amex else "123"}


def is_terminal(payment: Document) -> bool:
    """The payment has ended."""
    return PaymentStatus(payment["status"]).is_terminal


def moment(text: str) -> datetime:
    """A time of the API."""
    return datetime.fromisoformat(text)


def ms(duration: timedelta) -> float:
    """A duration in ms."""
    return duration.total_seconds() * 1000
