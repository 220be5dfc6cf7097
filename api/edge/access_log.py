"""What is logged and counted of every request."""

import structlog
from starlette.types import Scope

from api.auth.dependencies import api_key_id_of
from api.paths import QUIET_PATHS
from shared import metrics
from shared.log_limits import REFUSALS

log = structlog.get_logger("api.access")

# The member of the ASGI scope with the Problem to answer with, instead of running the application's route, or None.
REFUSED = "payments.refused"
# The member of the scope with the method that the client sent, where it is another one than the application sees.
ASKED = "payments.asked_method"


def log_and_measure(scope: Scope, status: int, duration_s: float) -> None:
    """Count a request that was answered, and log it; of those that were refused before they were read, only some."""
    route = _route(scope)
    asked = scope.get(ASKED, scope["method"])
    method = asked if route is not None else "other"
    metrics.http_requests.labels(method, route or "unknown", status).inc()
    metrics.http_request_seconds.labels(method, route or "unknown").observe(duration_s)
    if scope["path"] in QUIET_PATHS:
        return
    if scope.get(REFUSED) is None or REFUSALS.admits("http.answered"):
        api_key_id = api_key_id_of(scope)
        log.info(
            "http.answered",
            method=asked,
            path=scope["path"],
            status=status,
            duration_ms=round(duration_s * 1000, 1),
            **({"api_key_id": str(api_key_id)} if api_key_id else {}),
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
