"""The pages of the dashboard over HTTP: what each role sees and does, and that every text of a client is only text."""

import html
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from api.dashboard.pages import TONES
from shared.broker.verify_runs import VerifyStatus, find_verify, say_verify, take_verify
from shared.config.settings import Settings
from shared.delivery_lifecycle import DeliveryStatus
from shared.lifecycle import PaymentStatus
from shared.simulation.rules import RuleState
from tests.support.api_client import (
    APPROVED,
    DECLINED,
    RunningApi,
    accepted,
    added,
    change,
    opened_with,
    order,
    settled,
    working,
)
from tests.support.approvals import waiting
from tests.support.dashboards import bearer, form_of, pressed, signed_in
from tests.support.money import AUTHORIZED
from tests.support.receivers import answering, receiver
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]

MARKUP = "</td></pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{ 7 * 7 }}"
ROLES = {"admin": ("admin", "root"), "service": ("service", "shop"), "user": (None, "1"), "other": (None, "2")}
# What becomes of a press: 303 done, 403 not with this role, 404 not visible.
DONE = {
    "cancel": {"admin": 303, "service": 303, "user": 303, "other": 404},
    "answer": {"admin": 303, "service": 303, "user": 303, "other": 404},
    "capture": {"admin": 303, "service": 303, "user": 403, "other": 404},
    "refund": {"admin": 303, "service": 303, "user": 403, "other": 404},
}


async def visitor(running_api: RunningApi, who: str) -> httpx.AsyncClient:
    role, name = ROLES[who]
    return await signed_in(running_api, bearer(running_api, role, name))


async def a_payment(running_api: RunningApi, user: httpx.AsyncClient, action: str) -> dict[str, Any]:
    """A payment of user 1 with which this can be done."""
    if action == "answer":
        return await waiting(user, running_api.database)
    captured = {"capture_method": "manual"} if action == "capture" else {}
    payment = await accepted(user, order(await added(user), **captured))
    if action in {"capture", "refund"}:
        await settled(running_api.database, payment["id"], AUTHORIZED if action == "capture" else APPROVED)
    return payment


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


# -- actions


async def test_a_form_that_is_sent_twice_refunds_once(running_api: RunningApi, user: httpx.AsyncClient) -> None:
    payment = await a_payment(running_api, user, "refund")
    browser = await visitor(running_api, "admin")
    path = f"/payments/{payment['id']}"
    page = await browser.get(path)
    [key] = re.findall(r'name="key" value="([^"]+)"', page.text)
    fields = {"form": form_of(page), "key": key, "amount": "5.00"}
    assert {(await browser.post(f"{path}/refund", data=fields)).status_code for _ in range(2)} == {303}
    shown = (await user.get(f"/payments/{payment['id']}")).json()
    assert shown["amount_refundable"] == 1585 - 500


@pytest.mark.parametrize("amount", ["0", "-1", "1.585", "NaN", "Infinity", "1e30", "abc", "99999.00"])
async def test_a_wrong_amount_is_said_on_the_page_and_does_nothing(
    running_api: RunningApi, user: httpx.AsyncClient, amount: str
) -> None:
    payment = await a_payment(running_api, user, "refund")
    browser = await visitor(running_api, "admin")
    path = f"/payments/{payment['id']}"
    answer = await pressed(browser, path, f"{path}/refund", amount=amount)
    assert answer.status_code in {409, 422}
    assert 'role="alert"' in answer.text
    assert (await user.get(f"/payments/{payment['id']}/refunds")).json()["refunds"] == []


async def test_what_comes_too_late_is_said_in_the_words_of_the_api(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await a_payment(running_api, user, "cancel")
    browser = await visitor(running_api, "user")
    form = form_of(await browser.get(f"/payments/{payment['id']}"))
    await settled(running_api.database, payment["id"], DECLINED)
    answer = await browser.post(f"/payments/{payment['id']}/cancel", data={"form": form})
    assert answer.status_code == 409
    said = (await user.post(f"/payments/{payment['id']}/cancel")).json()["detail"]
    assert said in html.unescape(answer.text)


async def test_the_simulator_makes_as_many_payments_as_asked_for(running_api: RunningApi) -> None:
    browser = await visitor(running_api, "user")
    answer = await pressed(
        browser, "/simulator", "/simulator", method="pm_test_visa", amount="2.50", currency="EUR", count="100",
        capture="automatic", key="k" * 43,
    )  # fmt: skip
    place = answer.headers["location"].removeprefix("/dashboard")
    assert place.startswith("/payments?done=100.")
    assert "100 payments were accepted" in (await browser.get(place)).text
    payments = (await running_api.user(1).get("/payments", params={"limit": 100})).json()["payments"]
    assert {(payment["amount"], payment["currency"]) for payment in payments} == {(250, "EUR")}
    assert len(payments) == 100
    for wrong in ({"count": "101"}, {"count": "0"}, {"amount": "x"}, {"method": "pm_test_none"}, {"currency": "XXX"}):
        fields = {"method": "pm_test_visa", "amount": "2.50", "currency": "EUR", "count": "1", "capture": "automatic"}
        answer = await pressed(browser, "/simulator", "/simulator", **{**fields, **wrong})
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text


async def test_without_simulation_the_simulator_says_so(make_settings: Callable[..., Settings]) -> None:
    async with opened_with(make_settings(simulation="off")) as running_api:
        page = await (await visitor(running_api, "admin")).get("/simulator")
        assert page.status_code == 200
        assert "Simulation is off here" in page.text


@pytest.mark.parametrize(("who", "status"), [("admin", 303), ("service", 403), ("user", 403)])
async def test_rules_are_created_and_deleted_by_admins(
    running_api: RunningApi, admin: httpx.AsyncClient, who: str, status: int
) -> None:
    browser = await visitor(running_api, who)
    home = "/simulator"
    assert ('id="rules"' in (await browser.get(home)).text) == (who == "admin")
    rule = {"name": MARKUP[:60], "user_id": "7", "outcome": "insufficient_funds", "times": "2", "minutes": "5"}
    answer = await pressed(browser, home, f"{home}/rules", **rule, percent="", key="k" * 43)
    assert answer.status_code == status, answer.text
    answer = await pressed(browser, home, f"{home}/rules/preset", preset="issuer-down", minutes="1", key="p" * 43)
    assert answer.status_code == status
    rules = (await admin.get("/simulation/rules")).json()["rules"]
    assert len(rules) == (3 if who == "admin" else 0)
    if who == "admin":
        created = rules[-1]
        assert (created["match"], created["times"]) == ({"user_id": "7"}, 2)
        assert created["effect"] == {"outcomes": ["insufficient_funds"]}
        assert "<script>" not in (await browser.get(home)).text
        await pressed(browser, home, f"{home}/rules/delete", rule_id=created["id"])
        assert len((await admin.get("/simulation/rules")).json()["rules"]) == 2
        wrong = await pressed(browser, home, f"{home}/rules", **{**rule, "outcome": "", "key": "w" * 43})
        assert wrong.status_code == 422
        assert 'role="alert"' in wrong.text
    answer = await pressed(browser, home, f"{home}/rules/delete", all="1")
    assert answer.status_code == status
    assert (await admin.get("/simulation/rules")).json()["rules"] == []


@pytest.mark.parametrize(("who", "status"), [("admin", 303), ("service", 403), ("user", 403)])
async def test_the_clock_is_advanced_by_admins(
    running_api: RunningApi, user: httpx.AsyncClient, who: str, status: int
) -> None:
    browser = await visitor(running_api, who)
    page = (await browser.get("/simulator")).text
    assert ('action="/dashboard/simulator/clock"' in page) == (who == "admin")
    answer = await pressed(browser, "/simulator", "/simulator/clock", count="2", unit="hours", key="k" * 43)
    assert answer.status_code == status, answer.text
    ahead_s = (await user.get("/simulation/clock")).json()["offset_s"]
    assert (ahead_s > 7000) == (who == "admin")
    if who == "admin":
        assert "ahead of real time" in (await browser.get("/simulator")).text
        wrong = await pressed(browser, "/simulator", "/simulator/clock", count="x", unit="hours", key="w" * 43)
        assert wrong.status_code == 422


async def test_an_endpoint_is_disabled_and_enabled(running_api: RunningApi, service: httpx.AsyncClient) -> None:
    endpoint = (await service.post("/webhook-endpoints", json={"name": "a", "url": "https://a.example/x"})).json()
    path = f"/webhooks/{endpoint['id']}"
    browser = await visitor(running_api, "user")
    assert (await pressed(browser, "/simulator", f"{path}/disable")).status_code == 403
    browser = await visitor(running_api, "service")
    assert (await pressed(browser, path, f"{path}/disable")).status_code == 303
    assert not (await service.get(f"/webhook-endpoints/{endpoint['id']}")).json()["enabled"]
    await pressed(browser, path, f"{path}/enable")
    assert (await service.get(f"/webhook-endpoints/{endpoint['id']}")).json()["enabled"]


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


# -- the system


async def test_the_system_shows_every_setting_and_no_secret(
    make_settings: Callable[..., Settings], redis_url: str
) -> None:
    secrets = {
        "jwt_secret_key": "planted-jwt-secret-of-more-than-32-bytes",
        "data_key": "planted-data-key-of-more-than-32-bytes-x",
        "webhook_signing_secret": "planted-webhook-secret-of-32-bytes-xyz",
    }
    settings = make_settings(**secrets, auth_service_url="http://127.0.0.1:9/planted")
    async with opened_with(settings) as running_api:
        page = html.unescape((await (await visitor(running_api, "admin")).get("/system")).text)
    for name in Settings.model_fields:
        assert f"<code>{name.upper()}</code>" in page
    for secret in (*secrets.values(), redis_url):
        assert secret not in page
    assert "http://127.0.0.1:9/planted" in page


async def test_admins_ask_for_a_verification_and_see_how_far_it_is(running_api: RunningApi) -> None:
    browser, broker = await visitor(running_api, "admin"), running_api.runtime.broker
    answer = await pressed(browser, "/system", "/system/verify")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/system#verify")
    page = (await browser.get("/system")).text
    assert "It waits for a worker" in page
    assert "Verify now" not in page
    taken = await take_verify(broker, "<b>one</b>")
    assert taken is not None
    await say_verify(broker, taken)
    page = (await browser.get("/system")).text
    assert '<progress aria-labelledby="verify-run"></progress>' in page
    assert "keys checked" not in page
    await say_verify(broker, replace(taken, checked=1234, total=5678))
    page = (await browser.get("/system")).text
    assert "1,234 of 5,678 payments and keys checked" in page
    assert '<progress aria-labelledby="verify-run" max="5678" value="1234">' in page
    assert "<b>one</b>" not in page
    await say_verify(broker, replace(taken, status=VerifyStatus.FAILED, failure="It was <b>bad</b>."))
    page = (await browser.get("/system")).text
    assert "It was &lt;b&gt;bad&lt;/b&gt;." in page
    assert "Verify now" in page
    await say_verify(broker, replace(taken, status=VerifyStatus.DONE))
    page = (await browser.get("/system")).text
    assert "has no report" not in page
    assert "Verify now" in page


async def test_when_redis_refuses_it_the_system_is_shown_and_says_so(running_api: RunningApi) -> None:
    browser = await visitor(running_api, "admin")
    redis = running_api.runtime.broker.arq_connection
    # It is full: it answers, and stores nothing.
    await redis.config_set("maxmemory", 1)
    try:
        page = await browser.get("/system")
        assert page.status_code == 200
        assert 'role="alert"' not in page.text
        answer = await pressed(browser, "/system", "/system/verify")
    finally:
        await redis.config_set("maxmemory", 0)
    assert answer.status_code == 503
    assert 'role="alert"' in answer.text
    assert "Verify now" in answer.text


async def test_another_sites_form_asks_for_no_verification(running_api: RunningApi) -> None:
    browser = await visitor(running_api, "admin")
    assert (await browser.post("/system/verify", data={"form": "forged"})).status_code == 403
    assert await find_verify(running_api.runtime.broker) is None


@pytest.mark.parametrize("who", ["service", "user"])
async def test_nobody_else_asks_for_a_verification(running_api: RunningApi, who: str) -> None:
    browser = await visitor(running_api, who)
    assert (await pressed(browser, "/simulator", "/system/verify")).status_code == 403
    assert (await browser.post("/system/verify", data={"form": "forged"})).status_code == 403
    assert await find_verify(running_api.runtime.broker) is None


def test_every_status_has_a_tone() -> None:
    assert set(TONES) == {*PaymentStatus, *DeliveryStatus, *RuleState}
