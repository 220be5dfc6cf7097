"""The logs: JSON lines, the correlation id on every line of a request, and no secret in any of them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.greeting import greet
from shared.config.security import DEVELOPMENT_SECRET
from shared.config.settings import load_settings
from shared.logs import MASK, hide_secrets, redact
from tests.support.api_client import VISA

ROOT = Path(__file__).resolve().parent.parent
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoxfQ.c2lnbmF0dXJl"  # pragma: allowlist secret
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # pragma: allowlist secret
API_KEY = "sk_sim_7Qd2MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwEXAMPLE"  # pragma: allowlist secret


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
        f"Bearer {API_KEY}",
        f"/api/v1/payments/{API_KEY}?x={API_KEY}",
        f"key={API_KEY[:20]} of {{'key': '{API_KEY}'}}",
        f"(x) [SQL: INSERT] [parameters: ('{VISA}', 'anything')]",
        "failed\n[parameters: [('top secret',)]]\n(Background on this error at: ...)",
    ],
)
def test_card_numbers_tokens_and_parameters_are_hidden_in_any_text(text: str) -> None:
    shown = redact(text)
    assert not re.search(r"\d{4}[ -]?\d{4}[ -]?\d{4}|\d{12}", shown), shown
    secrets = (JWT[:20], WEBHOOK_SECRET[:20], API_KEY[:12], "top secret", "anything")
    assert not any(secret in shown for secret in secrets)


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
    assert redact(text) == text


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
from api.edge.admission import Admission
from api.edge.middleware import RequestContextMiddleware
from shared.logs import configure_logs

configure_logs(level="INFO", form=sys.argv[1])
card, bearer = sys.argv[2], sys.argv[3]
log = structlog.get_logger("ours")
structlog.contextvars.bind_contextvars(correlation_id="order-4711")
log.info("plain", number=card, token=bearer, nested={"cvv": "c-v-v", "n": card})
log.debug("quiet")
logging.getLogger("theirs").warning("said %s and %s", card, bearer)
logging.getLogger("httpx").info("quiet")
warnings.warn(f"watch out for {card}", stacklevel=1)

def fail(number):
    cvv = "c-v-v"
    raise RuntimeError(f"no such card: {number}")

try:
    fail(card)
except RuntimeError as error:
    log.exception("caught")
    log.error("passed on", exc_info=error)
    logging.getLogger("theirs").exception("caught too")
try:
    with create_engine("sqlite://").connect() as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (:a, :b)"), {"a": card, "b": sys.argv[4]})
except SQLAlchemyError:
    log.exception("database")

async def defective(scope, receive, send):
    raise RuntimeError(f"{card} {bearer}")

async def ask():
    app = RequestContextMiddleware(defective, Admission(1, frozenset()), is_stopping=lambda: False)
    transport = httpx.ASGITransport(app)
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
    for event in ("caught", "passed on", "caught too", "database"):
        assert by_event[event]["level"] == "error"
        assert by_event[event]["exception"].startswith("Traceback")
    assert f"no such card: {MASK}" in by_event["caught"]["exception"]
    assert "INSERT INTO nowhere" in by_event["database"]["exception"]
    assert by_event["http.defect"]["correlation_id"] == "of-the-defect"
    assert MASK in by_event["http.defect"]["exception"]
    assert_no_secret(done.stdout)
    status, correlation_id, body = done.stderr.split(" ", 2)
    assert (status, correlation_id) == ("500", "of-the-defect")
    assert json.loads(body)["code"] == "internal_error"
    assert_no_secret(done.stderr)


def test_lines_for_people_have_no_secret_either() -> None:
    done = said("console")
    assert "no such card" in done.stdout
    assert "http.defect" in done.stdout
    assert_no_secret(done.stdout)
    assert "Warning" not in done.stderr


def assert_no_secret(text: str) -> None:
    # Nothing that a time or an id may have by chance: four digits are in a microsecond now and then.
    for secret in (VISA, JWT, JWT.split(".")[1], "c-v-v", "hunter2"):
        assert secret not in text


def test_ours_is_the_only_place_that_configures_logs() -> None:
    sources = [path for room in ("api", "worker", "shared", "cli") for path in (ROOT / room).rglob("*.py")]
    assert [path.name for path in sources if "structlog.configure(" in path.read_text()] == ["logs.py"]


@pytest.mark.parametrize(
    ("secret", "is_shown"), [(DEVELOPMENT_SECRET, True), ("a real secret of 32 bytes or more", False)]
)
def test_up_shows_a_token_only_if_its_secret_is_public(
    secret: str, is_shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it says to people is in a container's log, and the platform runs us with ENVIRONMENT=development."""
    greet(load_settings(jwt_secret_key=secret, environment="development"))
    said = capsys.readouterr().err
    assert ("TOKEN=eyJ" in said) is is_shown
    assert ("TOKEN=$(payments token" in said) is not is_shown


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],  # noqa: S104
)
def test_up_shows_a_url_that_can_be_pasted(host: str, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    greet(load_settings(host=host, port=8010, jwt_secret_key="j" * 32, data_key="d" * 32))
    assert f"on http://{url}:8010\n" in capsys.readouterr().err
