"""Notifications of gateways: who may send one, and that it only makes due now what was due later."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from prometheus_client import REGISTRY
from standardwebhooks import Webhook

from api.hints import Hint
from api.state import HINTS_BATCH_MAX, HINTS_QUEUE_MAX
from shared.config.settings import Settings
from shared.errors import Overloaded
from shared.ids import new_id
from shared.keyring import new_webhook_secret
from shared.runtime import Runtime
from tests.support.api_client import (
    APPROVED,
    RunningApi,
    Scripted,
    accepted,
    added,
    claimed,
    opened,
    opened_with,
    order,
    paid,
    pointers,
    problem,
    settled,
    working,
)
from tests.support.money import shown
from tests.support.notifications import (
    GATEWAY,
    PATH,
    is_due_soon,
    notification,
    notify,
    row,
    signed,
    waiting_payment,
    waiting_refund,
)
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.api_fixtures"]

type MakeSettings = Callable[..., Settings]

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
PATHS = (PATH, f"{PATH}/{GATEWAY}")


def received(result: str) -> float:
    name = "payments_gateway_notifications_received_total"
    return REGISTRY.get_sample_value(name, {"result": result}) or 0.0


# -- what one does


@pytest.mark.parametrize("path", PATHS)
async def test_a_payment_that_waits_is_due_now_and_nothing_else_of_it_changes(
    running_api: RunningApi, path: str
) -> None:
    payment_id, other_id = await waiting_payment(running_api), await waiting_payment(running_api)
    before, known = await row(running_api.database, payment_id), received("hastened")
    answer = await notify(running_api, notification(payment_id), path=path)
    assert (answer.status_code, answer.content) == (204, b"")
    after = await row(running_api.database, payment_id)
    assert {name for name in after if after[name] != before[name]} == {"due_at"}
    assert await is_due_soon(running_api.database, payment_id)
    assert not await is_due_soon(running_api.database, other_id)
    assert received("hastened") == known + 1


@pytest.mark.parametrize("path", PATHS)
async def test_a_refund_that_waits_is_due_now_and_its_payment_is_not(running_api: RunningApi, path: str) -> None:
    payment_id, refund_id = await waiting_refund(running_api)
    before = await row(running_api.database, refund_id), await row(running_api.database, payment_id)
    answer = await notify(running_api, notification(payment_id, refund_id=refund_id), path=path)
    assert answer.status_code == 204
    after = await row(running_api.database, refund_id)
    assert {name for name in after if after[name] != before[0][name]} == {"due_at"}
    assert await is_due_soon(running_api.database, refund_id)
    assert await row(running_api.database, payment_id) == before[1]


async def test_a_worker_takes_it_up_at_once_and_only_the_worker_ends_it(running_api: RunningApi) -> None:
    payment_id = await waiting_payment(running_api)
    async with working(running_api.runtime):
        answer = await notify(running_api, notification(payment_id))
        assert answer.status_code == 204

        async def has_ended() -> bool:
            return (await shown(running_api.user(), payment_id))["status"] in {"COMPLETED", "FAILED"}

        # The relay would look 5 seconds later.
        await eventually(has_ended, timeout_s=4)
    history = (await running_api.user().get(f"/payments/{payment_id}/history")).json()["history"]
    reasons = [entry["reason"] for entry in history]
    assert reasons[:4] == ["accepted", "claimed", "gateway_pending", "gateway_settled"]
    assert {entry["created_by"] for entry in history[1:]} == {"worker"}


@pytest.mark.parametrize("times", [1, 5])
async def test_it_may_come_as_often_as_it_likes(running_api: RunningApi, times: int) -> None:
    payment_id = await waiting_payment(running_api)
    content = orjson.dumps(notification(payment_id))
    headers = signed(running_api, content)
    for _ in range(times):
        answers = await asyncio.gather(
            *(running_api.client().post(path, content=content, headers=headers) for path in PATHS)
        )
        assert [answer.status_code for answer in answers] == [204, 204]
    due = (await row(running_api.database, payment_id))["due_at"]
    assert (await notify(running_api, notification(payment_id))).status_code == 204
    assert (await row(running_api.database, payment_id))["due_at"] == due


# -- what none does


async def test_nothing_changes_for_a_payment_that_does_not_wait_and_nothing_is_told_of_it(
    running_api: RunningApi,
) -> None:
    user, database = running_api.user(), running_api.database
    pending, in_gateway, ended = [(await paid(user, metadata={"n": str(n)}))["id"] for n in range(3)]
    await claimed(database, in_gateway)
    await settled(database, ended, APPROVED)
    known = received("ignored")
    for payment_id in (pending, in_gateway, ended):
        for gateway in (GATEWAY, "stripe_mock"):
            before = await row(database, payment_id)
            answer = await notify(
                running_api, notification(payment_id, gateway=gateway), path=f"{PATH}/{gateway}", signer=gateway
            )
            assert (answer.status_code, answer.content) == (204, b"")
            assert await row(database, payment_id) == before
    assert (await notify(running_api, notification(str(new_id())))).status_code == 204
    assert received("ignored") == known + 7


async def test_a_gateway_hastens_only_what_it_is_to_answer(running_api: RunningApi) -> None:
    payment_id = await waiting_payment(running_api)
    refunded_id, refund_id = await waiting_refund(running_api)
    for body in (
        notification(payment_id, gateway="stripe_mock"),
        # The signature decides, not the name in the body.
        notification(payment_id, gateway=GATEWAY),
        notification(refunded_id, refund_id=refund_id, gateway="stripe_mock"),
        # A refund is no payment, and a payment no refund.
        notification(refund_id, gateway="stripe_mock"),
    ):
        answer = await notify(running_api, body, path=f"{PATH}/stripe_mock", signer="stripe_mock")
        assert answer.status_code == 204
    for body in (notification(refund_id), notification(payment_id, refund_id=payment_id)):
        assert (await notify(running_api, body)).status_code == 204
    for row_id in (payment_id, refund_id):
        assert not await is_due_soon(running_api.database, row_id)


async def test_one_that_names_another_gateway_than_its_path_changes_nothing(running_api: RunningApi) -> None:
    payment_id = await waiting_payment(running_api)
    answer = await notify(running_api, notification(payment_id, gateway="square_mock"))
    assert answer.status_code == 204
    assert not await is_due_soon(running_api.database, payment_id)


# -- who may send one


async def forgeries(running_api: RunningApi, content: bytes) -> list[tuple[str, dict[str, str]]]:
    """Paths and headers of notifications that are not signed rightly."""
    right = signed(running_api, content)
    by_stripe = signed(running_api, content, signer="stripe_mock")
    secret = running_api.runtime.keyring.callback_secret(GATEWAY)
    of_callbacks = {**right, "webhook-signature": _signature(secret, right, content)}
    unknown = {**right, "webhook-signature": _signature(new_webhook_secret(), right, content)}
    found = [
        *({name: value for name, value in right.items() if name != left_out} for left_out in right),
        {"content-type": "application/json"},
        {**right, "webhook-id": "msg_2"},
        {**right, "webhook-signature": right["webhook-signature"][:-3]},
        {**right, "webhook-signature": right["webhook-signature"].replace("v1,", "v2,")},
        signed(running_api, content + b" "),
        signed(running_api, content, offset_s=-310),
        signed(running_api, content, offset_s=310),
        by_stripe,
        of_callbacks,
        unknown,
        {**unknown, "authorization": running_api.admin().headers["authorization"]},
    ]
    found = [headers for headers in found if "content-type" in headers]
    gateways = [
        f"{PATH}/stripe_mock",
        f"{PATH}/nobody_mock",
        f"{PATH}/PAYPAL_MOCK",
        f"{PATH}/%20",
        f"{PATH}/paypal_mock%00",
    ]
    return [(path, headers) for path in PATHS for headers in found] + [(path, right) for path in gateways]


def _signature(secret: str, headers: dict[str, str], content: bytes) -> str:
    moment = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    signature: str = Webhook(secret).sign(headers["webhook-id"], moment, content.decode())
    return signature


async def test_whatever_is_not_signed_rightly_has_one_answer_and_costs_no_query(runtime: Runtime) -> None:
    counting = Scripted(runtime.database)
    async with opened(runtime) as ordinary:
        payment_id = await waiting_payment(ordinary)
    async with opened(replace(runtime, database=counting)) as running_api:
        known, content = received("refused"), orjson.dumps(notification(payment_id))
        forged = await forgeries(running_api, content)
        answers = [await running_api.client().post(path, content=content, headers=headers) for path, headers in forged]
        told = []
        for answer in answers:
            found = problem(answer, 401, "invalid_signature")
            assert answer.headers["www-authenticate"] == "Standard-Webhooks"
            told.append({name: found[name] for name in found.keys() - {"instance", "correlation_id"}})
        assert all(each == told[0] for each in told)
        assert (counting.transactions, counting.reads) == (0, 0)
        assert received("refused") == known + len(forged)
        assert not await is_due_soon(runtime.database, payment_id)
        # None of them was refused for anything but its signature.
        assert (await notify(running_api, content)).status_code == 204


@ON_SQLITE
async def test_two_lines_of_one_header_are_no_signature(running_api: RunningApi) -> None:
    content = orjson.dumps(notification(str(new_id())))
    right = list(signed(running_api, content).items())
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        headers = [*right, (name, dict(right)[name])]
        answer = await running_api.client().post(f"{PATH}/{GATEWAY}", content=content, headers=headers)
        problem(answer, 401, "invalid_signature")


@ON_SQLITE
async def test_one_right_signature_among_several_is_enough(running_api: RunningApi) -> None:
    """So that a secret can be replaced without a pause."""
    content = orjson.dumps(notification(str(new_id())))
    headers = signed(running_api, content)
    wrong = _signature(new_webhook_secret(), headers, content)
    headers["webhook-signature"] = f"v2,xyz {wrong} {headers['webhook-signature']} {wrong}"
    for path in PATHS:
        assert (await running_api.client().post(path, content=content, headers=headers)).status_code == 204


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
    assert UUID(payment_id) == after["id"]
