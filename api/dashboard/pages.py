"""The HTML of the dashboard: its templates, its headers, and how it writes amounts and moments."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any

import orjson
from fastapi import Request
from fastapi.responses import HTMLResponse
from starlette.types import Scope

from api.dashboard.sessions import Session
from api.html import open_templates
from api.paths import DASHBOARD, ROOT_PATH
from shared.lifecycle import PaymentStatus
from shared.money import in_major_units
from shared.version import VERSION

# Nothing inline, no other host, no frame around it. Forms go to the dashboard only.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
STATIC = {
    file.name: file.read_bytes()
    for file in files("api").joinpath("dashboard", "static").iterdir()
    if file.name.rpartition(".")[2] in MEDIA_TYPES
}
# Part of the path of every file: browsers keep a file for good, and ask for another path after an upgrade.
STATIC_DIGEST = hashlib.sha256(b"".join(STATIC[name] for name in sorted(STATIC))).hexdigest()[:16]

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
# The colour of a status: how good or bad it is, and whether it is an end.
TONES = {
    PaymentStatus.PENDING: "wait",
    PaymentStatus.PROCESSING: "work",
    PaymentStatus.REQUIRES_ACTION: "ask",
    PaymentStatus.AUTHORIZED: "ask",
    PaymentStatus.COMPLETED: "good",
    PaymentStatus.PARTIALLY_REFUNDED: "back",
    PaymentStatus.REFUNDED: "back",
    PaymentStatus.FAILED: "bad",
    PaymentStatus.CANCELLED: "off",
    "pending": "wait",
    "sending": "work",
    "delivered": "good",
    "exhausted": "bad",
    "cancelled": "off",
    "active": "work",
    "used_up": "off",
    "expired": "off",
}


def money(amount: int | None, currency: str) -> str:
    """Return an amount in major units with its currency, such as `15.85 USD`."""
    return "" if amount is None else f"{in_major_units(amount, currency):,} {currency}"


def utc(text: str) -> str:
    """Return a moment of the JSON API as people write it, in UTC."""
    return (
        f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}.{datetime.fromisoformat(text).microsecond // 1000:03d} UTC"
    )


def words(name: str) -> str:
    """Return a word of a closed set as people read it: `REQUIRES_ACTION` is `requires action`."""
    return name.replace("_", " ").lower()


def pretty(content: Any) -> str:
    """Return JSON in lines. Text that is no JSON stays as it is."""
    if isinstance(content, str):
        try:
            content = orjson.loads(content)
        except orjson.JSONDecodeError:
            return str(content)
    return orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()


def method_name(details: Mapping[str, Any]) -> str:
    """Return what people recognise a payment method by: `visa 4242`, or the masked address."""
    return str(details["email"]) if "email" in details else f"{details['brand']} {details['last4']}"


def duration(seconds: float) -> str:
    """Return a time in the unit that fits it: `12 ms`, `1.24 s`, `3 min 5 s`, `2 h 4 min`, `3 d 2 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < MINUTE_S:
        return f"{seconds:.2f} s"
    if seconds < HOUR_S:
        return f"{seconds // MINUTE_S:.0f} min {seconds % MINUTE_S:.0f} s"
    if seconds < DAY_S:
        return f"{seconds // HOUR_S:.0f} h {seconds % HOUR_S // MINUTE_S:.0f} min"
    return f"{seconds // DAY_S:.0f} d {seconds % DAY_S // HOUR_S:.0f} h"


_TEMPLATES = open_templates("dashboard", "templates")
_TEMPLATES.filters |= {
    "money": money,
    "utc": utc,
    "words": words,
    "pretty": pretty,
    "duration": duration,
    "method": method_name,
}
_TEMPLATES.filters["tone"] = lambda status: TONES.get(status, "off")


def home(scope: Scope) -> str:
    """Return the path of the dashboard as browsers see it, with the prefix that a proxy strips."""
    return str(scope.get(ROOT_PATH, "")) + DASHBOARD


def render(
    request: Request,
    template: str,
    shown: Mapping[str, Any] | None = None,
    *,
    session: Session | None = None,
    status: int = 200,
) -> HTMLResponse:
    """Return a page. `session` is that of the principal who sees it; None before the sign-in."""
    base = home(request.scope)
    html = _TEMPLATES.get_template(template).render(
        base=base,
        static=f"{base}/static/{STATIC_DIGEST}",
        here=request.url.path.removeprefix(DASHBOARD).rstrip("/"),
        session=session,
        role=session.principal.role.value if session else None,
        version=VERSION,
        **(shown or {}),
    )
    return HTMLResponse(html, status, HEADERS)
