"""The logs of a whole service at work: JSON lines, the correlation id of the request on each, and no secret."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from shared.config.settings import Settings, load_settings
from tests.support.api_client import VISA, card, order, paypal, token
from tests.support.processes import PaymentsProcess, Shop, processes
from tests.support.receivers import Received, receiver
from tests.support.servers import free_port
from tests.support.waiting import eventually

AMEX, CVC = "378282246310005", "9137"
SECRET = "secret-of-the-tests-with-more-than-32-bytes"
JSON = {"Content-Type": "application/json"}
# Requests that are refused, by their correlation id: a path and a body.
WRONG_BODIES: dict[str, tuple[str, Any]] = {
    "luhn": ("/payment-methods", card("4242424242424241", cvv=CVC)),
    "digits": ("/payment-methods", card(cvv="91379137")),
    "name": ("/payment-methods", {VISA: VISA}),
    "type": ("/payment-methods", {"type": VISA}),
    "torn": ("/payment-methods", f'{{"card_number": "{VISA}", "cvv": "{CVC}"'.encode()),
    "number": ("/payments", f'{{"amount": {VISA}}}'.encode()),
    "far": (f"/{VISA}", {"a": VISA}),
}
WRONG_PATHS = {"path": f"/payment-methods/{VISA}", "query": f"/payments?cursor={VISA}&user_id={VISA}"}


class Client:
    """A user of the service; the name of each request is its correlation id."""

    def __init__(self, http: httpx.AsyncClient, bearer: str) -> None:
        self._http = http
        self._bearer = bearer

    async def send(self, name: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        every = {"X-Correlation-ID": name, "Authorization": f"Bearer {self._bearer}"}
        content = body if isinstance(body, bytes) else None
        return await self._http.request(
            method, path, json=None if content else body, content=content, headers=every | headers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a service at work has logged, and what it must not have."""

    process: PaymentsProcess
    payment: dict[str, Any]
    webhook: Received
    secrets: list[str]

    @property
    def answered(self) -> dict[str, dict[str, Any]]:
        """The line about each request, by its correlation id."""
        return {line["correlation_id"]: line for line in self.process.lines("http.answered")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """`payments up` with requests of every kind, after its end."""
    folder = tmp_path_factory.mktemp("up")
    process = PaymentsProcess("up", folder, _settings(folder))
    bearer = token(SECRET, user_id=1)
    refresh = token(SECRET, user_id=1, type="refresh")
    base_url = f"http://127.0.0.1:{process.settings.port}/api/v1"
    with processes(process):
        await process.ready()
        async with receiver() as shop, httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=30) as http:
            client = Client(http, bearer)
            payment = await _pay(client, shop.url)
            await eventually(lambda: shop.requests)
            secrets = await _secrets(client)
            for name, (path, body) in WRONG_BODIES.items():
                assert (await client.send(name, "POST", path, body, **JSON)).is_client_error
            for name, path in WRONG_PATHS.items():
                assert (await client.send(name, "GET", path)).is_client_error
            for name, wrong in (("refresh", refresh), ("garbage", "x.y.z")):
                answer = await client.send(name, "GET", "/payments", Authorization=f"Bearer {wrong}")
                assert answer.status_code == 401
        process.terminate()
        assert await process.ended() == 0
    return Story(
        process=process, payment=payment, webhook=shop.requests[0], secrets=[*secrets, SECRET, bearer, refresh]
    )


def _settings(folder: Path) -> Settings:
    return load_settings(
        port=free_port(),
        database_url=f"sqlite:///{folder}/payments.db",
        jwt_secret_key=SECRET,
        payment_processing_delay_min=0,
        payment_processing_delay_max=5,
        simulator_seed="tests",
        log_level="DEBUG",
    )


async def _pay(client: Client, callback_url: str) -> dict[str, Any]:
    """Add methods and pay; return the payment when it has ended."""
    added = await client.send("add", "POST", "/payment-methods", card(AMEX, cvv=CVC), **{"Idempotency-Key": "k1"})
    await client.send("paypal", "POST", "/payment-methods", paypal("secret-shopper@example.com"))
    body = order(added.json()["id"], callback_url=callback_url)
    payment: dict[str, Any] = (await client.send("pay", "POST", "/payments", body, Prefer="wait=20")).json()
    assert payment["status"] in {"COMPLETED", "FAILED"}
    return payment


async def _secrets(client: Client) -> list[str]:
    """The secrets that the service gives out: of a user's callbacks and of an endpoint."""
    callback = await client.send("secret", "GET", "/callback-secret")
    admin = f"Bearer {token(SECRET, user_id=1, role='admin')}"
    endpoint = {"name": "n", "url": "https://x.example/?key=hunter2"}
    made = await client.send("endpoint", "POST", "/webhook-endpoints", endpoint, Authorization=admin)
    return [callback.json()["secret"], made.json()["secret"]]


def test_every_request_has_a_line_with_its_correlation_id(story: Story) -> None:
    sent = {"add", "paypal", "pay", "secret", "endpoint", *WRONG_BODIES, *WRONG_PATHS, "refresh", "garbage"}
    assert set(story.answered) == sent
    line = story.answered["pay"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/api/v1/payments", 201)
    assert line["duration_ms"] > 0


def test_every_line_about_a_payment_has_the_correlation_id_of_its_request(story: Story) -> None:
    lines = story.process.lines(payment_id=story.payment["id"])
    events = {line["event"] for line in lines}
    assert {"payment.accepted", "payment.claimed"} <= events
    assert {"payment.completed", "payment.failed"} & events
    assert {line.get("correlation_id") for line in lines} == {"pay"}
    assert story.webhook.headers["X-Correlation-ID"] == "pay"


def test_no_line_about_a_request_a_payment_or_a_delivery_is_without_a_correlation_id(story: Story) -> None:
    without = {line["event"] for line in story.process.lines() if "correlation_id" not in line}
    assert not {event for event in without if event.startswith(("http.", "payment.", "delivery."))}, without


def test_no_secret_and_no_card_is_in_the_output(story: Story) -> None:
    printed = story.process.output + story.process.errors
    for secret in (AMEX, "4242424242424241", "91379137", "secret-shopper", "hunter2", *story.secrets):
        assert secret not in printed, secret
    # They are in the request to paste that `payments up` greets with, on standard error.
    for shown_to_its_user_only in (VISA, "cvv"):
        assert shown_to_its_user_only not in story.process.output.lower()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_correlation_id_travels_from_the_request_through_the_logs_to_the_webhook(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(redis_url=None, payment_success_rate=1)
    up = PaymentsProcess("up", tmp_path / "up", settings)
    with processes(up):
        await up.ready()
        async with receiver() as shop_server, Shop(settings) as shop:
            await shop.add_card()
            answer = await shop.pay(callback_url=shop_server.url, headers={"X-Correlation-ID": "order-4711"})
            assert answer.headers["X-Correlation-ID"] == "order-4711"
            await eventually(lambda: shop_server.requests)
            [request] = shop_server.requests
            assert httpx.Headers(request.headers)["X-Correlation-ID"] == "order-4711"
            payment_id = answer.json()["id"]
            await eventually(lambda: up.lines("delivery.delivered"))
        for event in ("payment.claimed", "payment.completed", "delivery.delivered"):
            assert up.lines(event, payment_id=payment_id, correlation_id="order-4711"), event
        assert up.lines("http.answered", path="/api/v1/payments", correlation_id="order-4711")
