"""Requests that the HTTP protocol refuses. All of them are counted, and a limited number is logged.

The application answers those that it has something to add to. All others cost as little as possible, as anybody may
send thousands of them.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from api.edge.access_log import REFUSED, log_and_measure
from api.edge.problem_pages import ProblemPages
from api.paths import PREFIX, ROOT_PATH, shown_path
from api.problems import KINDS, Code, Problem, render
from shared import metrics
from shared.ids import new_id
from shared.log_limits import REFUSALS

log = structlog.get_logger("api.access")

# The heads that are answered without the application: it would have nothing to add.
_PLAIN_HEAD = re.compile(rb"(?!HEAD )([A-Z]+) (/[\w./-]*)(?:\?[^ ]*)? HTTP/1\.1\r\n", re.ASCII)
_FOR_THE_APPLICATION = re.compile(rb"\r\n(?:origin|x-correlation-id):", re.IGNORECASE)
# The path in a request line that may be wrong or not whole. Only what follows shows where the path ends.
_TARGET = re.compile(rb"[!-~]{1,32} (?:[a-z][a-z0-9+.-]*://[^/?#\s]*)?(/[^?#\s]*)([?#\s])?", re.IGNORECASE)
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


def response_without_request(
    problem: Problem, headers: Headers, start: bytes, *, pages: Iterable[ProblemPages]
) -> bytes:
    """Return the bytes of the response to a request without a readable head, with `headers` among its headers.

    `start` is what has arrived of it. If that has a path of `pages`, the response is a page.
    """
    status = KINDS[problem.code].status
    metrics.http_requests.labels("other", "unknown", status).inc()
    if REFUSALS.admits("http.unreadable"):
        log.info("http.unreadable", status=status)
    path = _path_in(start)
    shown = next((one for one in pages if one.are_at(path)), None)
    return _response(problem, "", str(new_id()), headers, page=(shown, path) if shown else None)


def response_to_head(
    problem: Problem,
    head: bytes,
    headers: Headers,
    *,
    root_path: str,
    varies_by_origin: bool,
    pages: Iterable[ProblemPages],
) -> bytes | None:
    """Return the bytes of the response to a request with this head; None if the application must answer it.

    They are what the application would answer, but for its admission control, which no refusal needs.
    """
    plain = _PLAIN_HEAD.match(head)
    if plain is None or _FOR_THE_APPLICATION.search(head):
        return None
    path = plain[2].decode()
    if any(one.are_at(path) for one in pages):
        return None
    correlation_id = str(new_id())
    scope = {"method": plain[1].decode(), "path": path, ROOT_PATH: root_path, REFUSED: problem}
    with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
        log_and_measure(scope, KINDS[problem.code].status, 0.0)
    if varies_by_origin and path.startswith(f"{PREFIX}/"):
        headers = (*headers, (b"vary", b"Origin"))
    return _response(problem, shown_path(scope), correlation_id, headers)


def _path_in(start: bytes) -> str:
    """Return the path as the application would see it, as far as its parts have arrived whole; or an empty text."""
    target = _TARGET.match(start)
    if target is None:
        return ""
    path = target[1] if target[2] else target[1][: target[1].rindex(b"/") + 1]
    return unquote(path.decode("ascii", "replace"))


def _response(
    problem: Problem,
    path: str,
    correlation_id: str,
    headers: Headers,
    *,
    page: tuple[ProblemPages, str] | None = None,
) -> bytes:
    """Return the bytes of a response: the problem document, or a page in its place for a request of some path."""
    answer = render(problem, path=path, correlation_id=correlation_id)
    answer.headers["X-Correlation-ID"] = correlation_id
    if page is not None:
        pages, asked = page
        scope = {"type": "http", "path": asked, "headers": []}
        answer.body = pages.replace(bytes(answer.body), answer.headers, scope)
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
