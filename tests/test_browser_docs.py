"""The page `/docs` in a real Chromium, without internet: what people see of the API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Route

from tests.support.api_client import RunningApi, token
from tests.support.browsers import BACKGROUND, OVERFLOW, SIZES, picture

pytest_plugins = ["tests.support.browser_fixtures"]
pytestmark = [pytest.mark.browser, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]

PREFIX = "/shop/pay"
OPENED = "() => document.querySelectorAll('details').forEach((one) => { one.open = true; })"


@dataclass
class Visit:
    """A page that is open, what it asked other hosts for, and what went wrong in it."""

    page: Page
    api: RunningApi
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def handle(self, route: Route) -> None:
        """Forward a request as a gateway does that strips the prefix; refuse and note one to another host."""
        parts = urlsplit(route.request.url)
        own = urlsplit(self.api.url)
        if parts.netloc != own.netloc:
            self.elsewhere.append(route.request.url)
            await route.abort()
        elif parts.path.startswith(PREFIX):
            await route.continue_(url=route.request.url.replace(PREFIX, "", 1))
        else:
            await route.continue_()

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    async def open(self, prefix: str = "") -> None:
        await self.page.goto(f"{self.api.url}{prefix}/docs")
        await self.page.wait_for_selector(".operation")


@asynccontextmanager
async def visit(browser: Browser, api: RunningApi, **options: Any) -> AsyncIterator[Visit]:
    """A page in a browser without any state. At its end nothing was asked elsewhere and nothing went wrong."""
    context = await browser.new_context(service_workers="block", **options)
    page = await context.new_page()
    found = Visit(page, api)
    await context.route("**/*", found.handle)
    page.on("console", found.hear)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    yield found
    await context.close()
    assert (found.elsewhere, found.errors) == ([], [])


async def test_the_page_shows_every_operation_and_asks_no_other_host(browser: Browser, api: RunningApi) -> None:
    document = (await api.client(base="").get("/openapi.json")).json()
    expected = {operation["operationId"] for item in document["paths"].values() for operation in item.values()}
    expected |= {f"event-{name}" for name in document.get("webhooks", {})}
    async with visit(browser, api) as found:
        await found.open()
        shown = await found.page.eval_on_selector_all(".operation", "all => all.map((one) => one.id)")
        assert set(shown) == expected
        listed = await found.page.eval_on_selector_all("#nav a", "all => all.map((one) => one.getAttribute('href'))")
        assert {href.removeprefix("#") for href in listed} == expected
        await found.page.evaluate(OPENED)
        await found.page.wait_for_function("() => document.querySelectorAll('.inside').length > 20")
        # The responses, which are inside of the operations.
        await found.page.evaluate(OPENED)
        text = await found.page.inner_text("#create_payment")
        for words in ("pm_test_visa", "Idempotency-Key", "payment_in_progress", "Location", "1 to 64 characters"):
            assert words in text, words
        assert "922337203685477" not in text
        assert "[object Object]" not in await found.page.inner_text("body")
        assert "undefined" not in await found.page.inner_text("body")


async def test_another_host_is_refused_by_the_policy_and_noticed_here(browser: Browser, api: RunningApi) -> None:
    """What the test above would see, if the page asked for something elsewhere."""
    async with visit(browser, api) as found:
        await found.open()
        await found.page.evaluate("() => fetch('http://cdn.example/x.js').catch(() => {})")
        assert any("Content Security Policy" in error for error in found.errors)
        found.errors.clear()
        with pytest.raises(Exception, match="ERR_FAILED"):
            await found.page.goto("http://cdn.example/")
        assert found.elsewhere == ["http://cdn.example/"]
        found.elsewhere.clear()
        found.errors.clear()


async def test_a_payment_is_made_from_the_page_under_a_prefix(browser: Browser, api: RunningApi) -> None:
    bearer = token(api.settings.jwt_secret_key.get_secret_value(), user_id=1)
    async with visit(browser, api) as found:
        await found.open(PREFIX)
        page = found.page
        await page.fill("#token", bearer)
        await page.click("a[href='#create_payment']")
        operation = page.locator("#create_payment")
        await operation.get_by_role("button", name="Send").click()
        await operation.get_by_role("heading", name="202").wait_for()
        payment = await operation.locator("[role=status] pre").inner_text()
        assert '"payment_method_id": "pm_test_visa"' in payment
    assert len((await api.user().get("/payments")).json()["payments"]) == 1


async def test_the_list_can_be_filtered_and_a_link_opens_its_operation(browser: Browser, api: RunningApi) -> None:
    async with visit(browser, api) as found:
        await found.open()
        await found.page.fill("#filter", "webhook")
        shown = await found.page.eval_on_selector_all(
            "#nav li", "all => all.filter((one) => one.checkVisibility()).map((one) => one.dataset.words)"
        )
        assert 0 < len(shown) < await found.page.locator("#nav li").count()
        assert all("webhook" in words for words in shown)
        await found.page.goto(f"{api.url}/docs#cancel_payment")
        await found.page.reload()
        await found.page.wait_for_selector("#cancel_payment[open] .inside")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_it_is_readable_on_every_screen(
    browser: Browser, api: RunningApi, tmp_path: Path, scheme: Any, size: str
) -> None:
    async with visit(browser, api, viewport=SIZES[size], color_scheme=scheme) as found:
        await found.open()
        await found.page.screenshot(path=picture(tmp_path, f"docs-{scheme}-{size}"))
        assert await found.page.evaluate(OVERFLOW) <= 0
        red = int((await found.page.evaluate(BACKGROUND)).removeprefix("rgb(").split(",")[0])
        assert (red > 200) == (scheme == "light")
        await found.page.evaluate(OPENED)
        await found.page.wait_for_function("() => document.querySelectorAll('.inside').length > 20")
        assert await found.page.evaluate(OVERFLOW) <= 0
        await found.page.locator("#create_payment").scroll_into_view_if_needed()
        await found.page.screenshot(path=picture(tmp_path, f"docs-{scheme}-{size}-open"))
