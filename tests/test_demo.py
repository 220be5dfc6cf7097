"""The demo judges what it shows, and leaves nothing behind, however it ends."""

import asyncio
import io
import json
import signal
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from rich.console import Console
from standardwebhooks import Webhook

from cli.demo.receiver import Receiver
from cli.demo.results import Checks, Result, Spread, summarize
from cli.demo.view import Moment, View
from cli.local.service import LOG_TAIL_LINES, clean_environment, telling_lines
from cli.percentiles import percentile
from shared.keyring import new_webhook_secret
from tests.support.commands import CONTROL, ENDS_MAX_S, Command, command
from tests.support.loads import parsed

# None of them may reach the demo.
SETTINGS_OF_THE_SHELL = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
    "redis_url": "redis://127.0.0.1:1",
    "PAYMENT_SUCCESS_RATE": "0",
    "JWT_SECRET_KEY": "another-secret-with-at-least-32-bytes-in-it",
    "LOG_LEVEL": "nonsense",
}
DEMO_MAX_S = 90


def demo(printed: Path, *arguments: str) -> AbstractContextManager[Command]:
    return command(printed, "demo", *arguments, settings=SETTINGS_OF_THE_SHELL)


@pytest.mark.slow
def test_the_demo_succeeds_whatever_the_shell_says_and_leaves_nothing_behind(tmp_path: Path) -> None:
    began, picture = time.monotonic(), tmp_path / "demo.svg"
    with demo(tmp_path / "printed", "--picture", str(picture)) as running:
        assert running.ends_clean(DEMO_MAX_S) == 0, running.output
        assert time.monotonic() - began < DEMO_MAX_S
        assert len(running.family) >= 2, "the service and its Valkey"
    assert "Everything happened as expected" in running.output
    assert "Webhooks received and verified: 100 of 100" in running.output
    assert CONTROL.search(running.output) is None
    # The name of the picture is as long as the test's folder.
    assert all(len(line) <= 80 for line in running.output.splitlines() if not line.startswith("Written: "))
    drawn = picture.read_text()
    assert parsed(drawn).tag.endswith("svg")
    assert "Everything happened as expected:" in drawn
    assert "A customer who approves" in drawn


def test_a_picture_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with demo(tmp_path / "printed", "--picture", str(tmp_path / "nowhere" / "demo.svg")) as running:
        assert running.ends_clean() == 2
    assert "there is no folder" in running.output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    with demo(tmp_path / "printed") as running:
        running.reaches("One payment with each kind")
        running.process.send_signal(number)
        assert running.ends_clean(ENDS_MAX_S) == 130, running.output
        assert len(running.family) >= 2
    assert "Everything is stopped." in running.output
    assert "Traceback" not in running.output


@pytest.mark.slow
def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    with demo(tmp_path / "printed") as running:
        running.reaches("One payment with each kind")
        running.process.kill()
        assert running.ends(ENDS_MAX_S) == -signal.SIGKILL
        assert len(running.family) >= 2


@pytest.mark.slow
def test_a_demo_whose_service_dies_says_so_and_fails(tmp_path: Path) -> None:
    with demo(tmp_path / "printed") as running:
        running.reaches("One payment with each kind")
        (service,) = psutil.Process(running.process.pid).children()
        service.kill()
        assert running.ends(ENDS_MAX_S) == 1
    assert "Not as expected" in running.output
    assert "expected 0, found -9" in running.output
    assert '"api.listening"' in running.output, "the end of the service's log"


def test_nothing_expected_is_no_success() -> None:
    assert Checks().exit_code == 1


def test_one_broken_expectation_fails_the_demo_and_says_why() -> None:
    checks = Checks()
    assert checks.equal("the first", expected=1, found=1)
    assert checks.exit_code == 0
    assert not checks.equal("the second", expected="COMPLETED", found="FAILED")
    checks.fail("the third", "it broke")
    assert checks.exit_code == 1
    assert checks.held == 1
    assert [(broken.expectation, broken.reason) for broken in checks.broken] == [
        ("the second", "expected COMPLETED, found FAILED"),
        ("the third", "it broke"),
    ]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([7], 50, 7), ([7], 99, 7), ([3, 1, 2], 50, 2), (range(1, 101), 50, 50), (range(1, 101), 99, 99), ([1, 2], 0, 1)],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def a_result(method_type: str, status: str, failure_code: str | None = None, *, webhook_ms: float | None = 5) -> Result:
    return Result(
        method_type=method_type,
        status=status,
        failure_code=failure_code,
        accept_ms=10,
        settle_ms=2000,
        webhook_ms=webhook_ms,
    )


def test_the_summary_counts_every_outcome_by_method() -> None:
    summary = summarize(
        [
            a_result("PAYPAL", "FAILED", "network_error"),
            a_result("CREDIT_CARD", "COMPLETED"),
            a_result("CREDIT_CARD", "COMPLETED"),
            a_result("DEBIT_CARD", "COMPLETED", webhook_ms=None),
        ],
        inside_ms=[],
    )
    assert [(outcome.status, outcome.failure_code, outcome.by_method) for outcome in summary.outcomes] == [
        ("COMPLETED", None, {"CREDIT_CARD": 2, "DEBIT_CARD": 1}),
        ("FAILED", "network_error", {"PAYPAL": 1}),
    ]
    assert (summary.payments, summary.webhooks) == (4, 3)
    assert summary.settle == Spread(2000, 2000, 2000)
    assert summary.accept_inside is None


def test_no_setting_of_the_shell_reaches_the_service() -> None:
    shell = {"PATH": "bin", "Port": "80", "LANG": "C", **SETTINGS_OF_THE_SHELL}
    assert clean_environment(shell) == {"PATH": "bin", "LANG": "C"}


def test_the_log_shown_keeps_earlier_trouble() -> None:
    trouble = '{"event":"payment.crashed","level":"error"}'
    routine = ['{"event":"http.answered","level":"info"}'] * (LOG_TAIL_LINES + 5)
    assert telling_lines([trouble, *routine]) == [trouble, *routine[:LOG_TAIL_LINES]]
    assert telling_lines([]) == []


async def test_the_receiver_counts_only_what_the_right_secret_signed() -> None:
    secret, body = new_webhook_secret(), '{"type": "payment.completed", "data": {"payment": {"id": "p1"}}}'
    async with Receiver() as receiver, httpx.AsyncClient(trust_env=False) as client:
        receiver.secrets["endpoint"] = secret
        forged = await client.post(
            receiver.url_for("endpoint"), content=body, headers=signed(new_webhook_secret(), body)
        )
        assert forged.status_code == 400
        assert await receiver.arrival("p1", "endpoint", timeout_s=0) is None
        assert len(receiver.refused) == 1
        for _ in range(2):  # a delivery may come twice
            answer = await client.post(receiver.url_for("endpoint"), content=body, headers=signed(secret, body))
            assert answer.status_code == 204
        arrival = await receiver.arrival("p1", "endpoint", timeout_s=1)
        assert arrival is not None
        assert arrival.event_type == "payment.completed"
        assert await receiver.arrival("p1", "callback", timeout_s=0) is None


async def test_a_wait_for_a_webhook_ends_when_it_arrives() -> None:
    secret, body = new_webhook_secret(), '{"type": "payment.failed", "data": {"payment": {"id": "p2"}}}'
    async with Receiver() as receiver, httpx.AsyncClient(trust_env=False) as client, asyncio.TaskGroup() as waiting:
        receiver.secrets["callback"] = secret
        arrival = waiting.create_task(receiver.arrival("p2", "callback", timeout_s=30))
        await client.post(receiver.url_for("callback"), content=body, headers=signed(secret, body))
    found = arrival.result()
    assert found is not None
    assert found.kind == "callback"


async def test_the_receiver_tells_the_webhooks_of_one_payment_apart() -> None:
    secret = new_webhook_secret()
    events: list[tuple[str, dict[str, str] | None]] = [
        ("refund.created", {"id": "r1"}),
        ("refund.created", {"id": "r2"}),
        ("payment.refunded", {"id": "r2"}),
        ("payment.completed", None),
    ]
    async with Receiver() as receiver, httpx.AsyncClient(trust_env=False) as client:
        receiver.secrets["endpoint"] = secret
        for number, (event_type, refund) in enumerate(events):
            data = {"payment": {"id": "p3"}} | ({"refund": refund} if refund else {})
            body = json.dumps({"type": event_type, "data": data})
            headers = signed(secret, body, webhook_id=f"msg_{number}")
            answer = await client.post(receiver.url_for("endpoint"), content=body, headers=headers)
            assert answer.status_code == 204

        async def found(**wanted: str) -> tuple[str, object] | None:
            arrival = await receiver.arrival("p3", "endpoint", timeout_s=0, **wanted)
            return None if arrival is None else (arrival.event_type, arrival.refund)

        assert await found() == ("refund.created", {"id": "r1"})
        assert await found(event_type="refund.created", refund_id="r2") == ("refund.created", {"id": "r2"})
        assert await found(event_type="payment.refunded") == ("payment.refunded", {"id": "r2"})
        assert await found(event_type="payment.completed") == ("payment.completed", None)
        assert await found(event_type="payment.completed", refund_id="r1") is None
        assert await found(event_type="payment.failed") is None


def signed(secret: str, body: str, *, webhook_id: str = "msg_1") -> dict[str, str]:
    now = datetime.now(UTC)
    signature = Webhook(secret).sign(webhook_id, now, body)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
        "content-type": "application/json",
    }


def test_a_pipe_gets_plain_lines_in_the_order_of_time() -> None:
    printed = io.StringIO()
    view = View(Console(file=printed, width=80, highlight=False))
    began = datetime(2026, 1, 1, tzinfo=UTC)
    moments = [
        Moment(began + timedelta(milliseconds=1500), "worker", "gateway_approved", "COMPLETED"),
        Moment(began + timedelta(milliseconds=3), "api", "accepted", "PENDING", "a note"),
    ]
    view.journey("CREDIT_CARD", ["a fact"], began, moments)
    with view.waiting("Not shown"), view.bars(100, ("accepted", "ended")) as bars:
        for name in ("accepted", "ended"):
            for _ in range(100):
                bars.advance(name)
    assert CONTROL.search(printed.getvalue()) is None
    assert printed.getvalue().splitlines() == [
        "",
        "CREDIT_CARD",
        "     3 ms  api       accepted                    PENDING     a note",
        "  1500 ms  worker    gateway_approved            COMPLETED",
        "          a fact",
        "",
        "  of 100: 100 accepted, 25 ended",
        "  of 100: 100 accepted, 50 ended",
        "  of 100: 100 accepted, 75 ended",
        "  of 100: 100 accepted, 100 ended",
    ]


def test_the_end_lists_what_broke_and_the_log_tail() -> None:
    printed = io.StringIO()
    checks = Checks()
    checks.fail("payment [1] ends", "it is still PENDING")
    View(Console(file=printed, width=80, highlight=False)).verdict(checks, took_s=1, log=['{"event":"x"}'])
    assert "Not as expected: 1 of 1 checks\n  payment [1] ends: it is still PENDING\n" in printed.getvalue()
    assert '{"event":"x"}' in printed.getvalue()
