"""The HTML of the approval pages. Every text of a client is escaped: the templates escape all that they are given.

The pages need no script and load nothing. Their one style sheet is part of each page, and the policy names its hash.
"""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fastapi.responses import HTMLResponse
from markupsafe import Markup
from starlette.types import Scope

from api.approval.links import return_link
from api.html import open_templates
from api.problems import KINDS, Code
from shared.database.clock import rfc3339
from shared.lifecycle import ActionResult, CaptureMethod, MethodType, PaymentStatus
from shared.money import in_major_units
from shared.payments.payment import Payment
from shared.payments.requests import requires_action

_FOLDER = files("api").joinpath("approval")
# Our own file, which has no text of a client.
STYLE = Markup(_FOLDER.joinpath("approval.css").read_text(encoding="utf-8"))  # noqa: S704
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    # The page's own style, and its form to itself. Browsers hold every redirect after a POST against form-action too,
    # so the way back to the shop is not a redirect of the POST.
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # The address of the page must not reach the shop or a cache.
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TEMPLATES = open_templates("approval", "templates")
# Seconds for which a result is shown before the browser leaves for the shop.
RETURN_AFTER_S = 1
BRANDS = {
    "visa": "Visa",
    "mastercard": "Mastercard",
    "amex": "American Express",
    "discover": "Discover",
    "diners": "Diners Club",
    "jcb": "JCB",
    "unionpay": "UnionPay",
}


class State(StrEnum):
    """What a page shows of a payment."""

    OPEN = "open"
    APPROVED = "approved"
    DECLINED = "declined"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Result(NamedTuple):
    """The words of a page on which nothing can be answered any more."""

    heading: str
    text: str


RESULTS = {
    State.APPROVED: Result("You approved the payment", "The shop goes on with your order."),
    State.DECLINED: Result("You declined the payment", "Nothing was charged. The shop may offer another way to pay."),
    State.EXPIRED: Result("The time to answer is over", "Nothing was charged. Pay again in the shop, if you like."),
    State.CANCELLED: Result("The payment was cancelled", "Nothing was charged, and there is nothing left to approve."),
}
UNREADABLE = Result("Your answer could not be read", "Open the link from the shop again.")
# What a customer can do about an error. Every other code of a wrong request is answered as one that is not readable.
ADVICE: Mapping[Code, Result] = {
    Code.NOT_FOUND: Result("This link does not work", "It is not complete, or too old. Go back to the shop."),
    Code.METHOD_NOT_ALLOWED: Result("This page cannot be used like that", "Open the link from the shop again."),
    Code.RATE_LIMITED: Result("Too many requests", "Wait for a minute, and load this page again."),
}
UNAVAILABLE = Result("This page is not available right now", "Wait for a moment, and load it again.")
NOT_UNDERSTOOD = "Your answer did not come from this page, so nothing has changed. Please choose again."


def state_of(payment: Payment, now: datetime) -> State:
    """Return what the page of a payment shows that waits for its customer, or did."""
    if requires_action(payment, now):
        return State.OPEN
    match payment.action_result:
        case ActionResult.APPROVED:
            return State.APPROVED
        case ActionResult.DECLINED:
            return State.DECLINED
        case _:
            return State.CANCELLED if payment.status is PaymentStatus.CANCELLED else State.EXPIRED


def approval_page(payment: Payment, now: datetime, form: str, *, fault: str | None = None) -> HTMLResponse:
    """Return the page on which the customer approves or declines; with `fault`, after a form that was refused."""
    until = payment.action_expires_at or now
    shown = _facts(payment) | {
        "form": form,
        "fault": fault,
        "until": f"{until:%H:%M} UTC",
        "until_moment": rfc3339(until),
        "left": _duration((until - now).total_seconds()),
    }
    return _response("approve.html", shown, status=400 if fault else 200)


def result_page(payment: Payment, state: State) -> HTMLResponse:
    """Return the page after the end. It leads to the shop at once if the customer has answered, else on request."""
    link = return_link(payment)
    is_answered = state in {State.APPROVED, State.DECLINED}
    headers = {"Refresh": f"{RETURN_AFTER_S}; url={link}"} if link and is_answered else {}
    shown = _facts(payment) | {"result": RESULTS[state], "state": state, "link": link, "leaves": bool(headers)}
    return _response("result.html", shown, headers=headers)


def problem_page(_scope: Scope, problem: Mapping[str, Any]) -> HTMLResponse:
    """Return the page in the place of a problem document."""
    code = Code(problem["code"])
    status = KINDS[code].status
    other = UNAVAILABLE if HTTPStatus(status).is_server_error else UNREADABLE
    return _response("problem.html", {"result": ADVICE.get(code, other)}, status=status)


def _response(
    template: str, shown: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    html = _TEMPLATES.get_template(template).render(style=STYLE, **shown)
    return HTMLResponse(html, status, {**HEADERS, **(headers or {})})


def _facts(payment: Payment) -> dict[str, Any]:
    """Return what every page of a payment shows: what is paid, to whom and with what."""
    details = payment.method["details"]
    is_paypal = payment.method["type"] == MethodType.PAYPAL
    return {
        "amount": f"{in_major_units(payment.amount, payment.currency):,} {payment.currency}",
        "shop": urlsplit(payment.return_url).hostname if payment.return_url else None,
        "order": payment.order_id,
        "description": payment.description,
        "is_paypal": is_paypal,
        "method": details["email"]
        if is_paypal
        else f"{BRANDS.get(details['brand'], details['brand'])} ending in {details['last4']}",
        "is_captured_later": payment.capture_method == CaptureMethod.MANUAL,
    }


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes == 0:
        return "less than a minute"
    return "1 minute" if minutes == 1 else f"{minutes} minutes"
