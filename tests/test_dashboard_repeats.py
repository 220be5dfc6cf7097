"""Forms of the dashboard of which nobody knows whether they were done: sent again, they do nothing twice."""

import html
import re
from dataclasses import replace

import httpx
import pytest

from shared.runtime import Runtime
from tests.support.api_client import accepted, added, opened, order
from tests.support.dashboards import bearer, form_of, signed_in
from tests.support.scripted_databases import Scripted
from tests.support.settling import APPROVED, settled

pytest_plugins = ["tests.support.api_fixtures"]

UNKNOWN = ["lost", "rolled_back"]


def fields_of(page: httpx.Response, action: str) -> dict[str, str]:
    """The hidden fields of the form of a page whose action ends so."""
    form = re.search(rf'<form[^>]*action="[^"]*{action}">(.*?)</form>', page.text, re.DOTALL)
    assert form, page.text
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[1])
    return {name: html.unescape(value) for name, value in hidden}


@pytest.mark.parametrize("end", UNKNOWN)
async def test_a_refund_is_not_made_twice(runtime: Runtime, end: str) -> None:
    database = Scripted(runtime.database)
    async with opened(replace(runtime, database=database)) as running_api:
        user = running_api.user(42)
        payment = await accepted(user, order(await added(user)))
        await settled(runtime.database, payment["id"], APPROVED)
        browser = await signed_in(running_api, bearer(running_api))
        place = f"/payments/{payment['id']}"
        before = await browser.get(place)
        database.script = [end]
        after = await browser.post(f"{place}/refund", data=fields_of(before, "/refund") | {"amount": "1"})
        assert after.status_code == 503
        again = await browser.post(f"{place}/refund", data=fields_of(after, "/refund") | {"amount": "1"})
        assert again.status_code == 303
        refunds = (await running_api.admin().get(f"{place}/refunds")).json()["refunds"]
        assert [refund["amount"] for refund in refunds] == [100]
        # The next one is another refund.
        page = await browser.get(place)
        assert fields_of(page, "/refund")["key"] != fields_of(after, "/refund")["key"]


@pytest.mark.parametrize("end", UNKNOWN)
@pytest.mark.parametrize(
    ("action", "fields", "objects"),
    [
        ("/simulator/rules", {"name": "mine", "outcome": "insufficient_funds"}, "/simulation/rules"),
        ("/simulator/rules/preset", {"preset": "issuer-down", "minutes": "1"}, "/simulation/rules"),
        (
            "/simulator",
            {"count": "1", "amount": "15", "currency": "USD", "method": "pm_test_visa", "capture": "automatic"},
            "/payments",
        ),
    ],
)
async def test_rules_and_payments_are_not_made_twice(
    runtime: Runtime, end: str, action: str, fields: dict[str, str], objects: str
) -> None:
    database = Scripted(runtime.database)
    async with opened(replace(runtime, database=database)) as running_api:
        browser = await signed_in(running_api, bearer(running_api))
        page = await browser.get("/simulator")
        wanted = 2 if action.endswith("preset") else 1
        database.script = [end]
        after = await browser.post(action, data=fields_of(page, action) | fields)
        assert after.status_code == 503, after.text
        again = await browser.post(action, data=fields_of(after, action) | fields)
        assert again.status_code == 303, again.text
        found = (await running_api.admin().get(objects)).json()
        assert len(found["rules" if "rules" in found else "payments"]) == wanted


async def test_of_many_payments_the_page_says_how_many_were_accepted(runtime: Runtime) -> None:
    async with opened(runtime) as running_api:
        browser = await signed_in(running_api, bearer(running_api))
        page = await browser.get("/simulator")
        fields = {"form": form_of(page), "key": "k" * 43, "currency": "USD", "method": "pm_test_visa"}
        fields |= {"capture": "automatic", "amount": "15"}
        assert (await browser.post("/simulator", data=fields | {"count": "2"})).status_code == 303
        # The keys of two are used for other payments.
        answer = await browser.post("/simulator", data=fields | {"count": "3", "amount": "16"})
        assert answer.status_code == 422
        assert "1 of 3 payments were accepted." in answer.text
