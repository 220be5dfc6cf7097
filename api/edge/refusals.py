"""Requests that the HTTP protocol refuses. The application answers them, so that they are logged and counted."""

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from api.paths import shown_path
from api.problems import KINDS, Code, Problem, render
from shared import metrics
from shared.ids import new_id
from shared.log_limits import UNREAD

log = structlog.get_logger("api.access")

# The member of the ASGI scope with the Problem to answer with, instead of running the application's route, or None.
REFUSED = "payments.refused"


class RefusalMiddleware:
    """The innermost middleware. It answers what the protocol refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        refused: Problem | None = scope.get(REFUSED)
        if refused is None:
            await self._app(scope, receive, send)
        else:
            answer = render(refused, path=shown_path(scope), correlation_id=scope["correlation_id"])
            await answer(scope, receive, send)


def response_without_request(problem: Problem) -> bytes:
    """Return the bytes of the response to a request without a readable head: the application cannot answer it."""
    status = KINDS[problem.code].status
    metrics.http_requests.labels("other", "unknown", status).inc()
    if UNREAD.admits("http.unreadable"):
        log.info("http.unreadable", status=status)
    correlation_id = str(new_id())
    answer = render(problem, path="", correlation_id=correlation_id)
    answer.headers["X-Correlation-ID"] = correlation_id
    lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in answer.raw_headers)]
    return b"".join((*lines, b"connection: close\r\n\r\n", bytes(answer.body)))


def late() -> Problem:
    """Return why a request is refused that takes too long to arrive."""
    return Problem(Code.REQUEST_TIMEOUT)


def full() -> Problem:
    """Return why a request is refused whose bytes are needed for others."""
    return Problem(Code.OVERLOADED, "Too many requests are arriving slowly. Send the request again.")


def stopping() -> Problem:
    """Return why a request is refused that has not arrived when the process ends."""
    return Problem(Code.UNAVAILABLE, "The service is stopping. Send the request again.")
