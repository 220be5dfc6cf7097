"""Cross-origin requests (CORS, WHATWG Fetch): which pages in a browser may use the API, and what they may read.

Only pages of the origins in CORS_ORIGINS, and only the operations below /api/v1. Credentials that a browser adds by
itself, such as cookies, are never allowed: a page sends its token in a header. Both middlewares are absent where
CORS_ORIGINS is unset.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.paths import PREFIX

# Headers that a page may send beside those that every page may send.
REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Prefer",
    "X-Correlation-ID",
)
# Headers that a page may read beside those that every page may read.
EXPOSED_HEADERS = (
    "Accept-Encoding",
    "Allow",
    "Cache-Control",
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Vary",
    "WWW-Authenticate",
    "X-Correlation-ID",
)
METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
# Seconds for which a browser may keep the answer to a preflight request.
PREFLIGHT_MAX_AGE_S = 600


class CorsHeadersMiddleware:
    """The outermost middleware: it adds the headers to every response below /api/v1, also to errors of the edge."""

    def __init__(self, app: ASGIApp, *, origins: frozenset[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if not _is_covered(scope):
            await self._app(scope, receive, send)
            return
        origin = allowed_origin(scope, self._origins)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # Also for other origins: a cache must not give the response of one origin to another.
                headers.add_vary_header("Origin")
                if origin is not None:
                    headers["Access-Control-Allow-Origin"] = origin
                    headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class PreflightMiddleware:
    """Answers preflight requests. They carry no token, and they count against no rate limit.

    A preflight request of another origin is answered like every other OPTIONS request, so the browser stops.
    """

    def __init__(self, app: ASGIApp, *, origins: frozenset[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI)."""
        if _is_covered(scope) and _is_preflight(scope) and allowed_origin(scope, self._origins) is not None:
            await _PREFLIGHT_RESPONSE(scope, receive, send)
        else:
            await self._app(scope, receive, send)


_PREFLIGHT_RESPONSE = Response(
    status_code=204,
    headers={
        "Access-Control-Allow-Methods": ", ".join(METHODS),
        "Access-Control-Allow-Headers": ", ".join(REQUEST_HEADERS),
        "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
    },
)


def allowed_origin(scope: Scope, origins: frozenset[str]) -> str | None:
    """Return the origin of the page that sent the request, if it is one of `origins`; else None."""
    sent = Headers(scope=scope).getlist("origin")
    return sent[0] if len(sent) == 1 and sent[0] in origins else None


def _is_covered(scope: Scope) -> bool:
    return scope["type"] == "http" and str(scope["path"]).startswith(f"{PREFIX}/")


def _is_preflight(scope: Scope) -> bool:
    return scope["method"] == "OPTIONS" and "access-control-request-method" in Headers(scope=scope)
