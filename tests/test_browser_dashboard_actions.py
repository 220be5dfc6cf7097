"""What is done on the dashboard in a real Chromium: each action, by each role that may do it; and texts of others."""

from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, expect

from tests.support.api_client import RunningApi, accepted, added, order
from tests.support.approvals import waiting
from tests.support.readers import Reader, reading
from tests.support.receivers import answering, receiver

pytest_plugins = ["tests.support.browser_fixtures", "tests.support.reader_fixtures"]
pytestmark = [pytest.mark.browser, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]

MERCHANTS = ("service", "admin")
MARKUP = "</td></pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"
WAIT = {"Prefer": "wait=10"}


async def paid(user: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    """A payment that the worker has settled."""
    payment = await accepted(user, order("pm_test_visa", **changes))
    answer = await user.get(f"/payments/{payment['id']}", headers=WAIT)
    shown: dict[str, Any] = answer.json()
    return shown


@pytest.mark.parametrize("role", [None, *MERCHANTS])
async def test_cancelling(reader: Reader, api: RunningApi, role: str | None) -> None:
    user = api.user(7)
    payment = await accepted(user, order(await added(user)))
    await reader.sign_in(role, "7")
    await reader.open(f"/payments/{payment['id']}")
    await reader.press("Cancel the payment")
    await expect(reader.page.get_by_role("status").filter(has_text="The payment is cancelled")).to_be_visible()
    await expect(reader.page.locator(".now")).to_contain_text("cancelled")
    assert await reader.page.get_by_role("button", name="Cancel the payment").count() == 0


@pytest.mark.parametrize("role", [None, *MERCHANTS])
@pytest.mark.parametrize(
    ("button", "status"), [("Approve for the customer", "processing"), ("Decline for the customer", "failed")]
)
async def test_answering_for_the_customer(
    reader: Reader, api: RunningApi, role: str | None, button: str, status: str
) -> None:
    payment = await waiting(api.user(7), api.database)
    await reader.sign_in(role, "7")
    await reader.open(f"/payments/{payment['id']}")
    await reader.press(button)
    await expect(reader.page.locator(".now")).to_contain_text(status)


@pytest.mark.parametrize("role", MERCHANTS)
async def test_capturing_a_part_and_refunding_a_part_of_it(
    reader: Reader, api: RunningApi, worker: None, role: str
) -> None:
    payment = await paid(api.user(7), capture_method="manual")
    await reader.sign_in(role, "7")
    await reader.open(f"/payments/{payment['id']}")
    await reader.page.get_by_label("Capture (USD)").fill("10.00")
    await reader.press("Capture")
    await expect(reader.page.locator(".now")).to_contain_text("completed", timeout=8000)
    await reader.page.get_by_label("Refund (USD)").fill("99")
    await reader.press("Refund")
    await expect(reader.page.get_by_role("alert")).to_contain_text("1000 can be refunded")
    # What Chromium says about the answer of 409 or 422.
    assert all("4" in error for error in reader.errors)
    reader.errors.clear()
    await reader.page.get_by_label("Refund (USD)").fill("2.50")
    await reader.press("Refund")
    await expect(reader.page.locator(".now")).to_contain_text("partially refunded", timeout=8000)
    await expect(reader.page.locator("#refunds")).to_contain_text("2.50 USD")


async def test_a_user_is_offered_no_capture_and_no_refund(reader: Reader, api: RunningApi, worker: None) -> None:
    payments = [await paid(api.user(7), capture_method=method) for method in ("manual", "automatic")]
    await reader.sign_in(None, "7")
    for payment in payments:
        await reader.open(f"/payments/{payment['id']}")
        assert await reader.page.get_by_role("button", name="Capture").count() == 0
        assert await reader.page.get_by_role("button", name="Refund").count() == 0


@pytest.mark.parametrize("role", MERCHANTS)
async def test_an_endpoint_is_disabled_enabled_and_sent_to_again(
    reader: Reader, api: RunningApi, worker: None, role: str
) -> None:
    async with receiver() as shop:
        owner = api.user("7", role=role)
        (await owner.post("/webhook-endpoints", json={"name": "orders", "url": shop.url})).raise_for_status()
        await paid(api.user(7))
        await reader.sign_in(role, "7")
        await reader.open("/webhooks")
        await reader.page.get_by_role("link", name="orders").click()
        await expect(reader.page.locator("#list")).to_contain_text("delivered", timeout=5000)
        await reader.press("Disable")
        await expect(reader.page.get_by_role("status").filter(has_text="is disabled")).to_be_visible()
        await reader.press("Resend")
        await expect(reader.page.get_by_role("alert")).to_contain_text("Enable it before you resend")
        reader.errors.clear()
        await reader.open("/webhooks")
        await reader.page.get_by_role("link", name="orders").click()
        await reader.press("Enable")
        await expect(reader.page.get_by_role("button", name="Disable")).to_be_visible()
        await reader.press("Resend")
        await expect(reader.page.get_by_text("Attempt 2")).to_be_visible(timeout=5000)
        assert len(shop.requests) == 2


async def test_payments_are_made_in_the_simulator(reader: Reader, api: RunningApi, worker: None) -> None:
    await reader.sign_in(None, "7")
    await reader.open("/simulator")
    await reader.page.get_by_role("link", name="Use pm_test_insufficient_funds").click()
    await reader.press("Pay")
    await expect(reader.page.locator(".now")).to_contain_text("insufficient_funds", timeout=8000)
    await reader.open("/simulator")
    await reader.page.get_by_label("How many").fill("20")
    await reader.press("Pay")
    await expect(reader.page.get_by_role("status").filter(has_text="20 payments were accepted")).to_be_visible()
    await expect(reader.page.locator(".status.good")).to_have_count(20, timeout=8000)


async def test_the_system_is_for_admins(reader: Reader, api: RunningApi, worker: None) -> None:
    await reader.sign_in()
    await reader.open("/system")
    await expect(reader.page.locator("#checks")).to_contain_text("ready")
    await reader.page.get_by_text("The simulated gateway").click()
    await expect(reader.page.get_by_text("PAYMENT_SUCCESS_RATE")).to_be_visible()
    # What was opened stays open while the rest is refreshed.
    await reader.page.wait_for_timeout(1500)
    await expect(reader.page.get_by_text("PAYMENT_SUCCESS_RATE")).to_be_visible()


async def test_a_worker_is_asked_to_verify(reader: Reader, api: RunningApi, worker: None) -> None:
    await paid(api.user(7))
    await reader.sign_in()
    await reader.open("/system")
    await expect(reader.page.locator("#verify")).to_contain_text("Nobody has verified yet")
    await reader.press("Verify now")
    # The page follows by itself.
    await expect(reader.page.locator("#verify")).to_contain_text("1 payment checked")
    await expect(reader.page.locator("#verify .status.good")).to_have_text("sound")
    await expect(reader.page.get_by_role("button", name="Verify now")).to_be_visible()


async def test_markup_of_clients_and_receivers_is_harmless(browser: Browser, api: RunningApi, worker: None) -> None:
    answer = answering(200, MARKUP.encode(), {"Content-Type": "text/html"})
    async with receiver(answer) as shop, reading(browser, api) as reader:
        dialogs: list[str] = []
        reader.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        admin = api.admin()
        body = {"name": MARKUP, "url": shop.url}
        endpoint = (await admin.post("/webhook-endpoints", json=body)).raise_for_status().json()
        payment = await paid(admin, description=MARKUP, metadata={MARKUP[:30]: MARKUP})
        await reader.sign_in()
        await reader.open(f"/webhooks/{endpoint['id']}")
        await expect(reader.page.get_by_role("heading", level=1)).to_have_text(MARKUP)
        await expect(reader.page.locator("#list")).to_contain_text("delivered", timeout=5000)
        await reader.page.locator("#list").get_by_role("link", name="payment.completed").click()
        await reader.page.get_by_text("Attempt 1").click()
        await expect(reader.page.locator("details pre")).to_have_text(MARKUP)
        for path in (f"/payments/{payment['id']}", "/payments", "/webhooks", ""):
            await reader.open(path)
            await reader.page.wait_for_timeout(900)
            await reader.require_policy_kept()
        assert dialogs == []
        assert await reader.page.locator("img[src=x]").count() == 0
