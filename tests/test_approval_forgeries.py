"""Approval pages: links and forms that are not ours change nothing and show nothing."""

import base64
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.approval.links import Approval
from api.approval.pages import ADVICE, UNREADABLE
from api.problems import Code
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, opened
from tests.support.approvals import FORM, customer, form_of, page, path_of, pressed, row, waiting
from tests.support.scripted_databases import Scripted

pytest_plugins = ["tests.support.api_fixtures"]


@pytest.fixture
def browser(running_api: RunningApi) -> httpx.AsyncClient:
    return customer(running_api)


async def test_no_part_of_a_link_can_be_changed(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    first, second = [await waiting(user, running_api.database) for _ in range(2)]
    token = path_of(first).rpartition("/")[2]
    raw = base64.urlsafe_b64decode(token + "=")
    # A byte of the MAC, of the id, of the step and of the end.
    changed = [raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :] for place in (0, 15, 16, 31, 35, 36, 43)]
    # The payload of another payment under this MAC.
    changed.append(raw[:16] + base64.urlsafe_b64decode(path_of(second).rpartition("/")[2] + "=")[16:])
    forged = [base64.urlsafe_b64encode(text).decode().rstrip("=") for text in changed]
    # The same bytes in another spelling, and what is no token at all.
    forged += [
        f"{token[:-1]}{chr(ord(token[-1]) + 1)}",
        f"{token}=",
        f"{token}A",
        token[:-1],
        "x",
        "%00",
        "%F0%9F%92%B3",
    ]
    for text in forged:
        page(await browser.get(f"/approve/{text}"), 404, ADVICE[Code.NOT_FOUND].heading)
        answer = await browser.post(f"/approve/{text}", data={"form": "x", "result": "approve"})
        page(answer, 404, ADVICE[Code.NOT_FOUND].heading)
    assert (await row(running_api.database, first["id"])).sequence == first["sequence"]


async def test_a_forged_link_costs_no_query(runtime: Runtime) -> None:
    counting = Scripted(runtime.database)
    # Where the clock may be advanced, the API looks at it once a second.
    settings = runtime.settings.model_copy(update={"simulation": "off"})
    async with opened(replace(runtime, database=counting, settings=settings)) as running_api:
        browser = customer(running_api)
        page(await browser.get("/approve/" + "A" * 59), 404)
        page(await browser.post("/approve/" + "A" * 59, data={"form": "x", "result": "approve"}), 404)
    assert (counting.reads, counting.transactions) == (0, 0)


async def test_a_token_of_another_step_of_the_payment_is_unknown(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    payment = await waiting(user, running_api.database)
    keyring = running_api.runtime.keyring
    approval = Approval.open(keyring, path_of(payment).rpartition("/")[2])
    assert approval is not None
    assert approval.payment_id == UUID(payment["id"])
    for step in (approval.step - 1, approval.step + 1):
        other = Approval(approval.payment_id, step, approval.expires_at)
        page(await browser.get(f"/approve/{other.token(keyring)}"), 404)
    # After the answer the sequence has grown, and a step to come is still unknown.
    await pressed(browser, path_of(payment))
    later = Approval(approval.payment_id, approval.step + 1, approval.expires_at)
    page(await browser.get(f"/approve/{later.token(keyring)}"), 404)


def fields(form: str, change: dict[str, Any] | None = None) -> dict[str, Any]:
    sent = {"form": form, "result": "approve"} | (change or {})
    return {name: value for name, value in sent.items() if value is not None}


@pytest.mark.parametrize(
    "change",
    [
        {"form": None},
        {"form": "x"},
        {"form": ""},
        {"result": None},
        {"result": "yes"},
        {"result": ["approve", "decline"]},
        {"other": "field"},
    ],
)
async def test_a_form_that_is_not_the_pages_own_changes_nothing_and_is_shown_again(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    payment = await waiting(user, running_api.database)
    path, form = path_of(payment), await form_of(browser, path_of(payment))
    answer = await browser.post(path, data=fields(form, change))
    page(answer, 400, "nothing has changed", "15.85 USD")
    assert 'role="alert"' in answer.text
    assert "<title>Please choose again" in answer.text
    found = FORM.search(answer.text)
    assert found is not None
    assert found[1] == form
    assert (await row(running_api.database, payment["id"])).sequence == payment["sequence"]


async def test_the_form_of_another_payment_is_refused(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    first, second = [await waiting(user, running_api.database) for _ in range(2)]
    foreign = await form_of(browser, path_of(first))
    page(await browser.post(path_of(second), data=fields(foreign)), 400, "nothing has changed")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"json": {"form": "x", "result": "approve"}}, Code.UNSUPPORTED_MEDIA_TYPE),
        ({"content": b"form=x"}, Code.UNSUPPORTED_MEDIA_TYPE),
        ({"files": {"form": b"x"}}, Code.UNSUPPORTED_MEDIA_TYPE),
        ({"data": {"form": "x" * 4096, "result": "approve"}}, Code.BODY_TOO_LARGE),
    ],
)
async def test_another_body_is_refused_with_a_page(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient, sent: dict[str, Any], code: Code
) -> None:
    payment = await waiting(user, running_api.database)
    answer = await browser.post(path_of(payment), **sent)
    page(answer, {Code.UNSUPPORTED_MEDIA_TYPE: 415, Code.BODY_TOO_LARGE: 413}[code], UNREADABLE.heading)
    assert (await row(running_api.database, payment["id"])).sequence == payment["sequence"]


@pytest.mark.parametrize(
    "body", [b"form=%zz&result=approve", b"form", b"&&&", b"form=%FF&result=approve", b"\xff=a", b""]
)
async def test_a_body_that_is_no_form_is_shown_again(
    running_api: RunningApi, user: httpx.AsyncClient, browser: httpx.AsyncClient, body: bytes
) -> None:
    payment = await waiting(user, running_api.database)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    page(await browser.post(path_of(payment), content=body, headers=headers), 400, "nothing has changed")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_another_method_is_a_page_that_names_the_right_ones(browser: httpx.AsyncClient, method: str) -> None:
    answer = await browser.request(method, "/approve/x")
    page(answer, 405, ADVICE[Code.METHOD_NOT_ALLOWED].heading)
    assert answer.headers["allow"] == "GET, HEAD, POST"
