"""Where the dashboard is, and what every page and file of it may load and is told to browsers."""

import re
from collections.abc import Callable

import pytest

from api.dashboard.pages import CONTENT_SECURITY_POLICY, STATIC_DIGEST
from shared.config.settings import Settings
from tests.support.api_client import RunningApi, opened_with
from tests.support.dashboards import bearer, cookie_of, pressed, sent, signed_in, visitor

pytest_plugins = ["tests.support.api_fixtures"]

DIRECTIVES = {
    "default-src 'none'",
    *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
    "form-action 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
}
PAGE_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
FILE_HEADERS = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "public, max-age=31536000, immutable",
}
OF_A_SCRIPT = {"Sec-Fetch-Dest": "empty"}


@pytest.mark.parametrize(
    ("changes", "status"),
    [({}, 303), ({"environment": "production"}, 404), ({"dashboard": "off"}, 404),
     ({"environment": "production", "dashboard": "on"}, 303)],
)  # fmt: skip
async def test_it_is_there_in_development_and_where_it_is_wanted(
    make_settings: Callable[..., Settings], changes: dict[str, str], status: int
) -> None:
    async with opened_with(make_settings(**changes)) as running_api:
        assert (await visitor(running_api).get("")).status_code == status


async def test_below_a_prefix_every_link_and_the_cookie_have_the_prefix(make_settings: Callable[..., Settings]) -> None:
    async with opened_with(make_settings(root_path="/shop")) as running_api:
        browser = visitor(running_api)
        page = await browser.get("/sign-in")
        assert cookie_of(page, "payments_dashboard_form")["path"] == "/shop/dashboard"
        assert 'action="/shop/dashboard/sign-in"' in page.text
        assert '="/dashboard' not in page.text


async def test_every_page_and_file_has_the_policy(running_api: RunningApi) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    for path in ("", "/sign-in", "/stream/x", "/payments"):
        headers = (await browser.get(path)).headers
        if headers["content-type"].startswith("text/html"):
            assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
            assert headers["cache-control"] == "no-store"
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    page = (await browser.get("")).text
    assert " style=" not in page
    assert "<script>" not in page
    assert " onclick" not in page


async def test_a_page_may_load_only_what_is_ours_and_no_cache_and_no_other_site_has_it(running_api: RunningApi) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    answers = [await browser.get(path) for path in ("", "/payments", "/nothing", "/sign-in")]
    answers += [await visitor(running_api).get(""), await visitor(running_api).get("", headers=OF_A_SCRIPT)]
    answers += [await sent(visitor(running_api), bearer(running_api)), await browser.head("/stream")]
    answers += [
        await pressed(browser, "/simulator", "/simulator/rules/delete"),
        await pressed(browser, "", "/sign-out"),
    ]
    for answer in answers:
        assert set(answer.headers["content-security-policy"].split("; ")) == DIRECTIVES, answer.url
        assert {name: answer.headers.get(name) for name in PAGE_HEADERS} == PAGE_HEADERS, answer.url


async def test_a_file_is_kept_for_good_and_read_by_nobody_else_and_as_nothing_else(running_api: RunningApi) -> None:
    page = await visitor(running_api).get("/sign-in")
    found = re.search(r'href="/dashboard(/static/[^"]+\.css)"', page.text)
    assert found
    answer = await visitor(running_api).get(found[1])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert {name: answer.headers.get(name) for name in FILE_HEADERS} == FILE_HEADERS
    # Of another version: it must not be kept for good under this path.
    of_another = found[1].replace(STATIC_DIGEST, "0" * 16)
    assert (await visitor(running_api).get(of_another)).status_code == 404


async def test_a_user_over_the_limit_gets_no_more_pages(make_settings: Callable[..., Settings]) -> None:
    async with opened_with(make_settings(rate_limit_user="3/minute")) as running_api:
        browser = await signed_in(running_api, bearer(running_api, None, "7"))
        answers = [(await browser.get("/payments")).status_code for _ in range(5)]
        assert answers == [200, 200, 200, 429, 429]
        # An admin acts for many.
        admin = await signed_in(running_api, bearer(running_api))
        assert {(await admin.get("/payments")).status_code for _ in range(5)} == {200}
