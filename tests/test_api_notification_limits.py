"""Notifications of gateways: their form, the limits that count them, and very many at once."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from starlette.types import Message, Receive, Scope, Send

from api.edge.signed_notifications import IN_PROGRESS_MAX, UNTHROTTLED_MAX, SignedNotificationMiddleware
from api.hints import Hint
from api.paths import PREFIX
from api.state import HINTS_BATCH_MAX, HINTS_QUEUE_MAX
from shared.config.settings import Settings
from shared.errors import Overloaded
from shared.ids import new_id
from shared.runtime import Runtime
from tests.support.api_client import RunningApi, accepted, added, opened, opened_with, order, pointers, problem
from tests.support.notifications import (
    GATEWAY,
    PATH,
    is_due_soon,
    notification,
    notify,
    row,
    signed,
    waiting_payment,
)
from tests.support.scripted_databases import Scripted
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]

type MakeSettings = Callable[..., Settings]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
PATHS = (PATH, f"{PATH}/{GATEWAY}")


# -- what one must look like


MALFORMED: list[Any] = [b"", b"{", b"\xc3\xa4", b'{"type": "a", "type": "b"}', b'{"a": NaN}', b"[" * 30_000]
RIGHT = notification("01a21e56-d069-72e6-9f2c-44be0a381c81")
DATA = RIGHT["data"]
WRONG_FORMS: list[tuple[Any, list[str]]] = [
    ([], [""]),
    ({}, ["/type", "/timestamp", "/data"]),
    ({**RIGHT, "type": "payment.completed"}, ["/type"]),
    ({**RIGHT, "status": "COMPLETED"}, ["/status"]),
    ({**RIGHT, "timestamp": 1}, ["/timestamp"]),
    ({**RIGHT, "data": {**DATA, "payment_id": "x"}}, ["/data/payment_id"]),
    ({**RIGHT, "data": {**DATA, "payment_id": 7}}, ["/data/payment_id"]),
    ({**RIGHT, "data": {**DATA, "outcome": "approved"}}, ["/data/outcome"]),
    ({**RIGHT, "data": {**DATA, "refund_id": str(new_id())}}, ["/data/refund_id"]),
    ({**RIGHT, "type": "refund.settled"}, ["/data/refund_id"]),
]


@ON_SQLITE
@pytest.mark.parametrize("content", MALFORMED, ids=range(len(MALFORMED)))
async def test_what_is_signed_and_no_json_is_400(running_api: RunningApi, content: bytes) -> None:
    problem(await notify(running_api, content), 400, "malformed_request")


@ON_SQLITE
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("body", "wrong"), WRONG_FORMS, ids=range(len(WRONG_FORMS)))
async def test_what_is_signed_and_of_another_form_is_422(
    running_api: RunningApi, body: Any, wrong: list[str], path: str
) -> None:
    answer = await notify(running_api, body, path=path)
    assert pointers(answer) == wrong


@ON_SQLITE
async def test_the_same_is_401_as_long_as_nobody_has_signed_it(running_api: RunningApi) -> None:
    for content in [*MALFORMED, *(orjson.dumps(body) for body, _ in WRONG_FORMS)]:
        for path in PATHS:
            problem(await running_api.client().post(path, content=content), 401, "invalid_signature")


@ON_SQLITE
async def test_other_codings_parameters_and_methods_are_refused(running_api: RunningApi) -> None:
    for headers in ({"content-encoding": "gzip"}, {"content-type": "text/plain"}):
        problem(await notify(running_api, RIGHT, **headers), 415, "unsupported_media_type")
    answer = await notify(running_api, RIGHT, path=f"{PATH}/{GATEWAY}?gateway=stripe_mock")
    assert pointers(answer) == ["/query/gateway"]
    for path in PATHS:
        answer = await running_api.client().get(path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "POST"


@ON_SQLITE
async def test_the_platforms_paths_have_none(running_api: RunningApi) -> None:
    """The platform's gateway wants a token, which no payment gateway has."""
    client = running_api.client(base="/api")
    for path in ("/payments/webhooks/payment", "/payments/webhooks/payment/paypal_mock"):
        content = orjson.dumps(RIGHT)
        answer = await client.post(path, content=content, headers=signed(running_api, content))
        assert answer.status_code in {401, 404, 405}, answer.text


# -- limits


@ON_SQLITE
async def test_what_is_signed_is_not_counted_and_what_is_not_is_counted_and_refused(
    make_settings: MakeSettings,
) -> None:
    async with opened_with(make_settings(rate_limit_address="5/hour", rate_limit_user="1/hour")) as running_api:
        for path in PATHS * 5:
            answer = await notify(running_api, RIGHT, path=path)
            assert answer.status_code == 204
            assert "ratelimit" not in answer.headers
        content = orjson.dumps(RIGHT)
        for count in range(5):
            answer = await running_api.client().post(PATHS[count % 2], content=content)
            problem(answer, 401, "invalid_signature")
            assert f'"address";r={4 - count};' in answer.headers["ratelimit"]
        for path in PATHS:
            problem(await running_api.client().post(path, content=content), 429, "rate_limited")
            forged = signed(running_api, content, signer="stripe_mock", offset_s=-301)
            answer = await running_api.client().post(path, content=content, headers=forged)
            problem(answer, 429, "rate_limited")
            # What shares the address with them still arrives.
            assert (await notify(running_api, RIGHT, path=path)).status_code == 204


@ON_SQLITE
async def test_a_signature_buys_nothing_elsewhere(make_settings: MakeSettings) -> None:
    """Only its own two paths are not counted."""
    async with opened_with(make_settings(rate_limit_address="1/hour")) as running_api:
        content = orjson.dumps(RIGHT)
        for status in (401, 429):
            answer = await running_api.client().post("/payments", content=content, headers=signed(running_api, content))
            assert answer.status_code == status


# -- very many


@ON_SQLITE
async def test_beyond_the_queue_they_are_overloaded_and_payers_are_not(running_api: RunningApi) -> None:
    assert running_api.api is not None
    hints, method_id = running_api.api.hints, await added(running_api.user())
    async with running_api.database.transaction():
        # No other transaction begins meanwhile.
        first = [asyncio.create_task(hints.submit(Hint(GATEWAY, new_id()))) for _ in range(HINTS_BATCH_MAX)]
        # They are submitted, and then taken into a transaction.
        await asyncio.sleep(0)
        assert hints.queued == HINTS_BATCH_MAX
        await eventually(lambda: hints.queued == 0)
        more = [asyncio.create_task(hints.submit(Hint(GATEWAY, new_id()))) for _ in range(10_000)]
        await eventually(lambda: sum(task.done() for task in more) == 10_000 - HINTS_QUEUE_MAX)
        problem(await notify(running_api, RIGHT), 503, "overloaded")
        paying = asyncio.create_task(accepted(running_api.user(), order(method_id)))
        await asyncio.sleep(0.05)
    assert (await paying)["status"] == "PENDING"
    results = await asyncio.gather(*first, *more, return_exceptions=True)
    assert sum(isinstance(result, Overloaded) for result in results) == 10_000 - HINTS_QUEUE_MAX
    assert sum(result is None for result in results) == HINTS_BATCH_MAX + HINTS_QUEUE_MAX


async def test_many_at_once_share_transactions_and_payers_are_accepted_meanwhile(
    running_api: RunningApi, runtime: Runtime
) -> None:
    payment_ids = [await waiting_payment(running_api) for _ in range(3)]
    counting = Scripted(runtime.database)
    async with opened(replace(runtime, database=counting)) as notified:
        unknown = [str(new_id()) for _ in range(500)]
        sending = [
            asyncio.create_task(notify(notified, notification(payment_id)))
            for payment_id in (*unknown, *payment_ids * 20)
        ]
        user = running_api.user()
        payment = await accepted(user, order(await added(user)))
        answers = await asyncio.gather(*sending)
        assert {answer.status_code for answer in answers} == {204}
        assert counting.transactions < len(answers) / 4
    for payment_id in payment_ids:
        assert await is_due_soon(running_api.database, payment_id)
    assert (await row(running_api.database, payment["id"]))["status"] == "PENDING"


@ON_SQLITE
async def test_many_start_one_after_the_other_and_too_many_are_overloaded(running_api: RunningApi) -> None:
    """What holds the event loop for long delays payers, however little each notification takes."""
    content = orjson.dumps(RIGHT)
    headers = [(name.encode(), value.encode()) for name, value in signed(running_api, content).items()]
    released, started, statuses = asyncio.Event(), 0, []

    async def route(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal started
        started += 1
        await released.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})

    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    middleware = SignedNotificationMiddleware(route, keyring=running_api.runtime.keyring)
    scope = {"type": "http", "method": "POST", "path": PREFIX + PATH, "headers": headers, "correlation_id": "c"}
    asked = [asyncio.create_task(middleware(dict(scope), receive, send)) for _ in range(IN_PROGRESS_MAX + 1)]
    await asyncio.sleep(0)
    assert started == UNTHROTTLED_MAX
    assert statuses == [503]
    for ticks in (1, 2):
        await asyncio.sleep(0)
        assert UNTHROTTLED_MAX <= started <= UNTHROTTLED_MAX + ticks
    await eventually(lambda: started == IN_PROGRESS_MAX)
    released.set()
    await asyncio.gather(*asked)
    assert statuses == [503, *[204] * IN_PROGRESS_MAX]
    await middleware(dict(scope), receive, send)
    assert statuses[-1] == 204


@pytest.mark.slow
async def test_ten_thousand_at_once_change_nothing_but_when_the_worker_asks(running_api: RunningApi) -> None:
    payment_id = await waiting_payment(running_api)
    before = await row(running_api.database, payment_id)
    content = orjson.dumps(notification(payment_id))
    client, headers = running_api.client(), signed(running_api, content)

    async def send() -> int:
        return (await client.post(f"{PATH}/{GATEWAY}", content=content, headers=headers)).status_code

    statuses = await asyncio.gather(*(send() for _ in range(10_000)))
    assert set(statuses) <= {204, 503}
    assert statuses.count(204) >= 1
    after = await row(running_api.database, payment_id)
    assert {name for name in after if after[name] != before[name]} == {"due_at"}
