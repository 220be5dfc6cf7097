"""Requests that the HTTP protocol refuses. All of them are counted, and a limited number is logged.

The application answers those that it has something to add to. All others cost as little as possible, as anybody may
send thousands of them.
"""

import re
from collections.abc import Iterable

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from api.edge.access_log import REFUSED, log_and_measure
from api.paths import APPROVAL_PATHS, PREFIX, ROOT_PATH, shown_path
from api.problems import KINDS, Code, Problem, render
from shared import metrics
from shared.ids import new_id
from shared.log_limits import REFUSALS

log = structlog.get_logger("api.access")

# The heads that are answered without the application: it would have nothing to add.
_PLAIN_HEAD = re.compile(rb"(?!HEAD )([A-Z]+) (/[\w./-]*)(?:\?[^ ]*)? HTTP/1\.1\r\n", re.ASCII)
_FOR_THE_APPLICATION = re.compile(rb"\r\n(?:origin|x-correlation-id):", re.IGNORECASE)
# Paths whose problems are pages.
_PAGES = tuple(path.encode() for path in APPROVAL_PATHS)
type Headers = Iterable[tuple[bytes, bytes]]


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


def response_without_request(problem: Problem, headers: Headers) -> bytes:
    """Return the bytes of the response to a request without a readable head, with `headers` among its headers."""
    status = KINDS[problem.code].status
    metrics.http_requests.labels("other", "unknown", status).inc()
    if REFUSALS.admits("http.unreadable"):
        log.info("http.unreadable", status=status)
    return _response(problem, "", str(new_id()), headers)


def response_to_head(
    problem: Problem, head: bytes, headers: Headers, *, root_path: str, varies_by_origin: bool
) -> bytes | None:
    """Return the bytes of the response to a request with this head; None if the application must answer it.

    They are what the application would answer, but for its admission control, which no refusal needs.
    """
    plain = _PLAIN_HEAD.match(head)
    if plain is None or plain[2].startswith(_PAGES) or _FOR_THE_APPLICATION.search(head):
        return None
    correlation_id = str(new_id())
    path = plain[2].decode()
    scope = {"method": plain[1].decode(), "path": path, ROOT_PATH: root_path, REFUSED: problem}
    with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
        log_and_measure(scope, KINDS[problem.code].status, 0.0)
    if varies_by_origin and path.startswith(f"{PREFIX}/"):
        headers = (*headers, (b"vary", b"Origin"))
    return _response(problem, shown_path(scope), correlation_id, headers)


def _response(problem: Problem, path: str, correlation_id: str, headers: Headers) -> bytes:
    answer = render(problem, path=path, correlation_id=correlation_id)
    answer.headers["X-Correlation-ID"] = correlation_id
    lines = [STATUS_LINE[answer.status_code], *(b"%b: %b\r\n" % header for header in (*headers, *answer.raw_headers))]
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
