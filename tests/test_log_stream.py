"""The stream of the log: it never raises, it waits for no reader that has stopped, and what it drops is counted."""

import fcntl
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from shared import metrics
from shared.log_limits import LINES_MAX, WINDOW_S, RepeatLimit, admits_record, limit_repeats, log_left_out
from shared.log_stream import IMPATIENT_S, LogStream, stream_of
from tests.support.manual_clock import ManualClock

PIPE_BYTES = 1 << 16


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def lost() -> float:
    count: float = metrics.log_lines_lost._value.get()
    return count


def test_lines_arrive_whole_and_in_order_also_long_ones(pipe: tuple[int, int]) -> None:
    notes: list[str] = []
    stream = LogStream(pipe[1], notify=notes.append)
    assert stream.write(b"first\n") == 6
    stream.write("sécond\n")
    stream.write(b"x" * 20_000 + b"\n")
    assert os.read(pipe[0], PIPE_BYTES) == "first\nsécond\n".encode() + b"x" * 20_000 + b"\n"
    assert notes == []


def test_a_reader_that_is_gone_is_reported_once_and_raises_nothing(pipe: tuple[int, int]) -> None:
    notes: list[str] = []
    stream = LogStream(pipe[1], notify=notes.append)
    os.close(pipe[0])
    before = lost()
    for _ in range(5):
        stream.write(b"line\n")
    stream.flush()
    assert len(notes) == 1
    assert "Broken pipe" in notes[0]
    assert lost() == before + 5


def test_a_full_disk_drops_lines_and_one_with_room_again_takes_them(pipe: tuple[int, int]) -> None:
    notes: list[str] = []
    full = os.open("/dev/full", os.O_WRONLY)
    stream = LogStream(full, notify=notes.append)
    stream.write(b"lost\n")
    assert "No space left" in notes[0]
    os.dup2(pipe[1], full)
    stream.write(b"kept\n")
    os.close(full)
    assert os.read(pipe[0], 100) == b"kept\n"
    assert len(notes) == 1


def test_a_reader_that_stops_costs_one_short_wait_and_gets_whole_lines_afterwards(pipe: tuple[int, int]) -> None:
    clock = ManualClock()
    notes: list[str] = []
    stream = LogStream(pipe[1], notify=notes.append, clock=clock)
    started = monotonic()
    # The last of these is cut off in the middle.
    for _ in range(1000):
        stream.write(b"y" * 9_999 + b"\n")
    assert monotonic() - started < 2
    assert len(notes) == 1
    assert "stopped reading" in notes[0]
    content = os.read(pipe[0], PIPE_BYTES)
    clock.now += IMPATIENT_S + 1
    stream.write(b"well again\n")
    content += os.read(pipe[0], PIPE_BYTES)
    assert content.splitlines()[-1] == b"well again"
    assert set(content.splitlines()[0]) == {ord("y")}


def test_threads_that_log_at_once_write_whole_lines_and_never_raise(pipe: tuple[int, int]) -> None:
    notes: list[str] = []
    stream = LogStream(pipe[1], notify=notes.append)
    with ThreadPoolExecutor(8) as threads:
        writes = [threads.submit(stream.write, f"{number:03} {'z' * 90}\n") for number in range(500)]
    assert all(write.exception() is None for write in writes)
    lines = os.read(pipe[0], PIPE_BYTES).splitlines()
    assert sorted(line[:3] for line in lines) == [f"{number:03}".encode() for number in range(500)]
    assert notes == []


def test_without_a_standard_output_everything_is_dropped() -> None:
    before = lost()
    stream_of(None).write(b"line\n")
    assert lost() == before + 1


# -- repeated warnings


def test_an_event_is_admitted_a_few_times_in_its_window_and_then_counted() -> None:
    clock = ManualClock()
    limit = RepeatLimit(clock)
    assert [limit.admits("a") for _ in range(LINES_MAX + 2)] == [True] * LINES_MAX + [False] * 2
    assert limit.admits("b"), "another event has a limit of its own"
    assert limit.take_left_out() == {"a": 2}
    assert limit.take_left_out() == {}
    clock.now += WINDOW_S
    assert limit.admits("a")


@pytest.mark.parametrize("level", ["warning", "error", "critical"])
def test_warnings_are_limited_and_what_is_left_out_is_logged(level: str) -> None:
    event = f"test.flood_{level}"
    passed = 0
    for _ in range(100):
        try:
            limit_repeats(None, level, {"event": event, "level": level})
            passed += 1
        except structlog.DropEvent:
            continue
    assert passed == LINES_MAX
    with capture_logs() as logs:
        log_left_out()
        log_left_out()
    assert [line["counts"][event] for line in logs] == [100 - LINES_MAX]
    assert metrics.log_lines_left_out.labels(event)._value.get() == 100 - LINES_MAX


@pytest.mark.parametrize("level", ["info", "debug"])
def test_lines_about_what_goes_well_are_never_left_out(level: str) -> None:
    line: dict[str, Any] = {"event": "test.normal", "level": level}
    assert all(limit_repeats(None, level, line) is line for _ in range(100))


def test_a_librarys_warnings_are_limited_together() -> None:
    def record(level: int, number: int) -> logging.LogRecord:
        return logging.LogRecord("test.library", level, __file__, number, f"message {number}", None, None)

    assert sum(admits_record(record(logging.WARNING, number)) for number in range(50)) == LINES_MAX
    assert all(admits_record(record(logging.INFO, number)) for number in range(50))
