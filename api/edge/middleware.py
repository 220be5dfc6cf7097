"""The outermost middleware: correlation id, admission, access log and metrics. Plain ASGI, for speed."""

import asyncio
import re
from collections.abc import Callable
from math import inf
from time import perf_counter

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.edge.access_log import ASKED, log_and_measure
from api.edge.admission import Admission
from api.paths import ROOT_PATH, shown_path
from api.problems import Code, Problem, render
from shared import metrics
from shared.ids import new_id

log = structlog.get_logger("api.access")

# Seconds between two log lines about refused intents.
LOG_EVERY_S = 1.0
# Methods that change nothing (RFC 9110, 9.2.1).
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
CORRELATION_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestContextMiddleware:
    """Gives every request a correlation id, admission control, a log line and metrics."""

    def __init__(
        self, app: ASGIApp, admission: Admission, *, is_stopping: Callable[[], bool], root_path: str = ""
    ) -> None:
        self._app = app
        self._admission = admission
        self._is_stopping = is_stopping
        self._root_path = root_path
        # Intents refused since the last log line about them.
        self._refused_count = 0
        self._logged_at = -inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        if scope["method"] == "HEAD":
            scope = _as_get(scope)
        headers = Headers(scope=scope)
        correlation_id = headers.get("x-correlation-id", "")
        if not CORRELATION_ID.fullmatch(correlation_id):
            correlation_id = str(new_id())
        scope["correlation_id"] = correlation_id
        if self._root_path:
            scope[ROOT_PATH] = self._root_path
        if not self._admission.enter(scope):
            await self._refuse(scope, receive, send)
            return
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Correlation-ID"] = correlation_id
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            try:
                await self._admission.wait_for_start(scope)
                await self._app(scope, receive, send_with_headers)
            except asyncio.CancelledError:
                if status or not self._is_stopping():
                    raise
                # The process ends, and this request has taken longer than the server waits for it.
                await self._send_problem(_unfinished(scope), scope, receive, send_with_headers)
            except Exception:
                log.exception("http.defect", method=scope["method"], path=scope["path"])
                if not status:
                    await self._send_problem(Problem(Code.INTERNAL_ERROR), scope, receive, send_with_headers)
            finally:
                self._admission.leave(scope)
            log_and_measure(scope, status, perf_counter() - started)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503 with as little work as possible. One log line per second counts the refusals."""
        metrics.shed.inc()
        self._refused_count += 1
        if (now := perf_counter()) - self._logged_at > LOG_EVERY_S:
            log.warning("http.overload_refused", count=self._refused_count)
            self._refused_count, self._logged_at = 0, now
        answer = render(Problem(Code.OVERLOADED), path=shown_path(scope), correlation_id=scope["correlation_id"])
        answer.headers["X-Correlation-ID"] = scope["correlation_id"]
        await answer(scope, receive, send)

    async def _send_problem(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        answer = render(problem, path=shown_path(scope), correlation_id=scope["correlation_id"])
        await answer(scope, receive, send)


def _unfinished(scope: Scope) -> Problem:
    """Return what a client learns about a request whose work may or may not have been done."""
    return Problem(Code.UNAVAILABLE if scope["method"] in SAFE_METHODS else Code.OUTCOME_UNKNOWN)


def _as_get(scope: Scope) -> Scope:
    """Return a HEAD request as the GET that it stands for, in a scope of its own (RFC 9110, 9.3.2).

    The server sees the HEAD in its own scope and leaves out the body. A HEAD never waits, so it has no preference.
    """
    headers = [(name, value) for name, value in scope["headers"] if name != b"prefer"]
    return {**scope, "method": "GET", "headers": headers, ASKED: "HEAD"}
