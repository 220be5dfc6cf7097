"""The load's client: requests to the API with aiohttp, which costs a third of what httpx does.

It judges nothing and repeats nothing: that is the business of who sends.
"""

import contextlib
import resource
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import aiohttp
import orjson

from cli.demo_client import card
from shared.lifecycle import MethodType

API = "/api/v1"
REQUEST_TIMEOUT_S = 10
KEEPALIVE_S = 2  # sooner than the service hangs up, lest a request meets a connection that is being closed
PAGE = 100  # the most that a list answers at once
FILES_WANTED = 4096  # a connection is an open file, and some systems allow 256 unless asked
NUMBERS = {MethodType.CREDIT_CARD: "4242424242424242", MethodType.DEBIT_CARD: "4000056655665556"}  # follow the rate

type Document = dict[str, Any]


class NoAnswer(Exception):
    """Nobody knows what became of the request."""


class Unusable(Exception):
    """The service answered something that the load cannot go on with; the text is for people."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said."""

    status: int
    content: Document

    @property
    def is_success(self) -> bool:
        """It was done."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own numbers

    @property
    def words(self) -> str:
        """The status, and the code of a problem."""
        return f"{self.status} {self.content.get('code', '')}".rstrip()


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """One worker, as it says itself."""

    name: str
    slots: int
    in_gateway: int
    settled: int  # since it started
    settled_per_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What `GET /stats` says."""

    computed_at: float  # unix s, by the service's clock
    queue_depth: int
    in_flight: int  # PROCESSING: in the gateway, or waiting for another try or for the record
    oldest_pending_s: float
    webhook_backlog: int
    settled_per_s: float | None  # None, as with the workers: the service does not know
    workers: tuple[WorkerFigures, ...] | None

    @property
    def unsettled(self) -> int:
        """Payments that are not terminal."""
        return self.queue_depth + self.in_flight

    @classmethod
    def of(cls, content: Document) -> Self:
        """The figures of an answer."""
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
    """One service, asked by whoever has a token."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def ask(
        self,
        method: str,
        path: str,
        token: str,
        *,
        content: Document | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer, whatever it says. Raises NoAnswer if none comes within REQUEST_TIMEOUT_S."""
        bearer = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if content is None else orjson.dumps(content)
        try:
            async with self._session.request(
                method, self._url + path, data=data, params=query, headers=bearer | dict(headers or {})
            ) as answer:
                return Answer(answer.status, _document(await answer.read()))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NoAnswer(type(error).__name__) from error

    async def pay(self, token: str, intent: Document, *, key: str) -> Answer:
        """Send a payment intent."""
        headers = {"Idempotency-Key": key, "X-Correlation-ID": key}
        return await self.ask("POST", f"{API}/payments", token, content=intent, headers=headers)

    async def get(self, path: str, token: str, query: Mapping[str, str] | None = None) -> Document:
        """What is there. Raises NoAnswer, or Unusable if the service does not show it."""
        answer = await self.ask("GET", API + path, token, query=query)
        if not answer.is_success:
            raise Unusable(f"GET {API}{path} answered {answer.words}")
        return answer.content

    async def figures(self, token: str) -> Figures | None:
        """The live figures; None if the token may not see them. Raises NoAnswer or Unusable."""
        answer = await self.ask("GET", f"{API}/stats", token)
        if answer.status in {403, 404}:
            return None
        if not answer.is_success:
            raise Unusable(f"GET {API}/stats answered {answer.words}")
        return Figures.of(answer.content)

    async def is_ready(self) -> bool:
        """The service says that it has all it needs to take and to process payments."""
        try:
            answer = await self.ask("GET", "/health/ready", "")
        except NoAnswer:
            return False
        checks = answer.content.get("checks", {})
        return answer.is_success and checks.get("database") == checks.get("redis") == "ready"

    async def add_method(self, token: str, method: MethodType) -> Document:
        """Store a payment method that no test rule touches; also if it was there before."""
        is_card = method in NUMBERS
        details = card(NUMBERS[method]) if is_card else {"email": "load@example.com"}
        content = {"type": method.value, "payment_details": details}
        answer = await self.ask("POST", f"{API}/payment-methods", token, content=content)
        if not answer.is_success:
            raise Unusable(f"a payment method was refused: {answer.words}")
        return answer.content


@asynccontextmanager
async def open_api(url: str, *, connections_max: int) -> AsyncIterator[Api]:
    """A client for the service at `url`; no proxy of the environment comes between."""
    _allow_open_files(FILES_WANTED)
    connector = aiohttp.TCPConnector(limit=connections_max, keepalive_timeout=KEEPALIVE_S)
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Api(url, session)


def unix_s(text: str) -> float:
    """A time of the API."""
    return datetime.fromisoformat(text).timestamp()


def _allow_open_files(wanted: int) -> None:
    """Raise our own limit as far as the system lets us; processes started later inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        with contextlib.suppress(ValueError, OSError):  # then requests beyond the limit are answered by nobody
            resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def _document(body: bytes) -> Document:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}  # of a proxy, say
    return content if isinstance(content, dict) else {}


def _worker(content: Document) -> WorkerFigures:
    names = ("slots", "in_gateway", "settled", "settled_per_s")
    return WorkerFigures(content["worker"], *(content[name] for name in names))
