"""The approval pages over HTTP: what they say, what an answer changes, and what no request can do."""

import asyncio
import html
import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from structlog.testing import capture_logs

from api.approval.pages import ADVICE, RESULTS, State, problem_page
from api.problems import KINDS, Code
from shared.config.settings import Settings
from shared.logs import hide_secrets
from tests.support.api_client import RunningApi, added, card, opened_with, paypal
from tests.support.approvals import browser, customer, form_of, page, path_of, pressed, row, waiting
from tests.support.settling import APPROVED, claimed, settled

pytest_plugins = ["tests.support.api_fixtures"]

__all__ = ["browser"]

MARKUP = "</p><script>alert(1)</script>\"'&amp;{{ 7 * 7 }}"


# -- what the pages say


@pytest.mark.parametrize("code", Code)
def test_a_customer_waits_only_where_waiting_helps(code: Code) -> None:
    shown = bytes(problem_page({}, {"code": code}).body).decode()
    assert ("Wait for a" in shown) == (KINDS[code].status in {429, 500, 503})


async def test_the_banks_page_says_what_is_paid_to_whom_with_which_card_and_until_when(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database, description="Two mugs", order_id="o-7")
    answer = await browser.get(path_of(payment))
    words = ("15.85 USD", "shop.example", "Visa ending in 4242", "o-7", "Two mugs", "3-D Secure", "14 minutes left")
    page(answer, 200, *words)
    assert "refresh" not in answer.headers
    assert payment["next_action"]["expires_at"] in answer.text
    assert set(re.findall(r'<button [^>]*value="(\w+)"', answer.text)) == {"approve", "decline"}


@pytest.mark.parametrize(
    ("amount", "currency", "shown"), [(1585, "JPY", "1,585 JPY"), (1585, "KWD", "1.585 KWD"), (90, "USD", "0.90 USD")]
)
async def test_paypals_page_says_it_in_the_currencys_own_decimals(
    running_api: RunningApi,
    user: httpx.AsyncClient,
    browser: httpx.AsyncClient,
    amount: int,
    currency: str,
    shown: str,
) -> None:
    method_id = await added(user, paypal("shopper@example.com"))
    payment = await waiting(
        user, running_api.database, method_id=method_id, amount=amount, currency=currency, capture_method="manual"
    )
    address = payment["payment_method_details"]["email"]
    text = page(await browser.get(path_of(payment)), 200, shown, address, "PayPal", "The amount is only held now")
    assert "shopper@example.com" not in text


async def test_markup_in_the_texts_of_a_client_is_only_text(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    payment = await waiting(
        user,
        running_api.database,
        method_id=await added(user, card("5555555555554444", display_name=MARKUP)),
        description=MARKUP,
        metadata={"a": MARKUP},
        return_url="https://shop.example/?a='onload=alert(1)&b=%3C/script%3E",
    )
    page(await browser.get(path_of(payment)), 200, MARKUP, "Mastercard ending in 4444")
    answer = await browser.get((await pressed(browser, path_of(payment))).headers["location"])
    assert "'onload" not in answer.text


async def test_nothing_is_paid_to_a_host_that_only_looks_like_the_shop(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    """The page names the host to which the customer returns, as the name servers write it."""
    payment = await waiting(user, running_api.database, return_url="https://shop.example.xn--80ak6aa92e.example:8443/x")
    page(await browser.get(path_of(payment)), 200, "To shop.example.xn--80ak6aa92e.example")


# -- answers


@pytest.mark.parametrize(
    ("button", "status", "reason"),
    [("approve", "PROCESSING", "action_approved"), ("decline", "FAILED", "action_declined")],
)
async def test_an_answer_leads_to_its_result_and_from_there_to_the_shop(
    running_api: RunningApi,
    user: httpx.AsyncClient,
    browser: httpx.AsyncClient,
    button: str,
    status: str,
    reason: str,
) -> None:
    payment = await waiting(user, running_api.database)
    path = path_of(payment)
    answer = await pressed(browser, path, button)
    assert (answer.status_code, answer.text) == (303, "")
    assert answer.headers["cache-control"] == "no-store"
    # Relative, and the same page again.
    assert answer.headers["location"] == path.rpartition("/")[2]
    assert urlsplit(str(answer.url.join(answer.headers["location"]))).path == path
    result = await browser.get(path)
    page(
        result, 200, RESULTS[State.APPROVED if button == "approve" else State.DECLINED].heading, "Back to shop.example"
    )
    link = f"https://shop.example/paid?basket=7&payment_id={payment['id']}&status={status}#top"
    assert result.headers["refresh"] == f"1; url={link}"
    assert f'href="{html.escape(link)}"' in result.text
    history = (await user.get(f"/payments/{payment['id']}/history")).json()["history"]
    assert (history[-1]["reason"], history[-1]["created_by"]) == (reason, "customer")
    assert (await user.get(f"/payments/{payment['id']}")).json()["status"] == status


async def test_after_an_approval_a_worker_charges_and_the_page_still_shows_the_answer(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database)
    await pressed(browser, path_of(payment))
    await settled(running_api.database, payment["id"], APPROVED)
    result = await browser.get(path_of(payment))
    page(result, 200, RESULTS[State.APPROVED].heading)
    assert result.headers["refresh"].endswith("&status=COMPLETED#top")


async def test_a_second_press_and_a_second_tab_change_nothing(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database)
    path = path_of(payment)
    form = await form_of(browser, path)
    await browser.post(path, data={"form": form, "result": "approve"})
    after_first = await row(running_api.database, payment["id"])
    for button in ("approve", "decline"):
        second = await browser.post(path, data={"form": form, "result": button})
        assert second.status_code == 303
    assert await row(running_api.database, payment["id"]) == after_first
    page(await browser.get(path), 200, RESULTS[State.APPROVED].heading)


async def test_looking_changes_nothing(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database)
    before = await row(running_api.database, payment["id"])
    looked = await browser.get(path_of(payment))
    head = await browser.head(path_of(payment), headers={"Prefer": "wait=5"})
    assert (await row(running_api.database, payment["id"])) == before
    assert (head.status_code, head.headers["content-type"]) == (200, looked.headers["content-type"])


async def test_of_an_approval_and_a_cancel_at_once_one_wins(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    for _ in range(10):
        payment = await waiting(user, running_api.database)
        path, form = path_of(payment), await form_of(browser, path_of(payment))
        answered, cancelled = await asyncio.gather(
            browser.post(path, data={"form": form, "result": "approve"}),
            user.post(f"/payments/{payment['id']}/cancel"),
        )
        assert answered.status_code == 303
        is_cancelled = cancelled.status_code == 200
        page(await browser.get(path), 200, RESULTS[State.CANCELLED if is_cancelled else State.APPROVED].heading)


async def test_the_worker_claims_what_the_customer_approved_and_nothing_else(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    approved, declined, open_ = [await waiting(user, running_api.database) for _ in range(3)]
    await pressed(browser, path_of(approved))
    await pressed(browser, path_of(declined), "decline")
    claims = [await claimed(running_api.database, payment["id"]) for payment in (approved, declined, open_)]
    assert [claim is not None for claim in claims] == [True, False, False]


# -- around the pages


async def test_the_pages_are_on_the_platforms_path_too(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database)
    path = f"/api/payments{path_of(payment)}"
    answer = await pressed(browser, path)
    assert urlsplit(str(answer.url.join(answer.headers["location"]))).path == path
    page(await browser.get(path), 200, RESULTS[State.APPROVED].heading)
    page(await browser.get("/api/payments/approve/x"), 404)


async def test_an_address_that_tries_out_links_is_limited_like_every_other(
    make_settings: Callable[..., Settings],
) -> None:
    async with opened_with(make_settings(rate_limit_address="3/day")) as running_api:
        browser = customer(running_api)
        for _ in range(3):
            page(await browser.get("/approve/x"), 404)
        answer = await browser.get("/approve/x")
        page(answer, 429, ADVICE[Code.RATE_LIMITED].heading)
        assert int(answer.headers["retry-after"]) > 0


async def test_no_log_has_a_link(running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient) -> None:
    payment = await waiting(user, running_api.database)
    token = path_of(payment).rpartition("/")[2]
    with capture_logs() as captured:
        await pressed(browser, path_of(payment))
        await browser.get(f"/api/payments/approve/{token}")
        await browser.delete(path_of(payment))
    lines = [hide_secrets(None, "info", line) for line in captured]
    assert {line["event"] for line in lines} >= {"http.answered", "payment.action_approved"}
    assert {line["path"] for line in lines if "path" in line} == {"/approve/[hidden]", "/api/payments/approve/[hidden]"}
    assert token not in str(lines)
    assert token not in (await browser.get("/metrics")).text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://shop.example", "https://shop.example/?payment_id={id}&status=FAILED"),
        ("https://shop.example/a?", "https://shop.example/a?payment_id={id}&status=FAILED"),
        ("https://shop.example/a?b=%20&b=1#c?d", "https://shop.example/a?b=%20&b=1&payment_id={id}&status=FAILED#c?d"),
        ("https://shop.example/#/done", "https://shop.example/?payment_id={id}&status=FAILED#/done"),
        ("http://[::1]:3000/a;b?status=x", "http://[::1]:3000/a;b?status=x&payment_id={id}&status=FAILED"),
    ],
)
async def test_the_way_back_keeps_what_the_shop_wrote(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient, url: str, expected: str
) -> None:
    payment = await waiting(user, running_api.database, return_url=url)
    await pressed(browser, path_of(payment), "decline")
    answer = await browser.get(path_of(payment))
    assert answer.headers["refresh"] == f"1; url={expected.format(id=payment['id'])}"
    assert parse_qs(urlsplit(answer.headers["refresh"].partition("url=")[2]).query)["payment_id"] == [payment["id"]]


def test_every_state_and_every_code_that_a_page_may_have_has_words() -> None:
    assert set(RESULTS) == set(State) - {State.OPEN}
    for result in (*RESULTS.values(), *ADVICE.values()):
        assert result.text.endswith(".")
        assert not result.heading.endswith(".")
