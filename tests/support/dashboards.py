"""Visitors of the dashboard without a browser: signed in, with the form of a page to send."""

import html
import re
from http.cookies import SimpleCookie
from typing import Any

import httpx

from api.dashboard.visitors import COOKIE
from api.paths import DASHBOARD
from tests.support.api_client import RunningApi, token

FORM = re.compile(r'name="form" value="([^"]+)"')


def bearer(running_api: RunningApi, role: str | None = "admin", name: str = "root", **claims: Any) -> str:
    """A token, with which somebody signs in."""
    return token(running_api.settings.jwt_secret_key.get_secret_value(), user_id=name, role=role, **claims)


def visitor(running_api: RunningApi) -> httpx.AsyncClient:
    """A browser that nobody has signed in with. It follows no redirect."""
    return running_api.client(base=DASHBOARD)


async def sent(browser: httpx.AsyncClient, token: str, **changes: str) -> httpx.Response:
    """What the form of the sign-in is answered."""
    page = await browser.get("/sign-in")
    return await browser.post("/sign-in", data={"form": form_of(page), "next": "", "token": token, **changes})


async def signed_in(running_api: RunningApi, token: str) -> httpx.AsyncClient:
    """A browser with a session."""
    browser = visitor(running_api)
    answer = await sent(browser, token)
    assert answer.status_code == 303, answer.text
    assert COOKIE in browser.cookies
    return browser


def form_of(page: httpx.Response) -> str:
    """The value that the forms of a page send back."""
    found = FORM.search(page.text)
    assert found, page.text
    return html.unescape(found[1])


async def pressed(browser: httpx.AsyncClient, page: str, path: str, **fields: str) -> httpx.Response:
    """What a form of `page` is answered that goes to `path`."""
    return await browser.post(path, data={"form": form_of(await browser.get(page)), **fields})


def cookie_of(answer: httpx.Response, name: str = COOKIE) -> Any:
    """The cookie that an answer sets, with its attributes."""
    found: SimpleCookie = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        found.load(line)
    return found[name]
