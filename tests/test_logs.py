"""The logs: JSON lines, the correlation id on every line of a request, and no secret in any of them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.main import _announce
from shared.config import DEVELOPMENT_SECRET, Settings, load_settings
from shared.logs import MASK, hidden, hide_secrets
from tests.api_client import VISA, card, order, paypal, token
from tests.processes import PaymentsProcess, processes
from tests.receivers import receiver
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoxfQ.c2lnbmF0dXJl"  # pragma: allowlist secret
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # pragma: allowlist secret


# -- what is hidden


@pytest.mark.parametrize(
    "text",
    [
        VISA,
        f"card {VISA}",
        f"card={VISA}&x=1",
        f"({VISA})",
        f"'{VISA}'",
        f'{{"card_number": "{VISA}"}}',
        f"the card {VISA}.",
        f"the cards {VISA}, 5555-5555-5555-4444; 378282246310005!",
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "/api/v1/payment-methods/4242424242424242",
        "3056930009020004",
        "6200000000000005123",
        f"\n{VISA}\n",
        f"-{VISA}",
        f"Authorization: Bearer {JWT}",
        f"token {JWT}, again {JWT}",
        f"secret {WEBHOOK_SECRET}.",
        f"(x) [SQL: INSERT] [parameters: ('{VISA}', 'anything')]",
        "failed\n[parameters: [('top secret',)]]\n(Background on this error at: ...)",
    ],
)
def test_card_numbers_tokens_and_parameters_are_hidden_in_any_text(text: str) -> None:
    shown = hidden(text)
    assert not re.search(r"\d{4}[ -]?\d{4}[ -]?\d{4}|\d{12}", shown), shown
    assert not any(secret in shown for secret in (JWT[:20], WEBHOOK_SECRET[:20], "top secret", "anything"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "payment.completed",
        "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00",
        "0199f0a2-7d7e-7c3a-9a51-123456789012",
        "12345678-1234-1234-1234-123456789012",
        "2026-11-22T19:28:10.123456Z",
        "2026-11-22 19:28:10",
        "took 1234567.891234567 ms",
        "amount 100000000",
        "0x7f7a06b69810 at 10.0.0.1:5432",
        "ch_1234567890123456",
        "order-4711 of 20261122",
        "a\nb\ttraceback, line 12",
    ],
)
def test_ids_times_and_amounts_are_not(text: str) -> None:
    assert hidden(text) == text


def test_values_whose_name_says_that_they_are_secret_are_masked_however_deep() -> None:
    line: dict[str, Any] = {
        "event": f"added {VISA}",
        "cvv": "123",
        "cvc": 123,
        "card_number": 42,
        "jwt_token": "x",
        "Authorization": "Bearer x",
        "webhook_signature": "v1,x",
        "client_secret": "x",
        "password": "x",
        "payment_id": "p",
        "status": 202,
        "nested": {"cvv": "123", "list": [{"token": "x", "note": VISA}, VISA], 7: VISA},
        "many": (VISA, 1, None),
        "error": ValueError(f"no such card {VISA}"),
    }
    shown = hide_secrets(None, "info", dict(line))
    assert shown == {
        **dict.fromkeys(
            [
                "cvv",
                "cvc",
                "card_number",
                "jwt_token",
                "Authorization",
                "webhook_signature",
                "client_secret",
                "password",
            ],
            MASK,
        ),
        "event": f"added {MASK}",
        "payment_id": "p",
        "status": 202,
        "nested": {"cvv": MASK, "list": [{"token": MASK, "note": MASK}, MASK], 7: MASK},
        "many": [MASK, 1, None],
        "error": f"no such card {MASK}",
    }


# -- the chain, in a process of its own: it is set up once and for all

SCRIPT = """
import asyncio, logging, sys, warnings
import httpx, structlog
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from api.admission import Admission
from api.middleware import Envelope
from shared.logs import configure_logs

configure_logs(level="INFO", form=sys.argv[1])
card, bearer = sys.argv[2], sys.argv[3]
log = structlog.get_logger("ours")
structlog.contextvars.bind_contextvars(correlation_id="order-4711")
log.info("plain", number=card, token=bearer, nested={"cvv": "9137", "n": card})
log.debug("quiet")
logging.getLogger("theirs").warning("said %s and %s", card, bearer)
logging.getLogger("httpx").info("quiet")
warnings.warn(f"watch out for {card}", stacklevel=1)

def fail(number):
    cvv = "9137"
    raise RuntimeError(f"no such card: {number}")

try:
    fail(card)
except RuntimeError as error:
    log.exception("caught")
    log.error("told", exc_info=error)
    logging.getLogger("theirs").exception("caught too")
try:
    with create_engine("sqlite://").connect() as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (:a, :b)"), {"a": card, "b": sys.argv[4]})
except SQLAlchemyError:
    log.exception("database")

async def defective(scope, receive, send):
    raise RuntimeError(f"{card} {bearer}")

async def ask():
    transport = httpx.ASGITransport(Envelope(defective, Admission(1, frozenset())))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.get("/payments", headers={"X-Correlation-ID": "of-the-defect"})
        print(answer.status_code, answer.headers["x-correlation-id"], answer.text, file=sys.stderr)

asyncio.run(ask())
"""


def said(form: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, form, VISA, JWT, "hunter2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_every_line_is_json_and_tells_no_secret_tracebacks_included() -> None:
    done = said("json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        assert {"event", "level", "timestamp"} <= set(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line["timestamp"])
    by_event = {line["event"]: line for line in lines}
    assert by_event["plain"] | {"number": MASK, "token": MASK, "nested": {"cvv": MASK, "n": MASK}} == by_event["plain"]
    assert by_event["plain"]["correlation_id"] == "order-4711"
    assert by_event[f"said {MASK} and {MASK}"]["logger"] == "theirs"
    assert any("watch out for" in event for event in by_event)
    assert "quiet" not in by_event
    for event in ("caught", "told", "caught too", "database"):
        assert by_event[event]["level"] == "error"
        assert by_event[event]["exception"].startswith("Traceback")
    assert f"no such card: {MASK}" in by_event["caught"]["exception"]
    assert "INSERT INTO nowhere" in by_event["database"]["exception"]
    assert by_event["http.defect"]["correlation_id"] == "of-the-defect"
    assert MASK in by_event["http.defect"]["exception"]
    told_no_secret(done.stdout)
    status, correlation_id, body = done.stderr.split(" ", 2)
    assert (status, correlation_id) == ("500", "of-the-defect")
    assert json.loads(body)["code"] == "internal_error"
    told_no_secret(done.stderr)


def test_lines_for_people_tell_no_secret_either() -> None:
    done = said("console")
    assert "no such card" in done.stdout
    assert "http.defect" in done.stdout
    told_no_secret(done.stdout)
    assert "Warning" not in done.stderr


def told_no_secret(text: str) -> None:
    for secret in (VISA, JWT, JWT.split(".")[1], "9137", "hunter2"):
        assert secret not in text


def test_ours_is_the_only_place_that_configures_logs() -> None:
    sources = [path for room in ("api", "worker", "shared", "cli") for path in (ROOT / room).rglob("*.py")]
    assert [path.name for path in sources if "structlog.configure(" in path.read_text()] == ["logs.py"]


@pytest.mark.parametrize(
    ("secret", "is_shown"), [(DEVELOPMENT_SECRET, True), ("a real secret of 32 bytes or more", False)]
)
def test_up_shows_a_token_only_if_anybody_could_have_made_it(
    secret: str, is_shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it says to people is in a container's log, and the platform runs us with ENVIRONMENT=development."""
    _announce(load_settings(jwt_secret_key=secret, environment="development"))
    said = capsys.readouterr().err
    assert ("TOKEN=eyJ" in said) is is_shown
    assert ("TOKEN=$(payments token" in said) is not is_shown


# -- a whole service


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_service_at_work_logs_json_with_correlation_ids_and_no_secrets(
    make_settings: Callable[..., Settings], tmp_path: Path, backend: str
) -> None:
    settings = make_settings(log_level="DEBUG")
    secret = settings.jwt_secret_key.get_secret_value()
    bearer = token(secret, user_id=1)
    refresh = token(secret, user_id=1, type="refresh")
    running = PaymentsProcess("up", tmp_path / "up", settings)
    base = f"http://127.0.0.1:{settings.port}"
    amex = card("378282246310005", cvv="9137")
    with processes(running):
        await running.ready()
        async with (
            receiver() as shop,
            httpx.AsyncClient(base_url=f"{base}/api/v1", trust_env=False, timeout=30) as client,
        ):

            async def send(name: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
                every = {"X-Correlation-ID": name, "Authorization": f"Bearer {bearer}"}
                content = body if isinstance(body, bytes) else None
                return await client.request(
                    method, path, json=None if content else body, content=content, headers=every | headers
                )

            added = await send("add", "POST", "/payment-methods", amex, **{"Idempotency-Key": "k1"})
            await send("paypal", "POST", "/payment-methods", paypal("secret-shopper@example.com"))
            method_id = added.json()["id"]
            body = order(method_id, callback_url=shop.url)
            payment = (await send("pay", "POST", "/payments", body, Prefer="wait=20")).json()
            assert payment["status"] in {"COMPLETED", "FAILED"}
            await eventually(lambda: shop.requests)
            callback = (await send("secret", "GET", "/callback-secret")).json()["secret"]
            admin = f"Bearer {token(secret, user_id=1, role='admin')}"
            endpoint = {"name": "n", "url": "https://x.example/?key=hunter2"}
            made = await send("endpoint", "POST", "/webhook-endpoints", endpoint, Authorization=admin)
            json_type = {"Content-Type": "application/json"}
            for name, path, wrong in (
                ("luhn", "/payment-methods", card("4242424242424241", cvv="9137")),
                ("digits", "/payment-methods", card(cvv="91379137")),
                ("name", "/payment-methods", {VISA: VISA}),
                ("type", "/payment-methods", {"type": VISA}),
                ("torn", "/payment-methods", f'{{"card_number": "{VISA}", "cvv": "9137"'.encode()),
                ("number", "/payments", f'{{"amount": {VISA}}}'.encode()),
                ("far", f"/{VISA}", {"a": VISA}),
            ):
                assert (await send(name, "POST", path, wrong, **json_type)).is_client_error
            for name, path in (
                ("path", f"/payment-methods/{VISA}"),
                ("query", f"/payments?cursor={VISA}&user_id={VISA}"),
            ):
                assert (await send(name, "GET", path)).is_client_error
            for name, wrong_bearer in (("refresh", refresh), ("garbage", "x.y.z")):
                assert (await send(name, "GET", "/payments", Authorization=f"Bearer {wrong_bearer}")).status_code == 401
        running.terminate()
        assert await running.ended() == 0
    lines = running.lines()  # each of them is JSON, or this would fail
    answered = {line["correlation_id"]: line for line in lines if line["event"] == "http.answered"}
    names = {"add", "paypal", "pay", "secret", "endpoint", "luhn", "digits", "name", "type", "torn", "number", "far",
             "path", "query", "refresh", "garbage"}  # fmt: skip
    assert names == set(answered)
    assert (answered["pay"]["method"], answered["pay"]["path"], answered["pay"]["status"]) == (
        "POST",
        "/api/v1/payments",
        201,
    )
    assert answered["pay"]["duration_ms"] > 0
    of_the_payment = [line for line in lines if line.get("payment_id") == payment["id"]]
    assert {"payment.accepted", "payment.claimed"} <= {line["event"] for line in of_the_payment}
    assert {"payment.completed", "payment.failed"} & {line["event"] for line in of_the_payment}
    assert {line.get("correlation_id") for line in of_the_payment} == {"pay"}
    assert shop.requests[0].headers["X-Correlation-ID"] == "pay"
    without = {line["event"] for line in lines if "correlation_id" not in line}
    assert not {event for event in without if event.startswith(("http.", "payment.", "delivery."))}, without
    for secret_value in (
        "378282246310005", "4242424242424241", "91379137", bearer, refresh, callback,
        made.json()["secret"], secret, "secret-shopper", "hunter2",
    ):  # fmt: skip
        assert secret_value not in running.output + running.errors, secret_value
    for shown_to_its_user_only in (VISA, "cvv"):  # in the request to paste that `payments up` greets with
        assert shown_to_its_user_only not in running.output.lower()
