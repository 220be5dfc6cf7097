"""The way in and out: signing in with a token, an API key or a link of `payments up`, signing out, and static files."""

from hmac import compare_digest
from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from api.dashboard.forms import FORM, NOT_OWN, OWN_SITES, read_form
from api.dashboard.pages import HEADERS, MEDIA_TYPES, STATIC, STATIC_DIGEST, home, render
from api.dashboard.sessions import LINK_S, SESSION_S, new_secret
from api.dashboard.visitors import COOKIE, SIGN_IN, PageRoute, SignedIn, dashboard_of
from api.edge.client_address import client_address
from api.paths import DASHBOARD
from api.problems import Code, Problem, headers_of
from api.state import Api

log = structlog.get_logger(__name__)
router = APIRouter(prefix=DASHBOARD, route_class=PageRoute, include_in_schema=False)

# The cookie with the value that the form of the sign-in sends back: nobody has a session there.
FORM_COOKIE = "payments_dashboard_form"
TOKEN_CHARS_MAX = 8192
FILE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "public, max-age=31536000, immutable",
}
LINK_IS_OLD = (
    f"This link was used already, or is older than {LINK_S // 60} minutes. Start `payments up` again for a new one."
)


@router.get(SIGN_IN)
async def get_sign_in(request: Request, next: str = "", link: str = "") -> Response:  # noqa: A002 - part of the URL
    """Show the form for a token or an API key, or sign in whoever has the link of `payments up`."""
    if link:
        return await _sign_in_by_link(request, link)
    return _sign_in_page(request, next)


@router.post(SIGN_IN)
async def sign_in(request: Request) -> Response:
    """Open a session for the principal of a token or an API key."""
    form = await read_form(request)
    then = form.get("next", "")
    own = request.cookies.get(FORM_COOKIE, "")
    is_from_here = request.headers.get("sec-fetch-site", "none") in OWN_SITES
    if not (own and is_from_here and compare_digest(own.encode(), form.get(FORM, "").encode())):
        return _sign_in_page(request, then, fault=f"{NOT_OWN} Please try again.", status=403)
    token = form.get("token", "").strip()
    if not token or len(token) > TOKEN_CHARS_MAX or not token.isascii():
        return _sign_in_page(request, then, fault="Paste an access token or an API key.", status=422)
    try:
        cookie = await dashboard_of(request).sessions.sign_in(token)
    except Problem as problem:
        if problem.code is not Code.INVALID_TOKEN:
            raise
        log.warning("dashboard.sign_in_refused")
        answer = _sign_in_page(request, then, fault=problem.detail or "The token is not valid.", status=401)
        answer.headers.update(headers_of(problem))
        return answer
    return _signed_in(request, cookie, then)


@router.post("/sign-out")
async def sign_out(request: Request, visitor: SignedIn) -> Response:
    """End the session."""
    await visitor.form()
    await dashboard_of(request).sessions.sign_out(request.cookies[COOKIE])
    answer = RedirectResponse(home(request.scope) + SIGN_IN, status_code=303, headers=HEADERS)
    answer.delete_cookie(COOKIE, path=home(request.scope), httponly=True, samesite="strict", secure=_is_secure(request))
    return answer


@router.get("/static/{digest}/{name}")
async def get_static_file(digest: str, name: str) -> Response:
    """Return a style sheet, a script or a picture of the pages."""
    if digest != STATIC_DIGEST or name not in STATIC:
        raise Problem(Code.NOT_FOUND)
    return Response(STATIC[name], headers=FILE_HEADERS, media_type=MEDIA_TYPES[name.rpartition(".")[2]])


async def _sign_in_by_link(request: Request, link: str) -> Response:
    api: Api = request.app.state.api
    address = client_address(request.scope, api.runtime.settings.trusted_proxies)
    if not api.runtime.settings.takes_sign_in_links or address is None or not address.is_loopback:
        raise Problem(Code.NOT_FOUND)
    cookie = await dashboard_of(request).sessions.redeem(link)
    if cookie is None:
        return _sign_in_page(request, "", fault=LINK_IS_OLD, status=403)
    log.info("dashboard.signed_in_by_link")
    return _signed_in(request, cookie, "")


def _sign_in_page(request: Request, then: str, *, fault: str | None = None, status: int = 200) -> Response:
    value = request.cookies.get(FORM_COOKIE) or new_secret()
    answer = render(request, "sign_in.html", {"form": value, "next": then, "fault": fault}, status=status)
    _set_cookie(request, answer, FORM_COOKIE, value)
    return answer


def _signed_in(request: Request, cookie: str, then: str) -> Response:
    # The path of the dashboard comes first, so no value of `then` leads to another host.
    path = then if then.startswith("/") else ""
    answer = RedirectResponse(home(request.scope) + path, status_code=303, headers=HEADERS)
    _set_cookie(request, answer, COOKIE, cookie, max_age=SESSION_S)
    return answer


def _set_cookie(request: Request, answer: Response, name: str, value: str, **options: Any) -> None:
    answer.set_cookie(
        name,
        value,
        path=home(request.scope),
        httponly=True,
        samesite="strict",
        secure=_is_secure(request),
        **options,
    )


def _is_secure(request: Request) -> bool:
    """Return whether the browser speaks TLS, to us or to a proxy. A forged header only makes the cookie stricter."""
    public_url = request.app.state.api.runtime.settings.public_url or ""
    forwarded = request.headers.get("x-forwarded-proto", "")
    return request.url.scheme == "https" or public_url.startswith("https://") or forwarded.startswith("https")
