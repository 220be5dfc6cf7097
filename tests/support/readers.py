"""Readers of the dashboard in a real Chromium. Their fixtures are in `tests.support.reader_fixtures`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, expect

from tests.support.api_client import RunningApi
from tests.support.dashboards import bearer

# What axe-core calls its findings that keep somebody from using a page.
SERIOUS = {"serious", "critical"}
# Counts what the policy of a page has prevented. It runs before any script of the page.
WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


@dataclass
class Reader:
    """Somebody with a browser, the service, and what the browser asked for and complained about."""

    context: BrowserContext
    page: Page
    api: RunningApi
    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    async def sign_in(self, role: str | None = "admin", name: str = "root") -> None:
        """Type a token of this role into the form."""
        await self.page.goto(f"{self.api.url}/dashboard/sign-in")
        await self.page.get_by_label("Access token or API key").fill(bearer(self.api, role, name))
        await self.press("Sign in")
        await expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()

    async def open(self, path: str) -> None:
        """Open a page of the dashboard."""
        await self.page.goto(f"{self.api.url}/dashboard{path}")

    async def press(self, name: str) -> None:
        await self.page.get_by_role("button", name=name, exact=True).first.click()

    async def heading(self) -> str:
        return await self.page.get_by_role("heading", level=1).inner_text()

    async def require_accessible(self, name: str) -> None:
        """Fail if axe-core finds something serious on the page."""
        found = await Axe().run(self.page)
        serious = [
            (violation["id"], [node["html"][:120] for node in violation["nodes"][:3]])
            for violation in found.response["violations"]
            if violation["impact"] in SERIOUS
        ]
        assert serious == [], name

    async def require_policy_kept(self) -> None:
        """Fail if the policy of the page had to prevent anything."""
        assert await self.page.evaluate("window.violations") == []

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def note(self, request: Request) -> None:
        self.hosts.add(urlsplit(request.url).netloc)

    def stumble(self, error: Error) -> None:
        self.errors.append(str(error))


@asynccontextmanager
async def reading(browser: Browser, api: RunningApi, **options: Any) -> AsyncIterator[Reader]:
    """A reader, at the end of whose visit no other host was asked and nothing went wrong."""
    context = await browser.new_context(service_workers="block", **options)
    await context.add_init_script(WATCH_POLICY)
    page = await context.new_page()
    found = Reader(context, page, api)
    context.on("request", found.note)
    context.on("console", found.hear)
    page.on("pageerror", found.stumble)
    yield found
    await found.require_policy_kept()
    await context.close()
    assert found.hosts <= {urlsplit(api.url).netloc}
    assert found.errors == []
