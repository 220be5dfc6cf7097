"""Log lines for people: what they show in which order, that none wraps, and that polls do not wash the others away."""

import re
from typing import Any

import pytest
import structlog

from shared.console_log import DIM, GREEN, POLLS_MAX, RED, RESET, WIDTH, YELLOW, ConsoleRenderer
from tests.support.manual_clock import ManualClock

PAYMENT = "0199f0a2-7d7e-7c3a-9a51-0d4b1f2f6f00"
REQUEST = "0199f0a2-7d7e-7c3a-9a51-0d4bea446f54"
ANSWERED = {
    "event": "http.answered", "method": "POST", "path": "/api/v1/payments", "status": 202, "duration_ms": 12.3,
    "correlation_id": REQUEST,
}  # fmt: skip


def shown(line: dict[str, Any], *, is_coloured: bool = False) -> str:
    renderer = ConsoleRenderer(is_coloured=is_coloured, hides_polls=True)
    text = renderer(None, "info", {"timestamp": "2026-11-27T18:00:01.5Z", "level": "info", **line})
    assert re.match(r"(\x1b\[2m)?\d\d:\d\d:\d\d", text)
    return text.removeprefix(DIM)[9:].removeprefix(RESET).lstrip() if is_coloured else text[9:]


def test_a_request_is_its_method_path_status_and_time_with_its_id_at_the_end() -> None:
    assert shown(ANSWERED).split() == ["POST", "/api/v1/payments", "202", "12.3", "ms", "…446f54"]
    path = f"/api/v1/payments/{PAYMENT}/history"
    assert "/api/v1/payments/…2f6f00/history " in shown({**ANSWERED, "path": path})


@pytest.mark.parametrize(("status", "style"), [(202, GREEN), (404, YELLOW), (503, RED)])
def test_the_status_is_coloured_and_the_id_is_dim(status: int, style: str) -> None:
    text = shown({**ANSWERED, "status": status}, is_coloured=True)
    assert f"{style}{status}{RESET}" in text
    assert text.endswith(f"{DIM}…446f54{RESET}")
    assert "\x1b" not in shown({**ANSWERED, "status": status})


def test_ids_are_short_and_last_and_a_warning_says_so_first() -> None:
    line = {"event": "payment.completed", "payment_id": PAYMENT, "attempt": 1, "correlation_id": "order-4711"}
    assert shown(line) == "payment.completed attempt=1 payment:…2f6f00 order-4711"
    assert shown({**line, "level": "warning"}).startswith("warning payment.completed")
    assert shown({"event": "x", "level": "error"}) == "error x"


@pytest.mark.parametrize(
    "line",
    [
        {**ANSWERED, "path": "/api/v1/" + "x" * 2000},
        {**ANSWERED, "correlation_id": "c" * 128},
        {"event": "payment.failed", "reason": "word " * 60, "payment_id": PAYMENT},
        {"event": "x" * 300, "value": "y" * 300},
        {"event": "many", **{f"name_{number}": "value" for number in range(40)}},
    ],
)
@pytest.mark.parametrize("width", [40, WIDTH, 200])
def test_nothing_wraps(line: dict[str, Any], width: int) -> None:
    for is_coloured in (False, True):
        renderer = ConsoleRenderer(is_coloured=is_coloured, hides_polls=True, width=lambda: width)
        text = renderer(None, "info", {"timestamp": "2026-11-27T18:00:01Z", "level": "warning", **line})
        rows = re.sub(r"\x1b\[\d+m", "", text).split("\n")
        assert max(map(len, rows)) <= width
        assert all(row.startswith(" " * 9) for row in rows[1:])


def test_what_does_not_fit_is_not_lost() -> None:
    text = shown({"event": "x", "value": "".join(str(number) for number in range(300))})
    assert "".join(str(number) for number in range(300)) in text.replace(" ", "").replace("\n", "")


def test_a_client_cannot_write_to_the_terminal() -> None:
    for text in (
        shown({**ANSWERED, "path": "/\x1b[31m\r\n\x9b"}),
        shown({"event": "a\x1b]0;title\x07", "name": ["\x1b[2J"], "some_id": "\x1b"}),
        shown({"event": "x", "exception": "Traceback\n  \x1b[2J\n\tb"}),
    ):
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text) is None


def test_a_traceback_keeps_its_lines() -> None:
    assert shown({"event": "x", "exception": "Traceback\n  File x\nError: y"}) == "x\nTraceback\n  File x\nError: y"


# -- polls


def test_a_poll_is_shown_once_and_again_when_its_answer_changes_or_it_has_rested() -> None:
    clock = ManualClock()
    renderer = ConsoleRenderer(is_coloured=False, hides_polls=True, clock=clock)

    def ask(path: str = "/api/v1/payments/1", status: int = 200, method: str = "GET") -> str | None:
        try:
            return renderer(None, "info", {**ANSWERED, "method": method, "path": path, "status": status})
        except structlog.DropEvent:
            return None

    assert ask()
    for _ in range(20):
        clock.now += 5
        assert ask() is None
    assert ask("/api/v1/payments/2")
    assert ask(status=304)
    clock.now += 11
    assert "(and" not in (ask(status=304) or "")
    assert ask(status=304) is None
    clock.now += 11
    assert "(and 1 times before)" in (ask(status=304) or "")
    for _ in range(2):
        assert ask(method="POST")
        assert ask(status=404)
        assert ask(status=503)
    for number in range(POLLS_MAX + 1):
        ask(f"/{number}")
    assert ask("/0"), "what is remembered is bounded"


def test_for_debugging_every_request_is_shown() -> None:
    renderer = ConsoleRenderer(is_coloured=False, hides_polls=False)
    for _ in range(2):
        assert renderer(None, "info", {**ANSWERED, "method": "GET", "status": 200})
