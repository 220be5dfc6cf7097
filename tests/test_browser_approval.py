"""The approval pages in a real Chromium: a customer approves, declines, presses twice, goes back and returns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from api.approval.pages import ADVICE, NOT_UNDERSTOOD, RESULTS, State
from api.problems import Code
from tests.support.api_client import RunningApi, added, paypal
from tests.support.approvals import row, waiting
from tests.support.browsers import BACKGROUND, OVERFLOW, SIZES, picture

pytest_plugins = ["tests.support.browser_fixtures"]
pytestmark = [pytest.mark.browser, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]

APPROVE, DECLINE = "Approve the payment", "Decline"
FOCUSED = "() => document.activeElement.innerText"
LABELLED = "() => document.querySelectorAll('main, header, footer, h1').length"
# The longest texts that a client may send, without a blank to break them at.
LONG = {"order_id": "o" * 64, "description": "M" * 255, "amount": 100_000_000}


@dataclass
class Shop:
    """A server of another origin, to which customers return; it keeps what it was asked and by whom."""

    url: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        if request.path != "/favicon.ico":
            self.requests.append((request.path_qs, dict(request.headers)))
        return web.Response(text="<title>Shop</title><h1>Thank you</h1>", content_type="text/html")


@dataclass
class Customer:
    """A browser without any state, the service, and what the browser asked for and complained about."""

    context: BrowserContext
    page: Page
    api: RunningApi
    shop: Shop
    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    async def waiting(self, **changes: Any) -> tuple[dict[str, Any], str]:
        """A payment that waits for this customer, and its link."""
        user = self.api.user()
        payment = await waiting(user, self.api.database, **{"return_url": f"{self.shop.url}/paid?basket=7", **changes})
        # The server of the test listens on a port of its own.
        return payment, self.api.url + urlsplit(payment["next_action"]["url"]).path

    async def press(self, name: str) -> None:
        await self.page.get_by_role("button", name=name).click()

    async def sees(self, heading: str, page: Page | None = None) -> None:
        """Wait for a page with this heading: a press begins to load it, and does not wait."""
        await expect((page or self.page).get_by_role("heading", level=1)).to_have_text(heading)

    async def returned(self) -> dict[str, list[str]]:
        """The parameters with which the browser has come back to the shop."""
        await self.page.wait_for_url(f"{self.shop.url}/**")
        [(path, headers)] = self.shop.requests
        assert not {name.lower() for name in headers} & {"referer", "cookie"}
        return parse_qs(urlsplit(path).query)

    async def status(self, payment: dict[str, Any]) -> str:
        return str((await row(self.api.database, payment["id"])).status)

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def note(self, request: Request) -> None:
        self.hosts.add(urlsplit(request.url).netloc)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    found = Shop()
    app = web.Application()
    app.router.add_get("/{path:.*}", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@asynccontextmanager
async def visiting(browser: Browser, api: RunningApi, shop: Shop, **options: Any) -> AsyncIterator[Customer]:
    """A customer, who has asked nobody but the service and the shop at the end, and to whom nothing went wrong."""
    context = await browser.new_context(service_workers="block", **options)
    page = await context.new_page()
    found = Customer(context, page, api, shop)
    context.on("request", found.note)
    context.on("console", found.hear)
    yield found
    await context.close()
    assert found.hosts <= {urlsplit(api.url).netloc, urlsplit(shop.url).netloc}
    assert found.errors == []


@pytest.fixture
async def customer(browser: Browser, api: RunningApi, shop: Shop) -> AsyncIterator[Customer]:
    async with visiting(browser, api, shop) as found:
        yield found


# -- the way there and back


@pytest.mark.parametrize(
    ("kind", "button", "status", "state"),
    [
        ("card", APPROVE, "PROCESSING", State.APPROVED),
        ("card", DECLINE, "FAILED", State.DECLINED),
        ("paypal", APPROVE, "PROCESSING", State.APPROVED),
        ("paypal", DECLINE, "FAILED", State.DECLINED),
    ],
)
async def test_an_answer_takes_the_customer_back_to_a_shop_of_another_origin(
    customer: Customer, kind: str, button: str, status: str, state: State
) -> None:
    changes = {"method_id": await added(customer.api.user(), paypal())} if kind == "paypal" else {}
    payment, link = await customer.waiting(**changes)
    await customer.page.goto(link)
    assert "PayPal" in await customer.page.inner_text("header") or kind == "card"
    await customer.press(button)
    await customer.sees(RESULTS[state].heading)
    assert await customer.returned() == {"basket": ["7"], "payment_id": [payment["id"]], "status": [status]}
    assert await customer.status(payment) == status


async def test_back_from_the_shop_never_answers_again(customer: Customer) -> None:
    payment, link = await customer.waiting()
    await customer.page.goto(f"{customer.shop.url}/cart")
    customer.shop.requests.clear()
    await customer.page.goto(link)
    await customer.press(APPROVE)
    await customer.returned()
    sequence = (await row(customer.api.database, payment["id"])).sequence
    await customer.page.go_back()
    await customer.page.wait_for_load_state()
    # Whatever the browser kept of the pages, none of them takes an answer.
    assert await customer.page.get_by_role("button").count() == 0
    assert (await row(customer.api.database, payment["id"])).sequence == sequence


async def test_two_presses_and_two_tabs_are_one_answer(customer: Customer) -> None:
    payment, link = await customer.waiting()
    other = await customer.context.new_page()
    await customer.page.goto(link)
    await other.goto(link)
    await customer.page.get_by_role("button", name=APPROVE).dblclick()
    await customer.sees(RESULTS[State.APPROVED].heading)
    await other.get_by_role("button", name=DECLINE).click()
    # The second tab sees the first answer.
    await customer.sees(RESULTS[State.APPROVED].heading, other)
    assert await customer.status(payment) == "PROCESSING"
    assert (await row(customer.api.database, payment["id"])).sequence == payment["sequence"] + 1


async def test_the_keyboard_is_enough(customer: Customer) -> None:
    payment, link = await customer.waiting()
    await customer.page.goto(link)
    reached = []
    for _ in range(2):
        await customer.page.keyboard.press("Tab")
        reached.append(await customer.page.evaluate(FOCUSED))
    assert reached == [APPROVE, DECLINE]
    outline = await customer.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    await customer.page.keyboard.press("Shift+Tab")
    await customer.page.keyboard.press("Enter")
    await customer.sees(RESULTS[State.APPROVED].heading)
    await customer.page.keyboard.press("Tab")
    assert await customer.page.evaluate(FOCUSED) == "Back to 127.0.0.1"
    await customer.page.keyboard.press("Enter")
    assert (await customer.returned())["payment_id"] == [payment["id"]]


async def test_without_javascript_everything_works(browser: Browser, api: RunningApi, shop: Shop) -> None:
    async with visiting(browser, api, shop, java_script_enabled=False) as customer:
        payment, link = await customer.waiting()
        await customer.page.goto(link)
        await customer.press(DECLINE)
        assert (await customer.returned())["status"] == ["FAILED"]
        assert await customer.status(payment) == "FAILED"


# -- what is too late or forged


async def test_a_customer_who_walks_away_finds_the_time_over(customer: Customer) -> None:
    payment, link = await customer.waiting(valid_s=2)
    await customer.page.goto(link)
    await customer.page.wait_for_timeout(2100)
    await customer.press(APPROVE)
    await customer.sees(RESULTS[State.EXPIRED].heading)
    assert await customer.status(payment) == "REQUIRES_ACTION"
    # Nothing takes the customer away but the link.
    await customer.page.wait_for_timeout(1500)
    await customer.page.get_by_role("link", name="Back to").click()
    assert (await customer.returned())["payment_id"] == [payment["id"]]


async def test_old_forged_and_foreign_links_show_that_they_do_not_work(customer: Customer) -> None:
    _, old = await customer.waiting(valid_s=-24 * 3600)
    _, link = await customer.waiting()
    forged = link[:-1] + ("A" if link[-1] != "A" else "B")
    for text in (old, forged, f"{customer.api.url}/approve/nothing"):
        await customer.page.goto(text)
        await customer.sees(ADVICE[Code.NOT_FOUND].heading)
    # What Chromium says about an answer of 404.
    assert all("404" in error for error in customer.errors)
    customer.errors.clear()


async def test_the_form_of_another_site_changes_nothing(customer: Customer) -> None:
    payment, link = await customer.waiting()
    await customer.page.goto(f"{customer.shop.url}/attack")
    form = f"<form method=post action='{link}'><input name=result value=approve><button>Win</button></form>"
    await customer.page.set_content(form)
    await customer.press("Win")
    await expect(customer.page.get_by_role("alert")).to_have_text(NOT_UNDERSTOOD)
    assert await customer.status(payment) == "REQUIRES_ACTION"
    assert all("400" in error for error in customer.errors)
    customer.errors.clear()


async def test_no_page_can_be_shown_inside_of_another_one(customer: Customer) -> None:
    _, link = await customer.waiting()
    await customer.page.goto(f"{customer.shop.url}/attack")
    await customer.page.set_content(f"<iframe src='{link}'></iframe>")
    await customer.page.wait_for_timeout(500)
    assert all("frame" in error.lower() for error in customer.errors)
    assert customer.errors
    customer.errors.clear()


# -- how they look


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_every_page_is_readable_on_every_screen(
    browser: Browser, api: RunningApi, shop: Shop, tmp_path: Path, scheme: Any, size: str
) -> None:
    async with visiting(browser, api, shop, viewport=SIZES[size], color_scheme=scheme) as customer:
        user = api.user()
        _, card = await customer.waiting(description="Two mugs, blue", order_id="1042")
        account = await added(user, paypal())
        _, of_paypal = await customer.waiting(method_id=account, description="Two mugs, blue", order_id="1043")
        _, long = await customer.waiting(**LONG, capture_method="manual", return_url=f"{shop.url}/{'x' * 300}")
        _, declined = await customer.waiting()
        _, expired = await customer.waiting(valid_s=-1)
        cancelled, of_cancelled = await customer.waiting()
        await user.post(f"/payments/{cancelled['id']}/cancel")

        async def look(name: str) -> None:
            assert await customer.page.evaluate(OVERFLOW) <= 0, name
            assert await customer.page.evaluate(LABELLED) == 4, name
            red = int((await customer.page.evaluate(BACKGROUND)).removeprefix("rgb(").split(",")[0])
            assert (red > 200) == (scheme == "light"), name
            path = picture(tmp_path, f"approval-{name}-{scheme}-{size}")
            await customer.page.screenshot(path=path, full_page=True)

        shown = {"card": card, "paypal": of_paypal, "long": long, "expired": expired, "cancelled": of_cancelled}
        for name, link in {**shown, "unknown": f"{api.url}/approve/x"}.items():
            await customer.page.goto(link)
            await look(name)
        for name, link, button in (("approved", card, APPROVE), ("declined", declined, DECLINE)):
            await customer.page.goto(link)
            await customer.page.get_by_role("button", name=button).focus()
            if name == "approved":
                await look("focus")
            await customer.press(button)
            await customer.page.wait_for_load_state()
            await look(name)
        await customer.page.goto(of_paypal)
        await customer.page.evaluate("() => { document.querySelector('input[name=form]').value = 'x'; }")
        await customer.press(APPROVE)
        await look("refused")
        customer.errors.clear()
