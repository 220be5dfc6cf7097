"""Log lines for people: time, what happened and how it ended, with short ids at the end. Used with LOG_FORMAT=console.

A line never wraps at the width of the terminal: what does not fit goes on below, indented. Only a traceback keeps its
own lines. Text of clients must not reach the terminal with its control characters.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from time import monotonic
from typing import Any

from structlog import DropEvent
from structlog.typing import EventDict, WrappedLogger

WIDTH = 100
# As wide as the time and a blank.
INDENT = 9
PATH_WIDTH, PATH_MAX = 40, 80
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
# The last characters of an id: the first ones of a UUIDv7 are its time.
ID_CHARS = 6
# Every line of a request ends with this id, so it needs no name.
UNNAMED_ID = "correlation_id"
# Seconds. A GET that asks again within this time and hears the same status is a poll.
POLL_S = 10.0
# Addresses that are polled at once and remembered.
POLLS_MAX = 500
FAILED_FROM = 400

RESET = "\x1b[0m"
DIM, BOLD, RED, GREEN, YELLOW, CYAN = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"
LEVEL_STYLES = {"warning": YELLOW, "error": RED, "critical": RED}
STATUS_STYLES = {2: GREEN, 3: CYAN, 4: YELLOW, 5: RED}

type Word = tuple[str, str]
"""Text without blanks at its ends, and its style."""


class ConsoleRenderer:
    """Turns an event into a line for people (a processor of structlog).

    With `hides_polls`, a GET that repeats within POLL_S seconds with the same status is left out; the next line about
    its address says how often it was.
    """

    def __init__(
        self,
        *,
        is_coloured: bool,
        hides_polls: bool,
        width: Callable[[], int] = lambda: WIDTH,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._is_coloured = is_coloured
        self._polls = _Polls(clock) if hides_polls else None
        self._width = width

    def __call__(self, _logger: WrappedLogger, _method: str, line: EventDict) -> str:
        """Return the text of a line. Raises DropEvent for a poll."""
        line = dict(line)
        time = _local_time(line.pop("timestamp", ""))
        level, event = line.pop("level", "info"), _printable(line.pop("event", ""))
        exception = line.pop("exception", None)
        line.pop("logger", None)
        names = sorted((name for name in line if name == "id" or name.endswith("_id")), key=_place)
        ids = [_id_word(name, line.pop(name)) for name in names]
        words: list[Word] = [(level, LEVEL_STYLES[level])] if level in LEVEL_STYLES else []
        if event == "http.answered":
            words += self._answer(line)
        else:
            words += [(word, BOLD) for word in event.split(" ")]
        words += [(f"{name}={_value(value)}", "") for name, value in line.items()]
        rows = [self._paint(row) for row in _folded([*words, *ids], self._width() - INDENT)]
        text = f"\n{' ' * INDENT}".join(rows)
        head = self._paint([(time, DIM)])
        return f"{head} {text}" if exception is None else f"{head} {text}\n{_printable_lines(str(exception))}"

    def _answer(self, line: EventDict) -> Iterator[Word]:
        """Take what every answered request has out of `line`, and yield it in columns."""
        method, path, status, took_ms = (line.pop(name, "") for name in ("method", "path", "status", "duration_ms"))
        repeats = 0
        if self._polls is not None and method in {"GET", "HEAD"} and isinstance(status, int) and status < FAILED_FROM:
            seen = self._polls.seen(f"{method} {path}", status)
            if seen is None:
                raise DropEvent
            repeats = seen
        shown = _short_ids(_printable(str(path)))
        yield f"{method:<6}", ""
        yield f"{shown if len(shown) <= PATH_MAX else f'{shown[: PATH_MAX - 1]}…':<{PATH_WIDTH}}", ""
        yield f"{status}", STATUS_STYLES.get(status // 100, "") if isinstance(status, int) else ""
        yield f"{took_ms:>7} ms", ""
        if repeats:
            yield f"(and {repeats} times before)", DIM

    def _paint(self, words: list[Word]) -> str:
        if not self._is_coloured:
            return " ".join(text for text, _style in words).rstrip()
        runs = [(" ".join(text for text, _ in run), style) for style, run in groupby(words, key=itemgetter(1))]
        return " ".join(f"{style}{text}{RESET}" if style else text for text, style in runs)


class _Polls:
    """The requests that were answered lately, so that the repeats of a poll are known."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # The last status, when it came, and how many lines were left out.
        self._last: OrderedDict[str, tuple[int, float, int]] = OrderedDict()

    def seen(self, request: str, status: int) -> int | None:
        """Return None if the request repeats another one; else how many repeats were left out before it."""
        now = self._clock()
        last_status, last_at, left_out = self._last.pop(request, (0, 0.0, 0))
        is_repeat = last_status == status and now - last_at < POLL_S
        self._last[request] = (status, now, left_out + 1 if is_repeat else 0)
        if len(self._last) > POLLS_MAX:
            self._last.popitem(last=False)
        return None if is_repeat else left_out


def _folded(words: list[Word], width: int) -> list[list[Word]]:
    """Return the words in rows of at most `width` characters; a word that is longer is cut into several."""
    rows: list[list[Word]] = [[]]
    room = width
    for padded, style in words:
        text = padded if len(padded) <= width else padded.rstrip()
        for begin in range(0, max(1, len(text)), width):
            part = text[begin : begin + width]
            if rows[-1] and len(part.rstrip()) > room:
                rows.append([])
                room = width
            part = part if len(part) <= room else part.rstrip()
            rows[-1].append((part, style))
            room -= len(part) + 1
    return rows


def _local_time(timestamp: str) -> str:
    try:
        return datetime.fromisoformat(timestamp).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "--:--:--"


def _place(name: str) -> tuple[bool, str]:
    """Return the key that sorts ids by name, with the one that has no name at the end."""
    return name == UNNAMED_ID, name


def _id_word(name: str, value: Any) -> Word:
    text = _printable(str(value))
    short = text if len(text) <= 2 * ID_CHARS else f"…{text[-ID_CHARS:]}"
    return short if name == UNNAMED_ID else f"{name.removesuffix('_id')}:{short}", DIM


def _short_ids(path: str) -> str:
    return UUID.sub(lambda found: f"…{found.group()[-ID_CHARS:]}", path)


def _value(value: Any) -> str:
    if isinstance(value, str):
        text = _short_ids(_printable(value))
        return f'"{text}"' if " " in text or not text else text
    return _short_ids(_printable(str(value)))


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _printable_lines(text: str) -> str:
    return "\n".join(_printable(line.expandtabs()) for line in text.splitlines())


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
