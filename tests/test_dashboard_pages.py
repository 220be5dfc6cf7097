"""The pages of the dashboard over HTTP: what each role sees and does, and that every text of a client is only text."""

import html
import re

import httpx
import pytest

from tests.support.api_client import RunningApi, accepted, added, order
from tests.support.dashboard_roles import MARKUP, ROLES, a_payment, visitor
from tests.support.dashboards import pressed
from tests.support.receivers import answering, receiver
from tests.support.settling import change
from tests.support.waiting import eventually
from tests.support.workers import working

pytest_plugins = ["tests.support.api_fixtures"]

# What becomes of a press: 303 done, 403 not with this role, 404 not visible.
DONE = {
    "cancel": {"admin": 303, "service": 303, "user": 303, "other": 404},
    "answer": {"admin": 303, "service": 303, "user": 303, "other": 404},
    "capture": {"admin": 303, "service": 303, "user": 403, "other": 404},
    "refund": {"admin": 303, "service": 303, "user": 403, "other": 404},
}


# -- who may what


@pytest.mark.parametrize("who", ROLES)
@pytest.mark.parametrize("action", DONE)
async def test_each_role_sees_and_does_what_the_api_lets_it(
    running_api: RunningApi, user: httpx.AsyncClient, who: str, action: str
) -> None:
    payment = await a_payment(running_api, user, action)
    browser = await visitor(running_api, who)
    path = f"/payments/{payment['id']}"
    page = await browser.get(path)
    offered = f'action="/dashboard{path}/{action}"' in page.text
    assert offered == (DONE[action][who] == 303)
    assert (payment["order_id"] in page.text) == (page.status_code == 200) == (who != "other")
    # Whatever the page offers.
    answer = await pressed(browser, "/simulator", f"{path}/{action}", result="approve", amount="", key="k" * 43)
    assert answer.status_code == DONE[action][who], answer.text
    after = (await user.get(f"/payments/{payment['id']}")).json()
    assert (after["sequence"] > payment["sequence"] + (action in {"capture", "refund"}) * 2) == (
        answer.status_code == 303
    )
    if answer.status_code == 303:
        page = await browser.get(answer.headers["location"].removeprefix("/dashboard"))
        assert 'role="status"' in page.text


@pytest.mark.parametrize(
    ("who", "path", "status"),
    [("service", "/system", 403), ("user", "/system", 403), ("user", "/webhooks", 403), ("service", "/webhooks", 200),
     ("service", "/stream", 403), ("admin", "/nothing", 404)],
)  # fmt: skip
async def test_pages_are_for_their_roles(running_api: RunningApi, who: str, path: str, status: int) -> None:
    assert (await (await visitor(running_api, who)).get(path)).status_code == status


async def test_only_admins_see_the_ledger(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await a_payment(running_api, user, "refund")
    for who, sees in (("admin", True), ("service", False), ("user", False)):
        page = await (await visitor(running_api, who)).get(f"/payments/{payment['id']}")
        assert ("The gateway's ledger" in html.unescape(page.text)) == sees


# -- the list


async def test_the_list_has_pages_and_filters(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    method = await added(user)
    made = [(await accepted(user, order(method, amount=1000 + number)))["id"] for number in range(60)]
    browser = await visitor(running_api, "user")
    seen: list[str] = []
    path: str | None = "/payments"
    while path is not None:
        page = await browser.get(path)
        seen += re.findall(r'title="([0-9a-f-]{36})"', page.text)
        more = re.search(r'href="([^"]+)" rel="next"', page.text)
        path = f"/payments{html.unescape(more[1])}" if more else None
    assert seen == made[::-1]
    for query, count in (
        ("status=PENDING&order_id=none", 0),
        ("amount_min=1010&amount_max=1012", 3),
        ("method=PAYPAL", 0),
        ("outcome=card_declined", 0),
        ("created_after=2020-01-01T00:00", 25),
        ("created_before=2020-01-01T00:00", 0),
    ):
        page = await browser.get(f"/payments?{query}")
        assert page.status_code == 200, page.text
        assert len(re.findall(r'title="([0-9a-f-]{36})"', page.text)) == count, query
    for query in ("status=NONE", "cursor=forged", "amount_min=x", "created_after=yesterday"):
        page = await browser.get(f"/payments?{query}")
        assert page.status_code == 422, query
        assert 'role="alert"' in page.text


async def test_everything_is_found_by_its_id_and_by_its_order(
    running_api: RunningApi, user: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    endpoint = (await admin.post("/webhook-endpoints", json={"name": "a", "url": "https://a.example/x"})).json()
    payment = await a_payment(running_api, user, "refund")
    refund = (await admin.post(f"/payments/{payment['id']}/refunds")).json()
    [delivery, *_] = (await admin.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
    home, transaction = f"/dashboard/payments/{payment['id']}", f"ch_{'A1' * 12}"
    await change(running_api.database, payment["id"], gateway_transaction_id=transaction)
    places = {
        payment["id"]: home,
        payment["order_id"]: home,
        refund["id"]: f"{home}#refunds",
        delivery["id"]: f"/dashboard/deliveries/{delivery['id']}",
        delivery["event_id"]: f"{home}#events",
        endpoint["id"]: f"/dashboard/webhooks/{endpoint['id']}",
        transaction: home,
    }
    browser, stranger = await visitor(running_api, "admin"), await visitor(running_api, "other")
    for text, place in places.items():
        answer = await browser.get("/find", params={"q": f" {text} "})
        assert answer.headers["location"] == place
        answer = await stranger.get("/find", params={"q": text})
        # Whoever cannot see the payment is shown a list that has nothing of it.
        assert answer.status_code == 404 or answer.headers["location"] == f"/dashboard/payments?transaction={text}"
    for nothing in ("", "x y", "0" * 200, "01a22091-c2a7-77ae-9f71-cd99da4190aa"):
        assert (await browser.get("/find", params={"q": nothing})).status_code == 404


# -- texts of others


async def test_markup_of_clients_and_receivers_is_only_text(running_api: RunningApi) -> None:
    async with (
        receiver(answering(200, MARKUP.encode(), {"Content-Type": "text/html"})) as shop,
        working(running_api.runtime),
    ):
        admin = running_api.admin()
        endpoint = (await admin.post("/webhook-endpoints", json={"name": MARKUP, "url": shop.url})).json()
        changes = {"description": MARKUP, "metadata": {MARKUP[:30]: MARKUP}}
        payment = await accepted(admin, order("pm_test_visa", **changes))
        await eventually(lambda: len(shop.requests) > 0)
        [delivery] = (await admin.get(f"/payments/{payment['id']}/deliveries")).json()["deliveries"]
        browser = await visitor(running_api, "admin")
        pages = ["/payments", f"/payments/{payment['id']}", "/webhooks", f"/webhooks/{endpoint['id']}"]
        pages += [f"/deliveries/{delivery['id']}", f"/find?q={MARKUP[:60]}", f"/payments?order_id={MARKUP[:60]}"]
        pages += [f"/payments?done={MARKUP[:60]}", f"/payments/{payment['id']}?done={MARKUP[:60]}"]
        pages += [f"/simulator?method={MARKUP[:60]}&amount={MARKUP[:60]}"]
        for path in pages:
            text = (await browser.get(path)).text
            assert "<script>" not in text, path
            assert "<img src=x" not in text, path
            assert "49" not in re.findall(r"\{\{.*?\}\}|amp;49", text), path
        shown = html.unescape((await browser.get(f"/deliveries/{delivery['id']}")).text)
        assert shown.count(MARKUP) >= 2
