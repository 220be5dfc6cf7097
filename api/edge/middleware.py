"""The outermost middleware: correlation id, admission, body limit, access log and metrics. Plain ASGI, for speed."""

import re
from math import inf
from time import perf_counter

import structlog
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.edge.admission import Admission
from api.paths import QUIET_PATHS
from api.problems import Code, Problem, render
from shared import metrics
from shared.ids import new_id

log = structlog.get_logger("api.access")

# Seconds between two log lines about refused intents.
LOG_EVERY_S = 1.0
# Several times the largest body that is valid.
BODY_BYTES_MAX = 64 * 1024
CORRELATION_ID = re.compile(r"[\x21-\x7e]{1,128}")


class RequestContextMiddleware:
    """Gives every request a correlation id, admission control, a body limit, a log line and metrics."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission
        # Intents refused since the last log line about them.
        self._refused_count = 0
        self._logged_at = -inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        headers = Headers(scope=scope)
        correlation_id = headers.get("x-correlation-id", "")
        if not CORRELATION_ID.fullmatch(correlation_id):
            correlation_id = str(new_id())
        scope["correlation_id"] = correlation_id
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
                if _announced_bytes(headers) > BODY_BYTES_MAX:
                    raise HTTPException(413)  # noqa: TRY301 - the same error as for a body that announces nothing
                await self._admission.wait_for_start(scope)
                await self._app(scope, _limited(receive), send_with_headers)
            except HTTPException:
                await self._send_problem(Code.BODY_TOO_LARGE, scope, receive, send_with_headers)
            except Exception:
                log.exception("http.defect", method=scope["method"], path=scope["path"])
                if not status:
                    await self._send_problem(Code.INTERNAL_ERROR, scope, receive, send_with_headers)
            finally:
                self._admission.leave(scope)
            _log_and_measure(scope, status, perf_counter() - started)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503 with as little work as possible. One log line per second counts the refusals."""
        metrics.shed.inc()
        self._refused_count += 1
        if (now := perf_counter()) - self._logged_at > LOG_EVERY_S:
            log.warning("http.overload_refused", count=self._refused_count)
            self._refused_count, self._logged_at = 0, now
        answer = render(Problem(Code.OVERLOADED), path=scope["path"], correlation_id=scope["correlation_id"])
        answer.headers["X-Correlation-ID"] = scope["correlation_id"]
        await answer(scope, receive, send)

    async def _send_problem(self, code: Code, scope: Scope, receive: Receive, send: Send) -> None:
        answer = render(Problem(code), path=scope["path"], correlation_id=scope["correlation_id"])
        await answer(scope, receive, send)


def _announced_bytes(headers: Headers) -> int:
    announced = headers.get("content-length", "0")
    return int(announced) if announced.isascii() and announced.isdigit() else 0


def _limited(receive: Receive) -> Receive:
    """Return a `receive` that raises 413 once the body is above the limit: a chunked body announces no length."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_BYTES_MAX:
            raise HTTPException(413)
        return message

    return receive_limited


def _log_and_measure(scope: Scope, status: int, duration_s: float) -> None:
    route = _route(scope)
    method = scope["method"] if route is not None else "other"
    metrics.http_requests.labels(method, route or "unknown", status).inc()
    metrics.http_request_seconds.labels(method, route or "unknown").observe(duration_s)
    if scope["path"] not in QUIET_PATHS:
        log.info(
            "http.answered",
            method=scope["method"],
            path=scope["path"],
            status=status,
            duration_ms=round(duration_s * 1000, 1),
        )


def _route(scope: Scope) -> str | None:
    """Return the path template of the route, with the prefix of its mount; None if no route matches.

    A route knows its template without the prefix. Prefixes have no parameters, so the path begins with the prefix.
    """
    template: str | None = getattr(scope.get("route"), "path", None)
    if template is None:
        return None
    parts = scope["path"].split("/")
    return "/".join(parts[: len(parts) - template.count("/")]) + template
