"""The dashboard in a real Chromium: its pages, what is live on them, and who can read them."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from api.dashboard.stream import INTERVAL_S
from tests.support.api_client import RunningApi, accepted, added, order
from tests.support.browsers import BACKGROUND, OVERFLOW, SIZES, picture
from tests.support.dashboards import bearer
from tests.support.readers import Reader, reading
from tests.support.receivers import answering, receiver

pytest_plugins = ["tests.support.browser_fixtures", "tests.support.reader_fixtures"]
pytestmark = [pytest.mark.browser, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]

FOCUSED = "() => document.activeElement.innerText || document.activeElement.name"
# Keeps the queue depth of each event of the stream.
KEEP_DEPTHS = """
window.depths = [];
window.EventSource = class extends EventSource {
  constructor(url) {
    super(url);
    this.addEventListener("figures", (event) => window.depths.push(JSON.parse(event.data).queue_depth));
  }
};
"""
PAGES = {
    "Overview": "",
    "Payments": "/payments",
    "Webhooks": "/webhooks",
    "Simulator": "/simulator",
    "System": "/system",
}
VISIBLE = {
    "admin": ["Overview", "Payments", "Webhooks", "Simulator", "System"],
    "service": ["Payments", "Webhooks", "Simulator"],
    None: ["Payments", "Simulator"],
}


async def test_signing_in_and_out(reader: Reader) -> None:
    await reader.open("/payments?status=FAILED")
    assert await reader.heading() == "Sign in"
    await reader.page.get_by_label("Access token or API key").fill("nonsense")
    await reader.press("Sign in")
    await expect(reader.page.get_by_role("alert")).to_contain_text("not valid")
    # What Chromium says about an answer of 401.
    assert all("401" in error for error in reader.errors)
    reader.errors.clear()
    await reader.sign_in()
    await reader.press("Sign out")
    await expect(reader.page.get_by_role("heading", level=1)).to_have_text("Sign in")
    await reader.page.go_back()
    await expect(reader.page.get_by_label("Access token or API key")).to_be_visible()


@pytest.mark.parametrize("role", VISIBLE)
async def test_each_role_finds_its_pages(reader: Reader, role: str | None) -> None:
    await reader.sign_in(role, "7")
    links = reader.page.get_by_role("navigation", name="Pages").get_by_role("link")
    assert await links.all_inner_texts() == VISIBLE[role]
    for name in VISIBLE[role]:
        await reader.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        await expect(reader.page).to_have_title(f"{name} · Payment service")
        await reader.require_policy_kept()


async def test_the_overview_counts_a_new_payment_with_the_next_figures(reader: Reader, api: RunningApi) -> None:
    user = api.user(42)
    method = await added(user)
    await reader.context.add_init_script(KEEP_DEPTHS)
    await reader.sign_in()
    waiting = reader.page.locator("[data-figure=queue_depth]")
    await expect(waiting).to_have_text("0")
    await expect(reader.page.locator("#connection")).to_have_text("Live")
    await accepted(user, order(method))
    before = await reader.page.evaluate("window.depths.length")
    await expect(waiting).to_have_text("1")
    depths = await reader.page.evaluate("window.depths")
    # Figures are made once a second. Those under way when the payment came may be without it.
    assert 1 in depths[before - 1 : before + 2], depths
    assert INTERVAL_S < 1.1


async def test_the_list_and_the_payment_are_live(reader: Reader, api: RunningApi) -> None:
    await reader.sign_in()
    await reader.open("/payments")
    assert "no payment yet" in await reader.page.inner_text("main")
    user = api.user(42)
    payment = await accepted(user, order(await added(user)))
    await expect(reader.page.get_by_role("cell", name="pending")).to_be_visible(timeout=2500)
    await reader.page.get_by_role("row").nth(1).get_by_role("link").click()
    await expect(reader.page.locator(".now")).to_contain_text("pending")
    await user.post(f"/payments/{payment['id']}/cancel")
    await expect(reader.page.locator(".now")).to_contain_text("cancelled", timeout=2500)


async def test_a_lost_connection_is_said_and_found_again(reader: Reader) -> None:
    await reader.sign_in()
    await reader.page.route("**/stream", lambda route: route.abort())
    await reader.open("")
    state = reader.page.locator("#connection")
    await expect(state).to_contain_text("connection is lost", timeout=6000)
    await reader.page.unroute("**/stream")
    await expect(state).to_have_text("Live", timeout=10_000)
    # What Chromium says about the connections that failed.
    assert all("ERR_FAILED" in error for error in reader.errors)
    reader.errors.clear()


async def test_whoever_signs_out_elsewhere_sees_no_more_figures(reader: Reader) -> None:
    await reader.sign_in()
    await expect(reader.page.locator("#connection")).to_have_text("Live")
    tab = await reader.context.new_page()
    await tab.goto(f"{reader.api.url}/dashboard/payments")
    await tab.get_by_role("button", name="Sign out").click()
    await expect(reader.page.locator("#connection")).to_contain_text("Your session has ended", timeout=9000)


async def test_workers_appear_and_vanish(reader: Reader, api: RunningApi, worker: None) -> None:
    await reader.sign_in()
    await expect(reader.page.locator(".worker")).to_have_count(1)
    await expect(reader.page.locator(".worker")).to_contain_text("0/2,000")


async def test_the_keyboard_is_enough(reader: Reader, api: RunningApi) -> None:
    user = api.user(42)
    payment = await accepted(user, order(await added(user), order_id="keyboard"))
    await reader.open("/sign-in")
    # The form has the focus.
    await reader.page.keyboard.insert_text(bearer(api))
    await reader.page.keyboard.press("Enter")
    await expect(reader.page.get_by_role("button", name="Sign out")).to_be_visible()
    await reader.page.keyboard.press("Tab")
    assert await reader.page.evaluate(FOCUSED) == "Skip to the content"
    for _ in range(8):
        await reader.page.keyboard.press("Tab")
        if await reader.page.evaluate(FOCUSED) == "q":
            break
    await reader.page.keyboard.type("keyboard")
    await reader.page.keyboard.press("Enter")
    await reader.page.wait_for_url(f"**/payments/{payment['id']}")
    await reader.page.get_by_role("button", name="Cancel the payment").focus()
    outline = await reader.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    await reader.page.keyboard.press("Enter")
    await expect(reader.page.locator(".now")).to_contain_text("cancelled")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_every_page_is_readable_on_every_screen(
    browser: Browser, api: RunningApi, worker: None, tmp_path: Path, scheme: Any, size: str
) -> None:
    async with (
        receiver(answering(500, b"<h1>No</h1>")) as failing,
        receiver() as working,
        reading(browser, api, viewport=SIZES[size], color_scheme=scheme) as reader,
    ):
        admin, user = api.admin(), api.user(42)
        for name, url in (("orders", working.url), ("old shop", failing.url)):
            (await admin.post("/webhook-endpoints", json={"name": name, "url": url})).raise_for_status()
        paid = await accepted(user, order("pm_test_visa", description="Two mugs, blue", metadata={"basket": "7"}))
        await user.get(f"/payments/{paid['id']}", headers={"Prefer": "wait=10"})
        await admin.post(f"/payments/{paid['id']}/refunds", json={"amount": 500})
        declined = await accepted(user, order("pm_test_card_declined"))
        held = await accepted(user, order("pm_test_visa", capture_method="manual", amount=249_900))
        for payment in (declined, held):
            await user.get(f"/payments/{payment['id']}", headers={"Prefer": "wait=10"})
        await reader.open("/sign-in")
        await look(reader, "sign-in", tmp_path, scheme, size)
        await reader.sign_in()
        endpoints = (await admin.get("/webhook-endpoints")).json()["webhook_endpoints"]
        deliveries = (await admin.get(f"/payments/{paid['id']}/deliveries")).json()["deliveries"]
        pages = {name.lower(): path for name, path in PAGES.items()} | {
            "payment": f"/payments/{paid['id']}",
            "payment-failed": f"/payments/{declined['id']}",
            "payment-held": f"/payments/{held['id']}",
            "payments-filtered": "/payments?status=REFUNDED",
            "endpoint": f"/webhooks/{endpoints[0]['id']}",
            "delivery": f"/deliveries/{deliveries[0]['id']}",
            "not-found": "/find?q=nothing",
        }
        for name, path in pages.items():
            await reader.open(path)
            if name == "overview":
                await expect(reader.page.locator("#connection")).to_have_text("Live")
                await reader.page.wait_for_timeout(1500)
            await look(reader, name, tmp_path, scheme, size)
        # What Chromium says about the page that says that nothing was found.
        assert all("404" in error for error in reader.errors)
        reader.errors.clear()


async def look(reader: Reader, name: str, tmp_path: Path, scheme: str, size: str) -> None:
    assert await reader.page.evaluate(OVERFLOW) <= 0, name
    red = int((await reader.page.evaluate(BACKGROUND)).removeprefix("rgb(").split(",")[0])
    assert (red > 200) == (scheme == "light"), name
    await reader.page.screenshot(path=picture(tmp_path, f"dashboard-{name}-{scheme}-{size}"), full_page=True)
    await reader.require_accessible(name)
    await reader.require_policy_kept()
