"""What a page says was done: only to whoever has done it, and at no address that somebody has made up."""

import html

import httpx
import pytest

from api.dashboard import payment_page, simulator_page, webhook_pages
from api.dashboard.done import mark_done, read_done
from tests.support.api_client import RunningApi, accepted, added, order
from tests.support.dashboards import bearer, form_of, pressed, signed_in
from tests.support.settling import APPROVED, settled

pytest_plugins = ["tests.support.api_fixtures"]

SUCCESS = 'role="status">'


def below(answer: httpx.Response) -> str:
    """Where an answer leads, below the dashboard, as the browser asks for it."""
    return answer.headers["location"].removeprefix("/dashboard").partition("#")[0]


def successes(page: httpx.Response) -> list[str]:
    """What a page says was done."""
    assert page.status_code == 200
    said = [part.partition("<")[0] for part in html.unescape(page.text).split(SUCCESS)[1:]]
    return [text for text in said if text != "Live"]


@pytest.mark.parametrize(
    ("secret", "path", "value"),
    [("b", "/x", ""), ("a", "/y", ""), ("a", "/x", "refund"), ("a", "/x", "refund."), ("a", "/x", ".refund"),
     ("a", "/x", "refund.\u00e9"), ("a", "/x", "refund." + "0" * 32)],
)  # fmt: skip
def test_a_value_counts_for_its_session_and_its_page(secret: str, path: str, value: str) -> None:
    made = mark_done("a", "/x", "refund")
    assert read_done("a", "/x", made) == "refund"
    assert read_done(secret, path, value or made) == ""
    assert read_done("a", "/x", made.replace("refund", "cancel")) == ""


async def test_no_address_that_was_made_up_says_that_something_was_done(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment = await accepted(user, order(await added(user)))
    endpoint = await running_api.admin().post("/webhook-endpoints", json={"name": "a", "url": "https://a.example/x"})
    browser = await signed_in(running_api, bearer(running_api))
    words = {
        f"/payments/{payment['id']}": payment_page.DONE,
        f"/webhooks/{endpoint.json()['id']}": webhook_pages.DONE,
        "/simulator": simulator_page.DONE,
        "/payments": ("99", "2", "100"),
    }
    mac = mark_done("made up", "/payments", "2").partition(".")[2]
    for path, known in words.items():
        for word in known:
            for value in (word, f"{word}.", f"{word}.{mac}"):
                page = await browser.get(path, params={"done": value, "made": word})
                assert successes(page) == [], (path, value)


async def test_what_was_done_is_said_on_its_page_and_to_its_visitor_only(
    running_api: RunningApi, user: httpx.AsyncClient
) -> None:
    payment, another = [await accepted(user, order(await added(user))) for _ in range(2)]
    await settled(running_api.database, payment["id"], APPROVED)
    browser = await signed_in(running_api, bearer(running_api))
    path = f"/payments/{payment['id']}"
    place = below(await pressed(browser, path, f"{path}/refund", amount=""))
    assert successes(await browser.get(place)) == ["The refund was accepted."]
    assert successes(await browser.get(place.replace(payment["id"], another["id"]))) == []
    assert successes(await (await signed_in(running_api, bearer(running_api))).get(place)) == []
    # The value that is in every form is no part of an address.
    assert form_of(await browser.get(path)) not in place


async def test_the_simulator_says_what_was_made(running_api: RunningApi) -> None:
    browser = await signed_in(running_api, bearer(running_api))
    fields = {"method": "pm_test_visa", "amount": "2.50", "currency": "EUR", "capture": "automatic"}
    for count, says in (("1", "The payment was accepted."), ("3", "3 payments were accepted.")):
        answer = await pressed(browser, "/simulator", "/simulator", count=count, **fields)
        [said] = successes(await browser.get(below(answer)))
        assert said.startswith(says)
