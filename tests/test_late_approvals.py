"""Approval pages of payments for which it is too late: they say so, and take no answer."""

import httpx

from api.approval.pages import ADVICE, RESULTS, State
from api.problems import Code
from tests.support.api_client import RunningApi
from tests.support.approvals import browser, form_of, page, path_of, row, waiting

pytest_plugins = ["tests.support.api_fixtures"]

__all__ = ["browser"]

DAY_S = 24 * 3600


async def test_after_its_time_the_page_says_so_and_takes_no_answer(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database, valid_s=-1)
    before = await row(running_api.database, payment["id"])
    answer = await browser.get(path_of(payment))
    page(answer, 200, RESULTS[State.EXPIRED].heading, "Back to shop.example")
    # Only who has answered is sent back.
    assert "refresh" not in answer.headers
    keyring = running_api.runtime.keyring
    form = keyring.approval_form_value(path_of(payment).rpartition("/")[2], payment["sequence"])
    late = await browser.post(path_of(payment), data={"form": form, "result": "approve"})
    assert late.status_code == 303
    assert await row(running_api.database, payment["id"]) == before


async def test_a_cancelled_payment_can_no_longer_be_approved(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database)
    path, form = path_of(payment), await form_of(browser, path_of(payment))
    await user.post(f"/payments/{payment['id']}/cancel")
    assert (await browser.post(path, data={"form": form, "result": "approve"})).status_code == 303
    answer = await browser.get(path)
    page(answer, 200, RESULTS[State.CANCELLED].heading)
    assert "refresh" not in answer.headers


async def test_a_day_after_its_end_the_link_is_unknown(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    kept = await waiting(user, running_api.database, valid_s=60 - DAY_S)
    old = await waiting(user, running_api.database, valid_s=-DAY_S)
    page(await browser.get(path_of(kept)), 200, RESULTS[State.EXPIRED].heading)
    for answer in (await browser.get(path_of(old)), await browser.post(path_of(old), data={"a": "b"})):
        page(answer, 404, ADVICE[Code.NOT_FOUND].heading)
