"""Structured logs: one JSON object per line on standard output, with the values bound to the current context.

A log line holds an event and ids, and never a card number, a CVC, a token or a secret. Values whose names suggest one
are masked here, tracebacks carry no local variables, and errors of the database are logged without their parameters.
"""

import logging
import os
import re
import shutil
import sys
from functools import lru_cache
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.console_log import WIDTH, ConsoleRenderer
from shared.log_limits import admits_record, limit_repeats
from shared.log_stream import stream_of

SECRET_NAMES = re.compile(r"authorization|token|secret|password|cvv|cvc|card_number|signature", re.IGNORECASE)
CARD_NUMBER = re.compile(r"(?<!\w)(?<!\w[.-])\d(?:[ -]?\d){11,18}(?!\w|[.-]\w)")
BEARER = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*|whsec_[\w+/=-]+|sk_sim_\w+|(?<=/approve/)[\w-]+")
DATABASE_PARAMETERS = re.compile(r"\n?\[parameters: .*", re.DOTALL)
# A text that is shorter than the shortest card number need not be searched for one.
CARD_DIGITS_MIN = 12
# Names of values whose check is cached: a line has a dozen, and the code uses far fewer than this.
NAMES_CACHED = 1000
MASK = "[hidden]"
# Libraries whose lines below WARNING are dropped.
QUIET = ("arq", "aiosqlite", "asyncio", "uvicorn.access", "httpx", "httpcore", "alembic")


def configure_logs(*, level: str, form: str) -> None:
    """Send every log line of this process, those of libraries too, through one chain. Call this once, before all else.

    `form` is `json` or `console`. A line that cannot be written is dropped, and a warning is not repeated without end.
    """
    stream: Any = stream_of(sys.stdout)
    shared_chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    structlog.configure(
        processors=[structlog.processors.add_log_level, limit_repeats, *shared_chain, _renderer(form, level)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.BytesLoggerFactory(stream) if form == "json" else structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(admits_record)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _text_renderer(form, level)],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.processors.add_log_level, *shared_chain],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def hide_secrets(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Mask values whose name says that they are secret, and text that looks like a card number or a token."""
    for name, value in line.items():
        line[name] = _hidden_value(name, value)
    return line


def redact(text: str) -> str:
    """Return `text` without card numbers, tokens (those of links too), secrets, API keys and database parameters."""
    text = DATABASE_PARAMETERS.sub("", text) if "[parameters: " in text else text
    if "eyJ" in text or "whsec_" in text or "sk_sim_" in text or "/approve/" in text:
        text = BEARER.sub(MASK, text)
    return CARD_NUMBER.sub(MASK, text) if len(text) >= CARD_DIGITS_MIN else text


@lru_cache(maxsize=NAMES_CACHED)
def _is_secret(name: str) -> bool:
    return SECRET_NAMES.search(name) is not None


def _hidden_value(name: Any, value: Any) -> Any:
    if isinstance(name, str) and _is_secret(name):
        return MASK
    match value:
        case str():
            return redact(value)
        case BaseException():
            return redact(str(value))
        case dict():
            return {key: _hidden_value(key, item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_hidden_value(None, item) for item in value]
        case _:
            return value


def _renderer(form: str, level: str) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer(serializer=_dumps)
    return _console(level)


def _text_renderer(form: str, level: str) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer(serializer=lambda line, **options: _dumps(line, **options).decode())
    return _console(level)


def _console(level: str) -> Processor:
    is_terminal = sys.stdout.isatty()
    return ConsoleRenderer(
        is_coloured=is_terminal and "NO_COLOR" not in os.environ,
        hides_polls=level != "DEBUG",
        width=(lambda: shutil.get_terminal_size((WIDTH, 0)).columns) if is_terminal else (lambda: WIDTH),
    )


def _dumps(line: Any, **_options: Any) -> bytes:
    return orjson.dumps(line, default=str)
