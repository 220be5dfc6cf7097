"""Around every request: its correlation id, a cap on its body, one log line, its metrics. Plain ASGI, for speed."""

import re
from math import inf
from time import perf_counter

import structlog
from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.admission import Admission
from api.errors import Code, Problem, render
from shared import metrics
from shared.ids import new_id

log = structlog.get_logger("api.access")

TELL_EVERY_S = 1.0
BODY_BYTES_MAX = 64 * 1024
CORRELATION_ID = re.compile(r"[\x21-\x7e]{1,128}")
QUIET_PATHS = frozenset({"/health", "/health/ready", "/metrics"})  # asked every few seconds by machines


class Envelope:
    """The one middleware."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission
        self._turned_away = 0  # since the last line about it
        self._told_at = -inf

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
            await self._turn_away(scope, receive, send)
            return
        status = 0

        async def send_labelled(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Correlation-ID"] = correlation_id
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            try:
                if _announced_bytes(headers) > BODY_BYTES_MAX:
                    raise HTTPException(413)  # noqa: TRY301 - the same error as for a body that announces nothing
                await self._admission.turn(scope)
                await self._app(scope, _capped(receive), send_labelled)
            except HTTPException:
                await self._send_problem(Code.BODY_TOO_LARGE, scope, receive, send_labelled)
            except Exception:
                log.exception("http.defect", method=scope["method"], path=scope["path"])
                if not status:
                    await self._send_problem(Code.INTERNAL_ERROR, scope, receive, send_labelled)
            finally:
                self._admission.leave(scope)
            _note(scope, status, perf_counter() - started)

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send) -> None:
        """503 for as little work as can be: no line of its own in the log, but one a second that counts them."""
        metrics.shed.inc()
        self._turned_away += 1
        if (now := perf_counter()) - self._told_at > TELL_EVERY_S:
            log.warning("http.turned_away", count=self._turned_away)
            self._turned_away, self._told_at = 0, now
        answer = render(Problem(Code.OVERLOADED), path=scope["path"], correlation_id=scope["correlation_id"])
        answer.headers["X-Correlation-ID"] = scope["correlation_id"]
        await answer(scope, receive, send)

    async def _send_problem(self, code: Code, scope: Scope, receive: Receive, send: Send) -> None:
        answer = render(Problem(code), path=scope["path"], correlation_id=scope["correlation_id"])
        await answer(scope, receive, send)


def _announced_bytes(headers: Headers) -> int:
    announced = headers.get("content-length", "0")
    return int(announced) if announced.isascii() and announced.isdigit() else 0


def _capped(receive: Receive) -> Receive:
    """The same body, ending in 413 where it is larger than allowed: a chunked one announces no length."""
    received = 0

    async def receive_capped() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_BYTES_MAX:
            raise HTTPException(413)
        return message

    return receive_capped


def _note(scope: Scope, status: int, duration_s: float) -> None:
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
    """The template of the address; None if no route has it.

    A route knows itself without the prefix that it is mounted at, and prefixes have no parameters.
    """
    template: str | None = getattr(scope.get("route"), "path", None)
    if template is None:
        return None
    parts = scope["path"].split("/")
    return "/".join(parts[: len(parts) - template.count("/")]) + template
