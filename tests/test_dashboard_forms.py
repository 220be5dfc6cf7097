"""The forms of the dashboard with what a hostile client sends: nothing is guessed, dropped, rounded or done by half."""

import html
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import httpx
import pytest

from api.dashboard.forms import decimal_number, minor_units, whole_number
from api.dashboard.json_api import Refused
from shared.config.settings import Settings
from tests.support.api_client import RunningApi, accepted, added, opened_with, order
from tests.support.dashboards import bearer, pressed, signed_in
from tests.support.settling import APPROVED, settled

pytest_plugins = ["tests.support.api_fixtures"]

LONG = "9" * 4301
NO_NUMBERS = (LONG, "\uff11\uff15", "\u0663", "1_5", "1e2", "-1", "+1", "0x1")
PAYMENTS = {"method": "pm_test_visa", "amount": "2.50", "currency": "EUR", "count": "1", "capture": "automatic"}
RULE = {"name": "a", "outcome": "insufficient_funds", "percent": "", "times": "", "minutes": ""}
PRESET = {"preset": "issuer-down", "minutes": "1"}
CLOCK = {"count": "1", "unit": "hours"}


async def browser_of(running_api: RunningApi, role: str | None = "admin") -> httpx.AsyncClient:
    return await signed_in(running_api, bearer(running_api, role, "root" if role else "1"))


async def said(browser: httpx.AsyncClient, path: str, fields: dict[str, str]) -> tuple[int, str]:
    """The status and the text with which a form of the simulator is answered."""
    answer = await pressed(browser, "/simulator", path, **fields)
    return answer.status_code, html.unescape(answer.text)


def is_named(name: str, text: str) -> bool:
    """A sentence says what is wrong with this field. The page has the field itself in any case."""
    return re.search(rf'"{name}" (?:must be|is required)', text) is not None


async def rules_of(running_api: RunningApi) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = (await running_api.admin().get("/simulation/rules")).json()["rules"]
    return rules


# -- numbers


@pytest.mark.parametrize(
    ("text", "currency", "amount"),
    [("15.85", "USD", 1585), ("15.8", "USD", 1580), ("15", "USD", 1500), ("0", "USD", 0), ("1585", "JPY", 1585),
     ("1.585", "KWD", 1585), ("0.05", "USD", 5)],
)  # fmt: skip
def test_an_amount_is_read_exactly(text: str, currency: str, amount: int) -> None:
    assert minor_units(text, currency) == amount


@pytest.mark.parametrize(
    ("text", "currency"),
    [*((text, "USD") for text in NO_NUMBERS), (f"15.85{'0' * 36}1", "USD"), ("15.850", "USD"), ("15.", "USD"),
     (".5", "USD"), ("1.5.5", "USD"), ("15.8\uff15", "USD"), ("", "USD"), ("1.0", "JPY"), ("1 5", "USD")],
)  # fmt: skip
def test_what_is_no_amount_of_the_currency_is_refused(text: str, currency: str) -> None:
    with pytest.raises(Refused) as caught:
        minor_units(text, currency)
    assert caught.value.answer.status == 422
    assert currency in caught.value.sentence


@pytest.mark.parametrize(("number", "is_within"), [("0", False), ("1", True), ("3", True), ("4", False)])
def test_a_number_is_within_its_bounds(number: str, *, is_within: bool) -> None:
    with nullcontext() if is_within else pytest.raises(Refused):
        assert whole_number({"minutes": number}, "minutes", between=(1, 3)) == int(number)


def test_a_number_has_nine_digits_and_no_more() -> None:
    assert whole_number({"times": "9" * 9}, "times") == 10**9 - 1
    assert decimal_number({"percent": f"{'9' * 9}.5"}, "percent") == 10**9 - 0.5
    assert minor_units("9" * 15, "KWD") == (10**15 - 1) * 1000
    for read in (
        lambda: whole_number({"times": "9" * 10}, "times"),
        lambda: decimal_number({"percent": "9" * 10}, "percent"),
        lambda: decimal_number({"percent": f"0.{'9' * 10}"}, "percent"),
        lambda: minor_units("9" * 16, "KWD"),
    ):
        with pytest.raises(Refused):
            read()


@pytest.mark.parametrize("number", NO_NUMBERS)
async def test_a_number_that_is_none_is_refused_by_every_form(running_api: RunningApi, number: str) -> None:
    browser = await browser_of(running_api)
    for path, fields, names in (
        ("/simulator", PAYMENTS, ("count", "amount")),
        ("/simulator/rules", RULE, ("percent", "times", "minutes", "delay_ms")),
        ("/simulator/rules/preset", PRESET, ("minutes",)),
        ("/simulator/clock", CLOCK, ("count",)),
    ):
        for name in names:
            status, text = await said(browser, path, {**fields, name: number})
            assert status == 422, name
            assert 'role="alert"' in text, name
    for name in ("amount_min", "amount_max"):
        assert (await browser.get("/payments", params={name: number})).status_code == 422
    assert await rules_of(running_api) == []
    assert (await running_api.admin().get("/payments")).json()["payments"] == []


@pytest.mark.parametrize("action", ["refund", "capture"])
async def test_a_long_amount_of_a_payment_is_refused(
    running_api: RunningApi, user: httpx.AsyncClient, action: str
) -> None:
    payment = await accepted(user, order(await added(user)))
    await settled(running_api.database, payment["id"], APPROVED)
    browser, path = await browser_of(running_api), f"/payments/{payment['id']}"
    for number in (LONG, f"5.00{'0' * 36}1"):
        assert (await pressed(browser, path, f"{path}/{action}", amount=number)).status_code == 422


async def test_only_an_amount_that_is_left_empty_means_all_of_it(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await accepted(user, order(await added(user)))
    await settled(running_api.database, payment["id"], APPROVED)
    browser, path = await browser_of(running_api), f"/payments/{payment['id']}"
    for action in ("refund", "capture"):
        answer = await pressed(browser, path, f"{path}/{action}")
        assert (answer.status_code, '"amount" is required' in html.unescape(answer.text)) == (422, True)
    assert (await user.get(f"{path}/refunds")).json()["refunds"] == []
    assert (await pressed(browser, path, f"{path}/refund", amount="")).status_code == 303


async def test_the_count_and_the_currency_are_named(running_api: RunningApi) -> None:
    browser = await browser_of(running_api)
    assert "between 1 and 100" in (await said(browser, "/simulator", {**PAYMENTS, "count": LONG}))[1]
    for currency in ("XXX", "usd", "", "\uff25UR"):
        status, text = await said(browser, "/simulator", {**PAYMENTS, "currency": currency})
        assert (status, '"currency" must be' in text, "The amount" in text) == (422, True, False)


# -- rules


@pytest.mark.parametrize("name", ["percent", "times", "minutes"])
async def test_a_zero_is_refused_and_never_makes_a_rule_without_bounds(running_api: RunningApi, name: str) -> None:
    browser = await browser_of(running_api)
    for zero in ("0", "00"):
        status, text = await said(browser, "/simulator/rules", {**RULE, name: zero})
        assert status == 422
        assert f'"{name}" must be' in text
    assert await rules_of(running_api) == []


async def test_a_part_of_a_percent_is_taken(running_api: RunningApi) -> None:
    status, _ = await said(await browser_of(running_api), "/simulator/rules", {**RULE, "percent": "0.5"})
    [rule] = await rules_of(running_api)
    assert (status, rule["match"]) == (303, {"percent": 0.5})


@pytest.mark.parametrize(
    "change", [{"preset": "none"}, {"preset": ""}, {"minutes": "0"}, {"minutes": ""}, {"minutes": "1441"}]
)
async def test_what_is_no_preset_is_refused_and_only_admins_are_told_why(
    running_api: RunningApi, change: dict[str, str]
) -> None:
    for role, wanted in (("admin", 422), ("service", 403), (None, 403)):
        status, text = await said(await browser_of(running_api, role), "/simulator/rules/preset", {**PRESET, **change})
        assert status == wanted
        assert is_named(next(iter(change)), text) == (wanted == 422)
    assert await rules_of(running_api) == []


async def test_without_simulation_every_form_of_the_simulator_is_refused(
    make_settings: Callable[..., Settings],
) -> None:
    async with opened_with(make_settings(simulation="off")) as running_api:
        browser = await browser_of(running_api)
        for path, fields in (
            ("/simulator/rules/preset", {**PRESET, "preset": "none"}),
            ("/simulator/rules", {**RULE, "times": "0"}),
            ("/simulator/clock", {**CLOCK, "unit": "years"}),
            ("/simulator", PAYMENTS),
        ):
            answer = await pressed(browser, "/payments", path, **fields)
            assert answer.status_code == 403, path


# -- the clock


@pytest.mark.parametrize(
    ("change", "name"),
    [({"unit": "years"}, "unit"), ({"unit": ""}, "unit"), ({"count": ""}, "count"), ({"count": "0"}, "count"),
     ({"count": "367", "unit": "days"}, "count")],
)  # fmt: skip
async def test_the_clock_is_not_advanced_by_what_the_form_does_not_say(
    running_api: RunningApi, change: dict[str, str], name: str
) -> None:
    browser = await browser_of(running_api)
    status, text = await said(browser, "/simulator/clock", {**CLOCK, **change})
    assert (status, is_named(name, text)) == (422, True)
    assert (await running_api.admin().get("/simulation/clock")).json()["offset_s"] < 1
    assert (await said(await browser_of(running_api, None), "/simulator/clock", {**CLOCK, **change}))[0] == 403
