"""What is done on the pages of the dashboard: once, in the words of the API, and only by those who may."""

import html
import re
from collections.abc import Callable

import httpx
import pytest

from shared.config.settings import Settings
from tests.support.api_client import RunningApi, opened_with
from tests.support.dashboard_roles import MARKUP, a_payment, visitor
from tests.support.dashboards import form_of, pressed
from tests.support.settling import DECLINED, settled

pytest_plugins = ["tests.support.api_fixtures"]


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
