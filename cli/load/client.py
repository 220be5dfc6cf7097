"""The HTTP client of the load. It uses aiohttp, which costs a third of the processor time that httpx costs.

It must not retry a request or judge an answer: its callers do that.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import aiohttp
import orjson

from cli.sample_cards import CREDIT_CARDS, DEBIT_CARDS, card
from shared.lifecycle import MethodType
from shared.open_files import allow_open_files

API = "/api/v1"
REQUEST_TIMEOUT_S = 10
# Statuses that come from a proxy or from a bug: it is unknown whether the request was carried out.
LOST_ANSWERS = frozenset({500, 502, 504})
# Seconds; less than the keep-alive of the service, which could otherwise close a connection while a request is sent.
KEEPALIVE_S = 2
# Payments on one page of a list, the most that the API allows.
PAGE = 100
# Each connection is an open file, and some systems allow only 256 of them by default.
FILES_WANTED = 4096
CARD_NUMBERS = {MethodType.CREDIT_CARD: CREDIT_CARDS[0], MethodType.DEBIT_CARD: DEBIT_CARDS[0]}

type Document = dict[str, Any]


class NoAnswer(Exception):
    """No answer came, so it is unknown whether the service did what was asked. The text names the error."""


class Unusable(Exception):
    """The service gave an answer with which the load cannot go on. The text is for people."""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """An answer of the service: its status and its JSON object, which is empty if the body is no JSON object."""

    status: int
    content: Document

    @property
    def is_success(self) -> bool:
        """The status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own numbers

    @property
    def status_and_code(self) -> str:
        """The status and the code of a problem, such as `503 overloaded`."""
        return f"{self.status} {self.content.get('code', '')}".rstrip()


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """The figures of one worker, as it reports them."""

    name: str
    slots: int
    in_gateway: int
    checking_orders: int
    # Payments since the worker started.
    settled: int
    settled_per_s: float

    @property
    def taken_slots(self) -> int:
        """The slots that a payment holds: its order is being checked, or the gateway works on it."""
        return self.in_gateway + self.checking_orders


@dataclass(frozen=True, slots=True)
class Figures:
    """The live figures of the service, from `GET /stats`."""

    # Unix time in seconds, by the clock of the service.
    computed_at: float
    queue_depth: int
    # Payments that are PROCESSING: in the gateway, or waiting for another try or for their record.
    in_flight: int
    oldest_pending_s: float
    webhook_backlog: int
    # None if the service does not know.
    settled_per_s: float | None
    # None if the service does not know.
    workers: tuple[WorkerFigures, ...] | None

    @property
    def unsettled(self) -> int:
        """The number of payments that have not ended."""
        return self.queue_depth + self.in_flight

    @classmethod
    def of(cls, content: Document) -> Self:
        """Return the figures in the JSON object of `GET /stats`."""
        workers = content["workers"]
        return cls(
            computed_at=unix_s(content["computed_at"]),
            queue_depth=content["queue_depth"],
            in_flight=content["in_flight"],
            oldest_pending_s=content["oldest_pending_s"],
            webhook_backlog=content["webhook_backlog"],
            settled_per_s=content["settled_per_s"],
            workers=None if workers is None else tuple(_worker(worker) for worker in workers),
        )


class Api:
    """The API of one service. Each request carries the token that it is given."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def request(
        self,
        method: str,
        path: str,
        token: str,
        *,
        content: Document | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> ApiAnswer:
        """Send a request and return the answer, whatever its status.

        Raises NoAnswer if the connection fails or no answer comes within REQUEST_TIMEOUT_S seconds.
        """
        bearer = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if content is None else orjson.dumps(content)
        try:
            async with self._session.request(
                method, self._url + path, data=data, params=query, headers=bearer | dict(headers or {})
            ) as answer:
                return ApiAnswer(answer.status, _document(await answer.read()))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NoAnswer(type(error).__name__) from error

    async def pay(self, token: str, intent: Document, *, key: str) -> ApiAnswer:
        """Send a payment intent with the idempotency key `key`, which is its correlation id too. Raises NoAnswer."""
        headers = {"Idempotency-Key": key, "X-Correlation-ID": key}
        return await self.request("POST", f"{API}/payments", token, content=intent, headers=headers)

    async def get(self, path: str, token: str, query: Mapping[str, str] | None = None) -> Document:
        """Return the JSON object at `path`. Raises NoAnswer, or Unusable if the status is not 2xx."""
        answer = await self.request("GET", API + path, token, query=query)
        if not answer.is_success:
            raise Unusable(f"GET {API}{path} answered {answer.status_and_code}.")
        return answer.content

    async def figures(self, token: str) -> Figures | None:
        """Return the live figures; None if the token may not see them. Raises NoAnswer or Unusable."""
        answer = await self.request("GET", f"{API}/stats", token)
        if answer.status in {403, 404}:
            return None
        if not answer.is_success:
            raise Unusable(f"GET {API}/stats answered {answer.status_and_code}.")
        return Figures.of(answer.content)

    async def is_ready(self) -> bool:
        """Return whether the service answers that its database and its Redis are ready."""
        try:
            answer = await self.request("GET", "/health/ready", "")
        except NoAnswer:
            return False
        checks = answer.content.get("checks", {})
        return answer.is_success and checks.get("database") == checks.get("redis") == "ready"

    async def add_method(self, token: str, method: MethodType) -> Document:
        """Store a payment method whose outcome follows the success rate, and return it. It may exist already.

        Raises NoAnswer, or Unusable if the service refuses.
        """
        is_card = method in CARD_NUMBERS
        details = card(CARD_NUMBERS[method]) if is_card else {"email": "load@example.com"}
        content = {"type": method.value, "payment_details": details}
        answer = await self.request("POST", f"{API}/payment-methods", token, content=content)
        if not answer.is_success:
            raise Unusable(f"The service refused a payment method: {answer.status_and_code}.")
        return answer.content


@asynccontextmanager
async def open_api(url: str, *, connections_max: int) -> AsyncIterator[Api]:
    """Open a client for the service at `url`. It ignores a proxy that the environment sets."""
    allow_open_files(FILES_WANTED)
    connector = aiohttp.TCPConnector(limit=connections_max, keepalive_timeout=KEEPALIVE_S)
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Api(url, session)


def is_lost(answer: ApiAnswer) -> bool:
    """Return whether the answer leaves open if the request was carried out.

    Either the service says so with `outcome_unknown`, or the answer comes from a proxy or from a bug.
    """
    return answer.content.get("code") == "outcome_unknown" or answer.status in LOST_ANSWERS


def unix_s(text: str) -> float:
    """Return the Unix time in seconds of a time that the API wrote."""
    return datetime.fromisoformat(text).timestamp()


def _document(body: bytes) -> Document:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        # The body may come from a proxy.
        return {}
    return content if isinstance(content, dict) else {}


def _worker(content: Document) -> WorkerFigures:
    names = ("slots", "in_gateway", "checking_orders", "settled", "settled_per_s")
    return WorkerFigures(content["worker"], *(content[name] for name in names))
